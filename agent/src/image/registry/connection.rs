//! One request to one host: connects, by a proxy or without, with TLS or without, and gives the response whose body is still to come.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::debug;

use super::proxy::Proxies;
use super::tls::{self, Trust};
use crate::error::{Error, Result};

/// To connect and to shake hands.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a response begins.
const ANSWER: Duration = Duration::from_secs(60);

/// What rustls says of an alert, in front of its name.
const ALERT: &str = "received fatal alert: ";

/// What is sent: a few bytes, or a layer as it is read.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) scheme: Scheme,
    /// A name or an address, and maybe a port.
    pub(super) authority: String,
    pub(super) trust: Trust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Bytes as a body.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Host {
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority)
    }

    /// Of an absolute address: the host and the rest.
    pub(super) fn of_url(url: &str, trust: Trust) -> Option<(Self, String)> {
        let (scheme, rest) = match url.split_once("://")? {
            ("https", rest) => (Scheme::Https, rest),
            ("http", rest) => (Scheme::Http, rest),
            _ => return None,
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let valid = !authority.is_empty() && !authority.contains('@');
        valid.then(|| (Self { scheme, authority: authority.to_owned(), trust }, path))
    }

    /// The name alone, and the port.
    fn address(&self) -> (&str, u16) {
        let default = if self.scheme == Scheme::Https { 443 } else { 80 };
        match self.authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name.trim_matches(['[', ']']), port.parse().unwrap_or(default))
            }
            _ => (self.authority.trim_matches(['[', ']']), default),
        }
    }

    /// Sends a request, whose address is a path.
    ///
    /// # Errors
    /// In the words that Go's client has for it, `Get "URL": ...`.
    pub(super) async fn send(
        &self,
        proxies: &Proxies,
        certificates: PathBuf,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>> {
        let method = request.method().as_str();
        let method = format!("{}{}", &method[..1], method[1..].to_ascii_lowercase());
        let url = self.url(&request.uri().to_string());
        let failed =
            |why: String| Error::new(crate::error::Kind::Internal, format!("{method} \"{url}\": {why}"));
        let host = HeaderValue::from_str(&self.authority).map_err(|error| failed(error.to_string()))?;
        let _none = request.headers_mut().insert(HOST, host);
        let agent = HeaderValue::from_static(concat!("docker/28.5.0 ketchd/", env!("CARGO_PKG_VERSION")));
        let _none = request.headers_mut().insert(USER_AGENT, agent);
        let (name, port) = self.address();
        let proxy = proxies.of(self.scheme, name, port).map_err(failed)?;
        let mut stream = match proxy {
            Some(proxy) => proxy.connect().await.map_err(failed)?,
            None => dial(name, port).await.map_err(failed)?,
        };
        if self.scheme == Scheme::Http {
            if let Some(proxy) = proxy {
                *request.uri_mut() = url.parse::<Uri>().map_err(|error| failed(error.to_string()))?;
                let known = proxy.authorization.clone().map(|value| (PROXY_AUTHORIZATION, value));
                request.headers_mut().extend(known);
            }
            return exchange(stream, request).await.map_err(failed);
        }
        if let Some(proxy) = proxy {
            stream = proxy.tunnel(stream, name, port).await.map_err(failed)?;
        }
        // Files are read anew: certificates may be added while the daemon runs.
        let trust = self.trust;
        let config = tokio::task::spawn_blocking(move || tls::config(&certificates, trust))
            .await
            .map_err(|error| failed(error.to_string()))??;
        let server = ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?;
        let shaking =
            tokio::time::timeout(PATIENCE, TlsConnector::from(config).connect(server, stream)).await;
        match shaking {
            Ok(Ok(stream)) => exchange(stream, request).await.map_err(failed),
            // Go's words for the one that users see most.
            Ok(Err(error)) if error.to_string().contains("UnknownIssuer") => {
                let why = "x509: certificate signed by unknown authority";
                Err(failed(format!("tls: failed to verify certificate: {why}")))
            }
            Ok(Err(error)) => Err(failed(match error.to_string().split_once(ALERT) {
                Some((_, alert)) if alert_words(alert).is_some() => described(&error),
                _ => format!("tls: {error}"),
            })),
            Err(_) => Err(failed("net/http: TLS handshake timeout".to_owned())),
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let shaken = hyper::client::conn::http1::Builder::new()
        .max_buf_size(256 << 10)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    drop(tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!("a connection to a registry ended: {error}");
        }
    }));
    // An upload takes as long as it takes.
    if request.method() == hyper::Method::PUT || request.method() == hyper::Method::PATCH {
        return sender.send_request(request).await.map_err(|error| described(&error));
    }
    match tokio::time::timeout(ANSWER, sender.send_request(request)).await {
        Ok(response) => response.map_err(|error| described(&error)),
        Err(_) => Err("net/http: timeout awaiting response headers".to_owned()),
    }
}

fn described(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    match text.split_once(ALERT).and_then(|(_, alert)| alert_words(alert)) {
        Some(words) => format!("remote error: tls: {words}"),
        None => text,
    }
}

/// Go's words for what the other end of a TLS connection does not like of us.
fn alert_words(alert: &str) -> Option<&'static str> {
    let known = [
        ("CertificateRequired", "certificate required"),
        ("BadCertificate", "bad certificate"),
        ("CertificateExpired", "expired certificate"),
        ("UnknownCA", "unknown certificate authority"),
        ("HandshakeFailure", "handshake failure"),
    ];
    known.iter().find(|(name, _)| alert.starts_with(name)).map(|(_, words)| *words)
}

/// Connects.
///
/// # Errors
/// In Go's words.
pub(super) async fn dial(name: &str, port: u16) -> Result<TcpStream, String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect((name, port))).await {
        Ok(Ok(stream)) => {
            let _quick = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(not_connected(name, port, &error)),
        Err(_) => Err(format!("dial tcp {name}:{port}: i/o timeout")),
    }
}

fn not_connected(name: &str, port: u16, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ if error.raw_os_error().is_none() => return format!("dial tcp: lookup {name}: no such host"),
        _ => format!("connect: {error}"),
    };
    format!("dial tcp {name}:{port}: {why}")
}
