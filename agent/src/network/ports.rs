//! Published ports on the host's side: which are taken, and a socket that keeps other programs off each. What reaches that
//! socket, [`super::carrier`] carries: it is what the packet filter does not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::carrier;
use super::firewall::{Families, Forward, Transport};

/// Where a port that nobody names is taken from; the kernel's own (`ip_local_port_range`), as dockerd does.
const ANY: RangeInclusive<u16> = 32768..=60999;

/// A port that can't be had. The texts are dockerd's, behind the endpoint that wanted it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("Bind for {}:{} failed: port is already allocated", .0.ip(), .0.port())]
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
    pub(super) carried: Carried,
}

/// Who takes what reaches the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Carried {
    /// This daemon.
    #[default]
    Here,
    /// [`super::relay`], of TCP.
    ByRelay,
}

/// Those that are taken by containers.
#[derive(Debug)]
pub(super) struct Ports {
    runtime: Handle,
    /// What the packet filter carries.
    families: Families,
    /// Of the daemon's descriptors.
    share: Arc<Semaphore>,
    held: BTreeMap<(Transport, u16), Vec<Held>>,
    /// Where the search for any port begins: not at once the one that was given back.
    next: u16,
}

#[derive(Debug)]
struct Held {
    host: IpAddr,
    container: String,
    socket: Kept,
}

/// Closed when it is dropped.
#[derive(Debug)]
enum Kept {
    Datagrams { _held: UdpSocket, carrier: Option<AbortHandle> },
    Associations(#[expect(dead_code, reason = "held open only")] Option<OwnedFd>),
    Connections { listener: OwnedFd, carrier: Option<AbortHandle> },
}

impl Drop for Kept {
    fn drop(&mut self) {
        match self {
            Self::Connections { listener, carrier } => {
                // The runtime drops the carrier's socket when it comes to it; the port is wanted again at once.
                let _ended = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
                carrier.iter().for_each(AbortHandle::abort);
            }
            Self::Datagrams { carrier: Some(carrier), .. } => carrier.abort(),
            Self::Datagrams { .. } | Self::Associations(_) => {}
        }
    }
}

impl Ports {
    pub(super) fn new(runtime: Handle, families: Families) -> Self {
        Self { runtime, families, share: carrier::share(), held: BTreeMap::new(), next: *ANY.start() }
    }

    /// Takes a port at all the wanted addresses.
    pub(super) fn take(&mut self, container: &str, wanted: &Wanted) -> Result<Vec<Forward>, PortError> {
        let (first, last, again) = match &wanted.ports {
            Some(ports) => (*ports.start(), *ports.end(), 0..0),
            None => (self.next, *ANY.end(), *ANY.start()..self.next),
        };
        let mut error = PortError::Exhausted;
        for port in (first..=last).chain(again) {
            match self.take_all(container, wanted, port) {
                Ok(forwards) => {
                    if wanted.ports.is_none() {
                        self.next = if port == *ANY.end() { *ANY.start() } else { port + 1 };
                    }
                    return Ok(forwards);
                }
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    fn take_all(&mut self, container: &str, wanted: &Wanted, port: u16) -> Result<Vec<Forward>, PortError> {
        let mut forwards = Vec::new();
        for (host, to) in &wanted.hosts {
            let forward =
                Forward { transport: wanted.transport, host: SocketAddr::new(*host, port), container: *to };
            match self.take_carried(container, forward, wanted.carried) {
                Ok(()) => forwards.push(forward),
                Err(error) => {
                    self.give_back(container, &forwards);
                    return Err(error);
                }
            }
        }
        Ok(forwards)
    }

    /// Takes this very one.
    pub(super) fn take_one(&mut self, container: &str, forward: Forward) -> Result<(), PortError> {
        self.take_carried(container, forward, Carried::Here)
    }

    fn take_carried(&mut self, container: &str, forward: Forward, carried: Carried) -> Result<(), PortError> {
        let host = forward.host.ip();
        let key = (forward.transport, forward.host.port());
        let blocked = self.held.get(&key).into_iter().flatten().any(|held| {
            held.host.is_ipv4() == host.is_ipv4()
                && (held.host == host || held.host.is_unspecified() || host.is_unspecified())
        });
        if blocked {
            return Err(PortError::Allocated(forward.host));
        }
        let socket = self.open(&forward, carried).map_err(|error| PortError::Taken {
            host: forward.host,
            container: forward.container,
            transport: forward.transport,
            reason: reason(&error),
        })?;
        let held = Held { host, container: container.to_owned(), socket };
        self.held.entry(key).or_default().push(held);
        Ok(())
    }

    /// Gives back some of a container's.
    pub(super) fn give_back(&mut self, container: &str, forwards: &[Forward]) {
        for forward in forwards {
            let key = (forward.transport, forward.host.port());
            let Some(held) = self.held.get_mut(&key) else { continue };
            held.retain(|one| one.container != container || one.host != forward.host.ip());
            if held.is_empty() {
                drop(self.held.remove(&key));
            }
        }
    }

    /// The sockets that take a container's connections at a port.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn listeners(&self, container: &str, port: u16) -> io::Result<Vec<OwnedFd>> {
        let held = self.held.get(&(Transport::Tcp, port)).into_iter().flatten();
        let listeners = held.filter(|one| one.container == container).filter_map(|one| match &one.socket {
            Kept::Connections { listener, .. } => Some(listener.try_clone()),
            Kept::Datagrams { .. } | Kept::Associations(_) => None,
        });
        listeners.collect()
    }

    fn open(&self, forward: &Forward, carried: Carried) -> io::Result<Kept> {
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
            Transport::Udp => {
                let held = UdpSocket::from(socket);
                let carrier = if self.families.carry(forward) {
                    None
                } else {
                    let _entered = self.runtime.enter();
                    let receiving = tokio::net::UdpSocket::from_std(held.try_clone()?)?;
                    let work = carrier::datagrams(receiving, forward.container, Arc::clone(&self.share));
                    Some(self.runtime.spawn(work).abort_handle())
                };
                Kept::Datagrams { _held: held, carrier }
            }
            Transport::Sctp => Kept::Associations(Some(socket)),
            Transport::Tcp => {
                rustix::net::listen(&socket, 1024)?;
                if carried == Carried::ByRelay {
                    return Ok(Kept::Connections { listener: socket, carrier: None });
                }
                let _entered = self.runtime.enter();
                let listener = socket.try_clone()?;
                let accepting = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
                let carrier = self
                    .runtime
                    .spawn(carrier::connections(accepting, forward.container, Arc::clone(&self.share)))
                    .abort_handle();
                Kept::Connections { listener, carrier: Some(carrier) }
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ports: Option<RangeInclusive<u16>>) -> Wanted {
        let here = IpAddr::from([127, 0, 0, 1]);
        Wanted {
            transport: Transport::Udp,
            hosts: vec![(here, SocketAddr::from(([172, 17, 0, 2], 53)))],
            ports,
            carried: Carried::Here,
        }
    }

    #[tokio::test]
    async fn a_port_is_given_once_and_again_when_it_is_back() {
        let mut ports = Ports::new(Handle::current(), Families { ipv4: true, ipv6: true });
        let first = ports.take("a", &wanted(None)).unwrap();
        let port = first[0].host.port();
        let again = ports.take("b", &wanted(Some(port..=port))).unwrap_err();
        assert_eq!(again.to_string(), format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        assert_ne!(ports.take("c", &wanted(None)).unwrap()[0].host.port(), port);
        ports.give_back("a", &first);
        assert_eq!(ports.take("b", &wanted(Some(port..=port))).unwrap(), first);
    }

    #[tokio::test]
    async fn another_programs_port_is_in_use_and_a_range_goes_on_behind_it() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut ports = Ports::new(Handle::current(), Families { ipv4: true, ipv6: true });
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
