//! A node's surroundings in the simulation: turmoil's network, a clock that may be wrong, a seeded generator.
//!
//! TLS is left out: each end sends its certificates in the clear and judges the other's by the very `Trust` that TLS does, at
//! the simulated time. So roles, removed nodes, other clusters and expiry count; only the proof of the key does not.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_ca::identity::Identity;
use ketch_ca::trust::{PeerError, Side};
use ketch_cluster::time::Timestamp;
use ketch_node::world::{
    Accepted, Caller, CertificateDer, Credentials, DialError, Disk, Listener, Stream, Terms, Trust, World,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

use crate::disk::SimulatedDisk;
use crate::locks::lock;
use crate::random::Random;

/// For the exchange of certificates.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// As much as is sent at once: more than the window of a stream.
const WHOLE: usize = 2 << 20;
/// What a server says once it has judged the client's certificate. It says nothing to who is no member for another reason.
const LET_IN: u8 = 1;
/// The client's node was removed: the alert `certificate_revoked` of TLS.
const SHUT_OUT: u8 = 2;

/// One node's.
pub(crate) struct SimulatedWorld {
    disk: Arc<SimulatedDisk>,
    random: Mutex<Random>,
    /// By how many nanoseconds its clock is ahead.
    skew: Arc<Mutex<i64>>,
    credentials: Arc<Mutex<Option<Credentials>>>,
}

impl fmt::Debug for SimulatedWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedWorld")
    }
}

impl SimulatedWorld {
    pub(crate) fn new(disk: Arc<SimulatedDisk>, random: Random, skew: Arc<Mutex<i64>>) -> Self {
        Self { disk, random: Mutex::new(random), skew, credentials: Arc::default() }
    }
}

/// The simulated time that has passed since 1970, before any node's error.
fn elapsed() -> u64 {
    u64::try_from(turmoil::since_epoch().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn now(skew: &Mutex<i64>) -> Timestamp {
    Timestamp(elapsed().saturating_add_signed(*lock(skew)))
}

impl World for SimulatedWorld {
    fn now(&self) -> Timestamp {
        now(&self.skew)
    }

    fn bits(&self) -> u128 {
        let mut random = lock(&self.random);
        u128::from(random.bits()) << 64 | u128::from(random.bits())
    }

    fn dial(&self, address: &str, terms: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>> {
        let (address, skew) = (address.to_owned(), Arc::clone(&self.skew));
        let own = lock(&self.credentials).clone();
        async move {
            let unreachable = |error: io::Error| DialError::Unreachable {
                address: address.clone(),
                reason: error.to_string(),
            };
            let mut stream = TcpStream::connect(address.as_str()).await.map_err(unreachable)?;
            let (shown, judge) = match (&terms, own) {
                (Terms::Unverified, _) => (None, None),
                (Terms::Joining(trust), _) => (None, Some(Arc::clone(trust))),
                (Terms::Member(_), Some(own)) => (Some(own.chain), Some(own.trust)),
                (Terms::Member(_), None) => {
                    return Err(unreachable(io::Error::other("no certificate of one's own")));
                }
            };
            let exchanged = timeout(HANDSHAKE, async {
                send(&mut stream, shown.as_deref().unwrap_or_default()).await?;
                receive(&mut stream).await
            });
            let chain = exchanged.await.map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?;
            let chain = chain.map_err(unreachable)?;
            let Some(judge) = judge else {
                let _let_in = stream.read_u8().await.map_err(unreachable)?;
                return Ok(whole(stream));
            };
            let distrust = |reason: String| DialError::Distrust { address: address.clone(), reason };
            let peer = judged(&judge, &chain, Side::Server, now(&skew)).map_err(distrust)?;
            if let Terms::Member(expected) = terms {
                expected.check(peer).map_err(|error| distrust(error.to_string()))?;
            }
            // As in TLS 1.3, where a client that has believed the server hears then only whether that believes it.
            match timeout(HANDSHAKE, stream.read_u8()).await {
                Ok(Ok(LET_IN)) => {}
                Ok(Ok(_)) => return Err(DialError::ShutOut { address }),
                Ok(Err(error)) => return Err(unreachable(error)),
                Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
            }
            Ok(whole(stream))
        }
        .boxed()
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (address, skew, credentials) =
            (address.to_owned(), Arc::clone(&self.skew), Arc::clone(&self.credentials));
        async move {
            let listener = TcpListener::bind(address.as_str()).await?;
            Ok(Box::new(Listening { listener, skew, credentials }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn adopt(&self, credentials: Credentials) {
        *lock(&self.credentials) = Some(credentials);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk) as Arc<dyn Disk>
    }
}

/// What is flushed at once is one message of the network, whatever its length.
fn whole(stream: TcpStream) -> Box<dyn Stream> {
    Box::new(BufWriter::with_capacity(WHOLE, stream))
}

struct Listening {
    listener: TcpListener,
    skew: Arc<Mutex<i64>>,
    credentials: Arc<Mutex<Option<Credentials>>>,
}

impl Listening {
    /// The exchange of certificates; none when the other end is not believed or says nothing.
    async fn greeted(&self, stream: &mut TcpStream) -> Option<(Caller, Vec<CertificateDer<'static>>)> {
        let shown = receive(stream).await.ok()?;
        let own = lock(&self.credentials).clone()?;
        send(stream, &own.chain).await.ok()?;
        let greeted = if shown.is_empty() {
            (Caller::Stranger, Vec::new())
        } else {
            let chain = ketch_ca::certificates(&shown).ok()?;
            match own.trust.check(&chain, Side::Client, now(&self.skew)) {
                Ok(identity) => (Caller::Member(identity), chain),
                Err(PeerError::ShutOut) => {
                    stream.write_u8(SHUT_OUT).await.ok()?;
                    return None;
                }
                Err(_) => return None,
            }
        };
        stream.write_u8(LET_IN).await.ok()?;
        Some(greeted)
    }
}

impl Listener for Listening {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            loop {
                let (mut stream, from) = self.listener.accept().await?;
                if let Ok(Some((caller, chain))) = timeout(HANDSHAKE, self.greeted(&mut stream)).await {
                    let address = from.ip().to_string();
                    return Ok(Accepted { stream: whole(stream), caller, chain, address });
                }
            }
        }
        .boxed()
    }

    fn address(&self) -> String {
        self.listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
    }
}

fn judged(trust: &Trust, chain: &str, side: Side, now: Timestamp) -> Result<Identity, String> {
    let chain = ketch_ca::certificates(chain).map_err(|error| error.to_string())?;
    trust.check(&chain, side, now).map_err(|error| error.to_string())
}

async fn send(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_u32(u32::try_from(text.len()).map_err(io::Error::other)?).await?;
    stream.write_all(text.as_bytes()).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<String> {
    let length = stream.read_u32().await? as usize;
    let mut bytes = vec![0; length.min(1 << 20)];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
