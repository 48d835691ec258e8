//! Published ports on the host's side: which are taken, a socket that keeps other programs off each, and the connections
//! that the packet filter does not carry: those to an IPv6 address of a container that has none, to `[::1]`, and all of them
//! while there are no rules.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::firewall::{Forward, Transport};

/// Where a port that nobody names is taken from; the kernel's own (`ip_local_port_range`), as dockerd does.
const ANY: RangeInclusive<u16> = 32768..=60999;

/// A port that can't be had. The texts are dockerd's, behind the endpoint that wanted it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("Bind for {0} failed: port is already allocated")]
    Allocated(SocketAddr),
    #[error("failed to bind host port for {host}:{container}/{transport}: {reason}", transport = .transport.name())]
    Taken { host: SocketAddr, container: SocketAddr, transport: Transport, reason: String },
    #[error("all ports are allocated")]
    Exhausted,
}

/// One that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) transport: Transport,
    /// The same port at each of these, with where it leads.
    pub(super) hosts: Vec<(IpAddr, SocketAddr)>,
    /// `None`: any.
    pub(super) ports: Option<RangeInclusive<u16>>,
}

/// Those that are taken by containers.
#[derive(Debug)]
pub(super) struct Ports {
    runtime: Handle,
    held: BTreeMap<(Transport, SocketAddr), Held>,
    /// Where the search for any port begins: not at once the one that was given back.
    next: u16,
}

#[derive(Debug)]
struct Held {
    container: String,
    _socket: Kept,
}

/// Closed when it is dropped.
#[derive(Debug)]
enum Kept {
    Datagrams(#[expect(dead_code, reason = "held open only")] UdpSocket),
    Associations(#[expect(dead_code, reason = "held open only")] Option<OwnedFd>),
    Connections { listener: OwnedFd, carrier: AbortHandle },
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Connections { listener, carrier } = self {
            // The runtime drops the carrier's socket when it comes to it; the port is wanted again at once.
            let _ended = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
            carrier.abort();
        }
    }
}

impl Ports {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, held: BTreeMap::new(), next: *ANY.start() }
    }

    /// Takes a port at all the wanted addresses.
    pub(super) fn take(&mut self, container: &str, wanted: &Wanted) -> Result<Vec<Forward>, PortError> {
        let candidates: Vec<u16> = match &wanted.ports {
            Some(ports) => ports.clone().collect(),
            None => (self.next..=*ANY.end()).chain(*ANY.start()..self.next).collect(),
        };
        let mut last = PortError::Exhausted;
        for port in candidates {
            match self.take_all(container, wanted, port) {
                Ok(forwards) => {
                    if wanted.ports.is_none() {
                        self.next = if port == *ANY.end() { *ANY.start() } else { port + 1 };
                    }
                    return Ok(forwards);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn take_all(&mut self, container: &str, wanted: &Wanted, port: u16) -> Result<Vec<Forward>, PortError> {
        let mut forwards = Vec::new();
        for (host, to) in &wanted.hosts {
            let forward =
                Forward { transport: wanted.transport, host: SocketAddr::new(*host, port), container: *to };
            match self.take_one(container, forward) {
                Ok(()) => forwards.push(forward),
                Err(error) => {
                    for taken in &forwards {
                        self.give_back_one(taken);
                    }
                    return Err(error);
                }
            }
        }
        Ok(forwards)
    }

    /// Takes this very one.
    pub(super) fn take_one(&mut self, container: &str, forward: Forward) -> Result<(), PortError> {
        let blocked = self.held.keys().any(|(transport, held)| {
            *transport == forward.transport
                && held.port() == forward.host.port()
                && held.is_ipv4() == forward.host.is_ipv4()
                && (held.ip() == forward.host.ip()
                    || held.ip().is_unspecified()
                    || forward.host.ip().is_unspecified())
        });
        if blocked {
            return Err(PortError::Allocated(forward.host));
        }
        let socket = self.open(&forward).map_err(|error| PortError::Taken {
            host: forward.host,
            container: forward.container,
            transport: forward.transport,
            reason: reason(&error),
        })?;
        let held = Held { container: container.to_owned(), _socket: socket };
        let _none = self.held.insert((forward.transport, forward.host), held);
        Ok(())
    }

    fn open(&self, forward: &Forward) -> io::Result<Kept> {
        let host = forward.host;
        let (kind, protocol) = match forward.transport {
            Transport::Tcp => (SocketType::STREAM, None),
            Transport::Udp => (SocketType::DGRAM, None),
            Transport::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
        };
        let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::socket_with(family, kind, flags, protocol) {
            // A kernel without SCTP sockets still forwards it.
            Err(Errno::PROTONOSUPPORT) if forward.transport == Transport::Sctp => {
                return Ok(Kept::Associations(None));
            }
            socket => socket?,
        };
        if host.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if forward.transport == Transport::Tcp {
            // The last holder's connections may still be waiting for their end.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &host)?;
        Ok(match forward.transport {
            Transport::Udp => Kept::Datagrams(UdpSocket::from(socket)),
            Transport::Sctp => Kept::Associations(Some(socket)),
            Transport::Tcp => {
                rustix::net::listen(&socket, 1024)?;
                let _entered = self.runtime.enter();
                let listener = socket.try_clone()?;
                let accepting = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
                let carrier = self.runtime.spawn(carry(accepting, forward.container)).abort_handle();
                Kept::Connections { listener, carrier }
            }
        })
    }

    /// Gives back all of a container's.
    pub(super) fn give_back(&mut self, container: &str) {
        self.held.retain(|_, held| held.container != container);
    }

    fn give_back_one(&mut self, forward: &Forward) {
        drop(self.held.remove(&(forward.transport, forward.host)));
    }
}

/// As Go says it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

async fn carry(listener: tokio::net::TcpListener, to: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((mut client, _)) => drop(tokio::spawn(async move {
                if let Ok(mut container) = tokio::net::TcpStream::connect(to).await {
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut container).await;
                }
            })),
            // Of a client that has gone again, or of a table that is full for now.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ports: Option<RangeInclusive<u16>>) -> Wanted {
        let here = IpAddr::from([127, 0, 0, 1]);
        Wanted {
            transport: Transport::Udp,
            hosts: vec![(here, SocketAddr::from(([172, 17, 0, 2], 53)))],
            ports,
        }
    }

    #[tokio::test]
    async fn a_port_is_given_once_and_again_when_it_is_back() {
        let mut ports = Ports::new(Handle::current());
        let first = ports.take("a", &wanted(None)).unwrap();
        let port = first[0].host.port();
        let again = ports.take("b", &wanted(Some(port..=port))).unwrap_err();
        assert_eq!(again.to_string(), format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        assert_ne!(ports.take("c", &wanted(None)).unwrap()[0].host.port(), port);
        ports.give_back("a");
        assert_eq!(ports.take("b", &wanted(Some(port..=port))).unwrap(), first);
    }

    #[tokio::test]
    async fn another_programs_port_is_in_use_and_a_range_goes_on_behind_it() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut ports = Ports::new(Handle::current());
        let error = ports.take("a", &wanted(Some(port..=port))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to bind host port for 127.0.0.1:{port}:172.17.0.2:53/udp: address already in use"
            )
        );
        let behind = ports.take("a", &wanted(Some(port..=port.saturating_add(20)))).unwrap();
        assert!(behind[0].host.port() > port);
    }
}
