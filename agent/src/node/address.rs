//! Where a node listens and where others reach it, of what `docker swarm init` and `join` were told and of the
//! machine's addresses. The texts are dockerd's (`daemon/cluster/listen_addr.go`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::network::Local;

/// The port of managers.
const PORT: &str = "2377";

/// Why an address can't be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("invalid {field} {text:?}: invalid empty address")]
    Empty { field: &'static str, text: String },
    #[error("could not parse listen address {0}")]
    Listen(String),
    #[error("listen address must be an IP address or network interface (with optional port number)")]
    BadListen,
    #[error(
        "advertise address must be a non-zero IP address or network interface (with optional port number)"
    )]
    BadAdvertise,
    #[error(
        "default advertise address must be a non-zero IP address or network interface (without a port number)"
    )]
    BadDefault,
    #[error("data path address must be a non-zero IP address or network interface (without a port number)")]
    BadDataPath,
    #[error("interface {interface} has more than one {family} address ({first} and {second})")]
    Several { interface: String, family: &'static str, first: IpAddr, second: IpAddr },
    #[error("interface {0} has no usable IPv4 or IPv6 address")]
    None(String),
    #[error("could not find the system's IP address - specify one with --advertise-addr")]
    NoAddress,
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on {0} - specify one with --advertise-addr"
    )]
    Ambiguous(String),
}

/// This machine's addresses.
///
/// # Errors
/// The kernel's.
pub(crate) async fn machine(daemon: &Arc<Daemon>) -> Result<Vec<Local>> {
    let daemon = Arc::clone(daemon);
    blocking(move || {
        let found = daemon.networks.machine_addresses();
        found.map_err(|error| Error::internal("listing the machine's addresses", &error))
    })
    .await
}

/// `host:port` where it listens.
pub(crate) fn listen(given: &str, machine: &[Local]) -> Result<(String, String), AddressError> {
    let text = with_port(given, "ListenAddr")?;
    let (host, port) = split(&text).ok_or_else(|| AddressError::Listen(given.to_owned()))?;
    if let Some(address) = of_interface(host, machine)? {
        return Ok((address.to_string(), port.to_owned()));
    }
    host.parse::<IpAddr>().map_err(|_| AddressError::BadListen)?;
    Ok((host.to_owned(), port.to_owned()))
}

/// `host:port` where it is reached: as asked for, by the daemon's setting, or the machine's only address.
pub(crate) fn advertise(
    (given, default): (&str, &str),
    port: &str,
    machine: &[Local],
) -> Result<(IpAddr, String), AddressError> {
    if !given.is_empty() {
        let (host, port) = split(given).unwrap_or((given, port));
        return Ok((named(host, machine, AddressError::BadAdvertise)?, port.to_owned()));
    }
    if !default.is_empty() {
        return Ok((named(default, machine, AddressError::BadDefault)?, port.to_owned()));
    }
    Ok((only(machine)?, port.to_owned()))
}

/// Where the data plane's datagrams come; none: where the node is reached.
pub(crate) fn data_path(given: &str, machine: &[Local]) -> Result<Option<IpAddr>, AddressError> {
    if given.is_empty() { Ok(None) } else { named(given, machine, AddressError::BadDataPath).map(Some) }
}

/// A manager's address as it is dialled.
pub(crate) fn remote(given: &str) -> Result<String, AddressError> {
    with_port(given, "remoteAddr")
}

/// As dockerd takes it: with its port, without `tcp://`.
fn with_port(given: &str, field: &'static str) -> Result<String, AddressError> {
    let text = given.strip_prefix("tcp://").unwrap_or(given);
    if text.is_empty() {
        return Err(AddressError::Empty { field, text: given.to_owned() });
    }
    Ok(match split(text) {
        Some(_) => text.to_owned(),
        None => joined(text.trim_start_matches('[').trim_end_matches(']'), PORT),
    })
}

/// This machine's address on the way to a manager; none without a way.
pub(crate) async fn towards(manager: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("[::]:0").await;
    let socket = match socket {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind("0.0.0.0:0").await.ok()?,
    };
    // It sends nothing: the kernel chooses the way.
    socket.connect(manager).await.ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical()).filter(|address| !address.is_unspecified())
}

/// Where a node is reached that was reached at `known`, by this machine's addresses on the ways to the managers; none when that is
/// still so or there is no way. The machine's only address is none to pick by: it may be that of another interface than the one
/// that a slow DHCP server, or a bond, has not brought up yet, and it would be kept.
pub(crate) fn picked_anew(known: IpAddr, ways: &[IpAddr]) -> Option<IpAddr> {
    if ways.contains(&known) {
        return None;
    }
    ways.iter().copied().find(|way| is_global(*way))
}

/// A host and a port in one text.
pub(crate) fn joined(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn split(text: &str) -> Option<(&str, &str)> {
    if let Ok(SocketAddr::V6(_)) = text.parse::<SocketAddr>() {
        let (host, port) = text.rsplit_once(':')?;
        return Some((host.trim_start_matches('[').trim_end_matches(']'), port));
    }
    let (host, port) = text.split_once(':')?;
    (!port.contains(':') && port.parse::<u16>().is_ok()).then_some((host, port))
}

fn named(host: &str, machine: &[Local], bad: AddressError) -> Result<IpAddr, AddressError> {
    if let Some(address) = of_interface(host, machine)? {
        return Ok(address);
    }
    host.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified()).ok_or(bad)
}

/// The address of the interface of that name: its only one of IPv4, else its only one of IPv6.
fn of_interface(name: &str, machine: &[Local]) -> Result<Option<IpAddr>, AddressError> {
    let addresses: Vec<_> = machine.iter().filter(|it| it.interface == name).map(|it| it.address).collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    for (family, of_family) in [("IPv4", &v4), ("IPv6", &v6)] {
        if let [first, second, ..] = of_family[..] {
            return Err(AddressError::Several { interface: name.to_owned(), family, first, second });
        }
    }
    v4.first().or(v6.first()).copied().map(Some).ok_or_else(|| AddressError::None(name.to_owned()))
}

/// The machine's only address to the outside. Link-local ones don't count, nor those of the daemon's networks.
fn only(machine: &[Local]) -> Result<IpAddr, AddressError> {
    let usable = machine.iter().filter(|it| it.is_outside && !it.is_of_network && is_global(it.address));
    let (v4, v6): (Vec<&Local>, Vec<&Local>) = usable.partition(|it| it.address.is_ipv4());
    // One address of each family at one interface is one.
    let v6: Vec<_> =
        v6.into_iter().filter(|it| v4.iter().all(|other| other.interface != it.interface)).collect();
    match [v4, v6].concat()[..] {
        [] => Err(AddressError::NoAddress),
        [only] => Ok(only.address),
        [first, second, ..] if first.interface == second.interface => Err(AddressError::Ambiguous(format!(
            "interface {} ({} and {})",
            first.interface, first.address, second.address
        ))),
        [first, second, ..] => Err(AddressError::Ambiguous(format!(
            "different interfaces ({} on {} and {} on {})",
            first.address, first.interface, second.address, second.interface
        ))),
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_link_local() && !v4.is_loopback() && !v4.is_unspecified() && !v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            !v6.is_unicast_link_local() && !v6.is_loopback() && !v6.is_unspecified() && !v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(interface: &str, address: &str) -> Local {
        Local {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
            is_outside: interface != "lo",
            is_of_network: interface.starts_with("docker"),
        }
    }

    #[test]
    fn the_only_address_is_chosen_and_several_are_named() {
        let mut machine = vec![
            local("lo", "127.0.0.1"),
            local("docker0", "172.17.0.1"),
            local("eth0", "10.0.0.5"),
            local("eth0", "fd00::5"),
            local("eth0", "fe80::1"),
        ];
        assert_eq!(
            advertise(("", ""), "2377", &machine),
            Ok(("10.0.0.5".parse().unwrap(), "2377".to_owned()))
        );
        machine.push(local("eth1", "10.1.0.5"));
        let error = advertise(("", ""), "2377", &machine).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (10.0.0.5 on eth0 and 10.1.0.5 on eth1) - specify one with --advertise-addr"
        );
        machine.insert(3, local("eth0", "10.0.0.6"));
        let error = advertise(("", ""), "2377", &machine).unwrap_err();
        assert!(error.to_string().contains("on interface eth0 (10.0.0.5 and 10.0.0.6)"), "{error}");
        let error = advertise(("eth0", ""), "2377", &machine).unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface eth0 has more than one IPv4 address (10.0.0.5 and 10.0.0.6)"
        );
        assert_eq!(
            advertise(("eth1:99", ""), "1", &machine).unwrap(),
            ("10.1.0.5".parse().unwrap(), "99".to_owned())
        );
        assert_eq!(advertise(("", "eth1"), "1", &machine).unwrap().0, "10.1.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(advertise(("0.0.0.0", ""), "1", &machine), Err(AddressError::BadAdvertise));
        assert_eq!(only(&machine[..1]), Err(AddressError::NoAddress));
    }

    #[test]
    fn an_address_is_picked_anew_by_the_ways_to_the_managers() {
        let [old, new, other]: [IpAddr; 3] =
            ["10.0.0.5", "10.0.0.6", "10.1.0.5"].map(|text| text.parse().unwrap());
        assert_eq!(picked_anew(old, &[]), None, "no way, no other address");
        assert_eq!(picked_anew(old, &[other, old]), None, "right for one of the managers");
        assert_eq!(picked_anew(old, &[new, other]), Some(new));
        let local = "127.0.0.1".parse().unwrap();
        assert_eq!(picked_anew(old, &[local]), None, "nobody else reaches it there");
    }

    #[test]
    fn listening_is_at_an_address_or_an_interface() {
        let machine = [local("eth0", "10.0.0.5")];
        let at = |text: &str| listen(text, &machine).map(|(host, port)| joined(&host, &port));
        assert_eq!(at("0.0.0.0:2377").unwrap(), "0.0.0.0:2377");
        assert_eq!(at("eth0").unwrap(), "10.0.0.5:2377");
        assert_eq!(at("[::]:5000").unwrap(), "[::]:5000");
        assert_eq!(at("::1").unwrap(), "[::1]:2377");
        assert_eq!(at("tcp://10.0.0.5:1").unwrap(), "10.0.0.5:1");
        assert_eq!(at("nonsense"), Err(AddressError::BadListen));
        assert!(matches!(at(""), Err(AddressError::Empty { .. })));
        assert_eq!(remote("10.0.0.1").unwrap(), "10.0.0.1:2377");
        assert_eq!(remote("manager.example:99").unwrap(), "manager.example:99");
    }
}
