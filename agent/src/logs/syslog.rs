//! The `syslog` driver: a datagram or a line for each entry, to a server on this machine or another.
//!
//! A connection that broke is made anew, once for each entry; what can't be sent then is lost, and said in the daemon's log.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::{Entry, Stream};
use super::options::LogConfig;
use super::tag::{self, Container};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// What `--log-opt` may name.
pub(super) const OPTIONS: &[&str] = &[
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "syslog-address",
    "syslog-facility",
    "tag",
    "syslog-format",
];

/// Where this machine's server listens.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const PORT: u16 = 514;
/// For a connection, and for each send.
const TIMEOUT: Duration = Duration::from_secs(10);
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// What the options say.
#[derive(Debug)]
pub(super) struct Target {
    address: Address,
    facility: u8,
    format: Shape,
}

#[derive(Debug)]
enum Address {
    /// `/dev/log` and its like.
    Local,
    Stream(PathBuf),
    Datagrams(PathBuf),
    Tcp(String),
    Udp(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// As C's `syslog` writes: no host.
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

impl Target {
    /// # Errors
    /// An address, a facility or a format that is none: dockerd's texts. TLS is not served.
    pub(super) fn of(config: &LogConfig) -> Result<Self> {
        Ok(Self {
            address: address(config.option("syslog-address").unwrap_or_default())?,
            facility: facility(config.option("syslog-facility").unwrap_or_default())?,
            format: match config.option("syslog-format").unwrap_or_default() {
                "" => Shape::Unix,
                "rfc3164" => Shape::Rfc3164,
                "rfc5424" => Shape::Rfc5424,
                "rfc5424micro" => Shape::Rfc5424Micro,
                _ => return Err(Error::invalid("Invalid syslog format")),
            },
        })
    }

    /// # Errors
    /// The socket on this machine is not there: dockerd's text.
    pub(super) fn is_there(&self) -> Result<()> {
        match &self.address {
            Address::Stream(path) | Address::Datagrams(path) if std::fs::metadata(path).is_err() => {
                Err(Error::invalid(format!("stat {}: no such file or directory", path.display())))
            }
            _ => Ok(()),
        }
    }
}

fn address(text: &str) -> Result<Address> {
    if text.is_empty() {
        return Ok(Address::Local);
    }
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| Error::invalid(format!("unsupported scheme: '{text}'")))?;
    let host = rest.split('/').next().unwrap_or_default();
    // A colon outside an IPv6 address' brackets parts off the port.
    let with_port = match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => host.to_owned(),
        _ => format!("{host}:{PORT}"),
    };
    match scheme {
        "unix" => Ok(Address::Stream(rest.into())),
        "unixgram" => Ok(Address::Datagrams(rest.into())),
        "tcp" => Ok(Address::Tcp(with_port)),
        "udp" => Ok(Address::Udp(with_port)),
        other => Err(Error::invalid(format!("unsupported scheme: '{other}'"))),
    }
}

fn facility(text: &str) -> Result<u8> {
    if text.is_empty() {
        return Ok(3);
    }
    let by_name = FACILITIES.iter().position(|name| *name == text);
    by_name
        .or_else(|| text.parse().ok().filter(|number| *number < FACILITIES.len()))
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| Error::invalid("invalid syslog facility"))
}

#[derive(Debug)]
enum Connection {
    Stream(UnixStream),
    Datagrams(UnixDatagram),
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// An open log.
#[derive(Debug)]
pub(super) struct Syslog {
    target: Target,
    tag: String,
    host: String,
    connection: Option<Connection>,
}

impl Syslog {
    /// Not connected yet: a write does that where nothing else has.
    ///
    /// # Errors
    /// Options that mean nothing.
    pub(super) fn new(config: &LogConfig, container: &Container) -> Result<Self> {
        let target = Target::of(config)?;
        let tag = tag::tag(config, container, "{{.ID}}")?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self { target, tag, host, connection: None })
    }

    /// # Errors
    /// The server is not there.
    pub(super) fn connect(&mut self) -> Result<()> {
        let connection = connect(&self.target.address)
            .map_err(|error| Error::internal("failed to initialize logging driver", &error))?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.text().is_empty() {
            return Ok(());
        }
        let message = self.message(entry);
        if let Some(connection) = &mut self.connection {
            if send(connection, &message).is_ok() {
                return Ok(());
            }
            self.connection = None;
        }
        let mut connection = connect(&self.target.address)?;
        send(&mut connection, &message)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn message(&self, entry: &Entry) -> Vec<u8> {
        let severity = match entry.stream {
            Stream::Stdout => 6,
            Stream::Stderr => 3,
        };
        let priority = u32::from(self.target.facility) * 8 + severity;
        let (host, tag, pid) = (&self.host, &self.tag, std::process::id());
        let padded = entry.time.padded();
        let head = match self.target.format {
            Shape::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp(entry.time)),
            Shape::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(entry.time)),
            Shape::Rfc5424 => format!("<{priority}>1 {}Z {host} {tag} {pid} {tag} - ", &padded[..19]),
            Shape::Rfc5424Micro => format!("<{priority}>1 {}Z {host} {tag} {pid} {tag} - ", &padded[..26]),
        };
        let mut message = head.into_bytes();
        message.extend_from_slice(entry.text());
        message.push(b'\n');
        message
    }
}

/// `Jan _2 15:04:05`, in UTC.
fn stamp(time: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let padded = time.padded();
    let number =
        |range: std::ops::Range<usize>| padded.get(range).and_then(|text| text.parse::<usize>().ok());
    let month = number(5..7).and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"Jan");
    format!("{month} {:>2} {}", number(8..10).unwrap_or(1), padded.get(11..19).unwrap_or_default())
}

fn connect(address: &Address) -> io::Result<Connection> {
    let stream = |path: &Path| {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Connection::Stream(stream))
    };
    let datagrams = |path: &Path| {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok::<_, io::Error>(Connection::Datagrams(socket))
    };
    match address {
        Address::Local => LOCAL
            .iter()
            .find_map(|path| datagrams(Path::new(path)).or_else(|_| stream(Path::new(path))).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "Unix syslog delivery error")),
        Address::Stream(path) => stream(path),
        Address::Datagrams(path) => datagrams(path),
        Address::Tcp(host) => {
            let address = resolved(host)?;
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(Connection::Tcp(stream))
        }
        Address::Udp(host) => {
            let address = resolved(host)?;
            let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local)?;
            socket.connect(address)?;
            Ok(Connection::Udp(socket))
        }
    }
}

fn resolved(host: &str) -> io::Result<std::net::SocketAddr> {
    host.to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}")))
}

fn send(connection: &mut Connection, message: &[u8]) -> io::Result<()> {
    match connection {
        Connection::Stream(stream) => stream.write_all(message),
        Connection::Tcp(stream) => stream.write_all(message),
        Connection::Datagrams(socket) => socket.send(message).map(drop),
        Connection::Udp(socket) => socket.send(message).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn config(options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { driver: "syslog".into(), options }
    }

    #[test]
    fn options_are_read() {
        assert_eq!(facility("local7").ok(), Some(23));
        assert_eq!(facility("").ok(), Some(3));
        assert_eq!(facility("16").ok(), Some(16));
        assert!(facility("24").is_err());
        assert!(matches!(address("tcp://[::1]").unwrap(), Address::Tcp(host) if host == "[::1]:514"));
        assert!(matches!(address("udp://host:1").unwrap(), Address::Udp(host) if host == "host:1"));
        let text = address("tcp+tls://host").unwrap_err().message;
        assert_eq!(text, "unsupported scheme: 'tcp+tls'");
    }

    #[test]
    fn messages_reach_the_server() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = format!("udp://{}", server.local_addr().unwrap());
        let container = Container { id: "0123456789abcdef".into(), ..Container::default() };
        let entry = Entry {
            stream: Stream::Stderr,
            time: Timestamp::new(0, 1_500_000),
            line: b"it broke\n".to_vec(),
            partial: None,
            attributes: BTreeMap::new(),
        };
        let (host, pid) =
            (rustix::system::uname().nodename().to_string_lossy().into_owned(), std::process::id());
        for (format, wanted) in [
            ("rfc3164", format!("<27>Jan  1 00:00:00 {host} 0123456789ab[{pid}]: it broke\n")),
            ("", format!("<27>Jan  1 00:00:00 0123456789ab[{pid}]: it broke\n")),
            (
                "rfc5424micro",
                format!(
                    "<27>1 1970-01-01T00:00:00.001500Z {host} 0123456789ab {pid} 0123456789ab - it broke\n"
                ),
            ),
        ] {
            let config = config(&[("syslog-address", &address), ("syslog-format", format)]);
            let mut syslog = Syslog::new(&config, &container).unwrap();
            syslog.connect().unwrap();
            syslog.write(&entry).unwrap();
            let mut buffer = [0; 1024];
            let length = server.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), wanted);
        }
    }
}
