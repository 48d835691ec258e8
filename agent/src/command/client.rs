//! One request to a daemon's socket. TLS is not spoken: whoever is far away logs in, or uses an SSH tunnel of the socket.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::CommandError;

/// How long the daemon may take for its answer.
const PATIENCE: Duration = Duration::from_secs(120);
const DEFAULT: &str = "unix:///run/ketchd.sock";
/// What docker listens at with TLS.
const TLS_PORT: &str = ":2376";

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl Host {
    /// Of the option, else of `DOCKER_HOST`. Where docker would speak TLS nothing is sent at all: secrets are in what is asked.
    pub(super) fn of(
        option: Option<String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let environment = |name: &str| environment(name).filter(|text| !text.is_empty());
        let text = option.or_else(|| environment("DOCKER_HOST")).unwrap_or_else(|| DEFAULT.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        let Some(address) = text.strip_prefix("tcp://").map(|address| address.trim_end_matches('/')) else {
            return Err(format!("unable to parse docker host `{text}`"));
        };
        let is_tls = address.ends_with(TLS_PORT)
            || ["DOCKER_TLS_VERIFY", "DOCKER_TLS"].iter().any(|name| environment(name).is_some());
        if is_tls {
            return Err(format!(
                "{text} is to be asked by TLS, which this command does not speak: use the daemon's own socket, or a tunnel to it"
            ));
        }
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::Tcp(if has_port { address.to_owned() } else { format!("{address}:2375") }))
    }

    fn shown(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(address) => format!("tcp://{address}"),
        }
    }

    /// The answer's body, or the daemon's refusal.
    pub(super) fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, CommandError> {
        let failed = |why: String| CommandError::Connect { host: self.shown(), why };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(error.to_string()))?;
        let sent = Sent { method, path: path.to_owned(), body };
        let asked = runtime.block_on(async { timeout(PATIENCE, self.send(sent)).await });
        let (is_success, body) = asked
            .map_err(|_| failed("it does not answer".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if is_success { Ok(body) } else { Err(CommandError::Refused(message(&body))) }
    }

    async fn send(&self, sent: Sent) -> Result<(bool, Bytes), Box<dyn std::error::Error>> {
        match self {
            Self::Unix(path) => Ok(send(UnixStream::connect(path).await?, sent).await?),
            Self::Tcp(address) => Ok(send(TcpStream::connect(address).await?, sent).await?),
        }
    }
}

struct Sent {
    method: Method,
    path: String,
    body: Vec<u8>,
}

/// Whether the status was one of success, and the body.
async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    sent: Sent,
) -> hyper::Result<(bool, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    drop(tokio::spawn(connection));
    let mut request = hyper::Request::new(Full::new(Bytes::from(sent.body)));
    *request.method_mut() = sent.method;
    *request.uri_mut() = sent.path.parse().unwrap_or_default();
    let _none = request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("docker"));
    let json = hyper::header::HeaderValue::from_static("application/json");
    let _none = request.headers_mut().insert(CONTENT_TYPE, json);
    let response = sender.send_request(request).await?;
    let is_success = response.status().is_success();
    Ok((is_success, response.into_body().collect().await?.to_bytes()))
}

/// As docker prints it.
fn message(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let text = parsed.as_ref().and_then(|it| it.get("message")).and_then(Value::as_str);
    text.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_docker_has_them() {
        let of = |text: &str| Host::of(Some(text.to_owned()), |_| None);
        let by = |text: &str| {
            let text = text.to_owned();
            Host::of(None, move |name| (name == "DOCKER_HOST").then(|| text.clone()))
        };
        assert_eq!(of("unix:///run/x.sock"), Ok(Host::Unix("/run/x.sock".into())));
        assert_eq!(of("tcp://10.0.0.1:2375/"), Ok(Host::Tcp("10.0.0.1:2375".to_owned())));
        assert_eq!(of("tcp://10.0.0.1"), Ok(Host::Tcp("10.0.0.1:2375".to_owned())));
        assert_eq!(of("x"), Err("unable to parse docker host `x`".to_owned()));
        assert_eq!(by("tcp://a:1"), Ok(Host::Tcp("a:1".to_owned())));
        assert_eq!(by(""), Ok(Host::Unix("/run/ketchd.sock".into())));
        assert_eq!(Host::of(None, |_| None), Ok(Host::Unix("/run/ketchd.sock".into())));
    }

    #[test]
    fn nothing_goes_in_clear_text_where_docker_speaks_tls() {
        assert!(Host::of(Some("tcp://manager:2376".to_owned()), |_| None).is_err());
        for set in ["DOCKER_TLS_VERIFY", "DOCKER_TLS"] {
            let environment = |name: &str| match name {
                "DOCKER_HOST" => Some("tcp://manager:2375".to_owned()),
                name => (name == set).then(|| "1".to_owned()),
            };
            let why = Host::of(None, environment).unwrap_err();
            assert!(why.starts_with("tcp://manager:2375 is to be asked by TLS"), "{why}");
            let own = Host::of(Some("unix:///run/x.sock".to_owned()), environment);
            assert_eq!(own, Ok(Host::Unix("/run/x.sock".into())));
        }
        let unset = |name: &str| (name == "DOCKER_TLS_VERIFY").then(String::new);
        assert!(Host::of(Some("tcp://a:1".to_owned()), unset).is_ok());
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(segment("web.1/a b"), "web.1%2Fa%20b");
    }
}
