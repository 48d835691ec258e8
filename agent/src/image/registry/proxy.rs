//! Proxies between us and registries: which one is for a host, and the way through it.
//!
//! As in Go's client: what is plain is asked of the proxy by its whole address, and for TLS the proxy makes a connection
//! (CONNECT), of which it sees nothing but where it goes. Whatever it answers is bounded.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::{Scheme, dial};
use super::in_network;

/// Until the proxy has made a connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it may say about that, in bytes.
const LONGEST: usize = 16 << 10;

/// What the settings say of proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    exceptions: Vec<Exception>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proxy {
    name: String,
    port: u16,
    /// Marked as what is not to be shown.
    pub(super) authorization: Option<HeaderValue>,
}

/// Hosts that are reached without; with a port only there.
#[derive(Clone, Debug, PartialEq)]
enum Exception {
    All,
    /// `address/bits`.
    Network(String),
    Address(IpAddr, Option<u16>),
    /// What names end with, from a dot on; maybe the name behind the dot, too.
    Names {
        end: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Of the texts that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` have. What is no proxy's address fails when it is needed.
    #[must_use]
    pub fn new(http: &str, https: &str, none: &str) -> Self {
        let proxy = |text: &str| (!text.is_empty()).then(|| Proxy::of(text));
        let words = none.split(',').map(|word| word.trim().to_lowercase());
        Self {
            http: proxy(http),
            https: proxy(https),
            exceptions: words.filter_map(|word| Exception::of(&word)).collect(),
        }
    }

    /// The one for a host; the host itself, be it a name or an address, is never asked for.
    ///
    /// # Errors
    /// What is set is none.
    pub(super) fn of(&self, scheme: Scheme, name: &str, port: u16) -> Result<Option<&Proxy>, String> {
        let proxy = match scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        match proxy {
            Some(proxy) if self.is_for(name, port) => proxy.as_ref().map(Some).map_err(Clone::clone),
            _ => Ok(None),
        }
    }

    fn is_for(&self, name: &str, port: u16) -> bool {
        let name = name.to_lowercase();
        let address = name.parse::<IpAddr>().ok();
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        let at = |wanted: Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        !self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network) => address.is_some_and(|address| in_network(address, network)),
            Exception::Address(other, wanted) => address == Some(*other) && at(*wanted),
            Exception::Names { end, itself, port } => {
                (name.ends_with(end.as_str()) || (*itself && end.get(1..) == Some(&name))) && at(*port)
            }
        })
    }
}

impl Exception {
    /// Go's rules: `name` is for itself and what is below it, `.name` and `*.name` for what is below it.
    fn of(word: &str) -> Option<Self> {
        if word == "*" {
            return Some(Self::All);
        }
        if let Some((base, bits)) = word.split_once('/')
            && base.parse::<IpAddr>().is_ok()
            && bits.parse::<u8>().is_ok()
        {
            return Some(Self::Network(word.to_owned()));
        }
        if let Ok(address) = word.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, None));
        }
        let (name, port) = split_port(word);
        if let Ok(address) = name.parse() {
            return Some(Self::Address(address, port));
        }
        let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
        let itself = !name.starts_with('.');
        let end = if itself { format!(".{name}") } else { name.to_owned() };
        (end.len() > 1).then_some(Self::Names { end, itself, port })
    }
}

impl Proxy {
    fn of(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if scheme != "http" {
            // A bad text's first word may be a password.
            let known = ["https", "socks4", "socks5", "socks5h"].iter().find(|known| **known == scheme);
            let scheme = known.map_or_else(String::new, |known| format!(" {known}:// is not supported:"));
            return Err(format!(
                "proxyconnect:{scheme} proxies of registries are reached by http://, which carries TLS too; set http-proxy and https-proxy (HTTP_PROXY, HTTPS_PROXY) so, or name the registry in no-proxy (NO_PROXY)"
            ));
        }
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (name, port) = split_port(authority);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("invalid proxy address {authority:?}"));
        }
        let authorization = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let both = [&decoded(user)[..], b":", &decoded(password)[..]].concat();
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(both)))
                .map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let authorization = authorization.transpose()?;
        Ok(Self { name: name.to_owned(), port: port.unwrap_or(80), authorization })
    }

    /// Connects to it.
    ///
    /// # Errors
    /// In Go's words.
    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        dial(&self.name, self.port).await.map_err(|error| format!("proxyconnect tcp: {error}"))
    }

    /// Has it connect to a host.
    ///
    /// # Errors
    /// What it says, or that what it says is no answer: Go's words.
    pub(super) async fn tunnel(
        &self,
        mut stream: TcpStream,
        name: &str,
        port: u16,
    ) -> Result<TcpStream, String> {
        // Of an address of the registry's making: nothing in it may be another line.
        if !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("invalid host {name:?}"));
        }
        let host = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
        let mut ask = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            ask.extend_from_slice(b"Proxy-Authorization: ");
            ask.extend_from_slice(authorization.as_bytes());
            ask.extend_from_slice(b"\r\n");
        }
        ask.extend_from_slice(b"\r\n");
        let asking = async {
            stream.write_all(&ask).await.map_err(|error| error.to_string())?;
            answer(&mut stream).await
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => granted(&answer?).map(|()| stream),
            Err(_) => Err("proxyconnect tcp: i/o timeout".to_owned()),
        }
    }
}

/// Reads an answer up to its empty line. The other end of what is connected then says nothing before we do.
async fn answer(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes).await.map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("unexpected EOF".to_owned());
        }
        // The line may begin in what came before.
        let from = answer.len().saturating_sub(3);
        answer.extend_from_slice(&bytes[..count]);
        if let Some(at) = answer[from..].windows(4).position(|four| four == b"\r\n\r\n") {
            answer.truncate(from + at);
            return Ok(answer);
        }
        if answer.len() > LONGEST {
            return Err(format!("the proxy's answer has more than {LONGEST} bytes"));
        }
    }
}

fn granted(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let status = status.ok_or_else(|| "malformed HTTP response of the proxy".to_owned())?;
    let (code, reason) = status.split_once(' ').unwrap_or((status, ""));
    if code == "200" {
        return Ok(());
    }
    // It is shown to users.
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(if reason.is_empty() { format!("the proxy answers with status {code:.10}") } else { reason })
}

/// A name or an address, without brackets; and the port, if there is one.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name.trim_matches(['[', ']']), port.parse().ok()),
        _ => (authority.trim_matches(['[', ']']), None),
    }
}

/// `%40` as a byte.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
