//! Where the API is served, as `--host` says it.

use std::fmt;
use std::path::PathBuf;

const SOCKET: &str = "/run/ketchd.sock";
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// Sockets that systemd has opened: all of them, or one by number or name.
    Fd(String),
}

impl Default for Host {
    fn default() -> Self {
        Self::Unix(SOCKET.into())
    }
}

impl Host {
    /// The place of a flag's text; without a port it is that of TLS or the other.
    ///
    /// # Errors
    /// dockerd's texts.
    pub fn parse(text: &str, tls: bool) -> Result<Self, String> {
        let text = text.trim();
        let invalid = |why: String| format!("invalid bind address ({text}): {why}");
        if text.is_empty() {
            return Ok(if tls { Self::Tcp("localhost".to_owned(), TLS_PORT) } else { Self::default() });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" if rest.contains("://") => Err(invalid(format!("invalid unix address: {rest}"))),
            "unix" if rest.is_empty() => Ok(Self::default()),
            "unix" => Ok(Self::Unix(rest.into())),
            "fd" => Ok(Self::Fd(rest.to_owned())),
            "tcp" => tcp(rest, if tls { TLS_PORT } else { PORT }).map_err(invalid),
            other => Err(invalid(format!("unsupported proto '{other}'"))),
        }
    }
}

fn tcp(text: &str, default: u16) -> Result<Host, String> {
    if text.contains('/') {
        return Err("should not contain a path element".to_owned());
    }
    // A colon outside an IPv6 address' brackets parts off the port.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let port = match port {
        "" => default,
        port => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("invalid port: {port}"))?,
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(Host::Tcp(host.to_owned(), port))
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(host, port) => write!(formatter, "tcp://{host}:{port}"),
            Self::Fd(which) => write!(formatter, "fd://{which}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, wanted) in [
            ("", "unix:///run/ketchd.sock"),
            ("unix://", "unix:///run/ketchd.sock"),
            ("unix:///x", "unix:///x"),
            ("fd://", "fd://"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
            (":1", "tcp://localhost:1"),
            ("tcp://[::1]:5", "tcp://[::1]:5"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
        ] {
            assert_eq!(Host::parse(text, false).unwrap().to_string(), wanted, "{text}");
        }
        assert_eq!(Host::parse("tcp://a", true), Ok(Host::Tcp("a".into(), 2376)));
        for (text, why) in [
            ("foo://x", "unsupported proto 'foo'"),
            ("tcp://a:x", "invalid port: x"),
            ("tcp://a:1/b", "should not contain a path element"),
        ] {
            assert_eq!(Host::parse(text, false), Err(format!("invalid bind address ({text}): {why}")));
        }
    }
}
