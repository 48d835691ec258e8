//! Connections to other nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::tls::server_name;
use ketch_ca::trust::PeerError;
use ketch_node::world::{DialError, Stream, Terms};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{AlertDescription, Error};

use super::credentials::{ALPN, Held, whole};
use super::socket;

/// How long a server may take from the TCP connection to its first word. The caller waits no longer in all, as a rule.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connects, and returns once the other end has let this node in.
pub(super) async fn dial(
    held: Arc<Held>,
    address: String,
    terms: Terms,
) -> Result<Box<dyn Stream>, DialError> {
    let unreachable = |reason: String| DialError::Unreachable { address: address.clone(), reason };
    let config = match held.client(terms) {
        Ok(config) => config,
        Err(reason) => return Err(DialError::Distrust { address, reason }),
    };
    let socket =
        TcpStream::connect(&address).await.map_err(|error| unreachable(not_connected(&address, &error)))?;
    socket::tend(&socket).map_err(|error| unreachable(error.to_string()))?;
    let connected = timeout(HANDSHAKE, enter(TlsConnector::from(config), socket)).await;
    match connected.map_err(|_| unreachable("it does not answer".to_owned()))? {
        Ok(stream) => Ok(Box::new(stream)),
        Err(reason) => Err(reason.of(address)),
    }
}

/// In the words of Go, which users of `docker swarm join` know.
fn not_connected(address: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
        _ => format!("dial tcp {address}: connect: {error}"),
    }
}

/// Why a server that was reached is not one to talk to.
enum Failure {
    Lost(String),
    Distrust(String),
    /// It is trusted, and does not know this node any more.
    ShutOut,
    Foreign(String),
}

impl Failure {
    fn of(self, address: String) -> DialError {
        match self {
            Self::Lost(reason) => DialError::Unreachable { address, reason },
            Self::Distrust(reason) => DialError::Distrust { address, reason },
            Self::ShutOut => DialError::ShutOut { address },
            Self::Foreign(reason) => DialError::Foreign { address, reason },
        }
    }
}

/// In TLS 1.3 a client has finished before the server has looked at its certificate, and a refusal comes in place of the first
/// word: HTTP/2 has the server say its settings unasked (RFC 9113, 3.4), so that word is waited for.
async fn enter(
    connector: TlsConnector,
    socket: TcpStream,
) -> Result<BufReader<TlsStream<TcpStream>>, Failure> {
    let stream = connector.connect(server_name(), socket).await.map_err(|error| failure(&error))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(Failure::Foreign("it speaks TLS, but not HTTP/2".to_owned()));
    }
    let mut stream = BufReader::new(stream);
    match stream.fill_buf().await {
        Ok([]) => Err(Failure::Lost("it closed the connection".to_owned())),
        Ok(_) => Ok(stream),
        Err(error) => Err(refusal(&error)),
    }
}

/// Why a server that has proven who it is does not go on. Its certificate was judged and its words are encrypted by now: only of
/// such a one it is believed that this node was removed.
fn refusal(error: &io::Error) -> Failure {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match reason {
        Some(Error::AlertReceived(AlertDescription::CertificateRevoked)) => Failure::ShutOut,
        _ => failure(error),
    }
}

fn failure(error: &io::Error) -> Failure {
    let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return Failure::Lost(error.to_string());
    };
    match reason {
        Error::InvalidCertificate(_) => {
            Failure::Distrust(PeerError::of(reason).map_or_else(|| reason.to_string(), |peer| whole(&peer)))
        }
        Error::AlertReceived(alert) if is_of_certificates(*alert) => {
            Failure::Distrust(format!("it does not believe this node's certificate ({alert:?})"))
        }
        other => Failure::Foreign(other.to_string()),
    }
}

/// What a server says to who shows a certificate that it does not believe (RFC 8446, 6.2).
fn is_of_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
    )
}
