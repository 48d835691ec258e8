//! The packet filter: forwarding between bridges and out, masquerading, published ports. All of it is in tables of our own,
//! `ip` and `ip6`, named after the daemon's instance; others' tables are neither read nor touched.
//!
//! [`rules`] says what the tables hold, as data; [`expression`] and [`table`] write it in the kernel's encoding; [`watch`] puts it
//! back when somebody flushes the ruleset. A change of networks replaces the tables; a change of ports is elements of their
//! maps. Both are one transaction: the kernel has all of it, or nothing.

mod admission;
mod balance;
mod connections;
mod expression;
mod kept;
mod narrowing;
mod opened;
mod pass;
mod port_guard;
mod rules;
mod table;
mod underlay;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use self::table::Transaction;
use super::ipam::Prefix;
use super::netlink::{NetlinkError, Socket};

use crate::locks::locked;

pub(super) use self::admission::{Admission, admit};
pub(super) use self::balance::{Balanced, write as write_balance};
pub(super) use self::connections::{Connection, forget as forget_connections, forget_those};
pub(super) use self::narrowing::{Narrowed, Narrowing, Narrows, OpenAt};
pub(super) use self::opened::opened;
pub(super) use self::pass::Pass;
pub(super) use self::port_guard::{OwnedPort, forget_port, guard_ports, let_send};
pub(super) use self::rules::redirect_names;
pub(super) use self::underlay::{Guard, Guarded};

/// What a bridge lets through to containers from outside (Docker's `gateway_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayMode {
    /// Published ports only; masquerades.
    Nat,
    /// Every port by the container's own address, too; masquerades.
    NatUnprotected,
    /// Published ports by the container's own address; no translation.
    Routed,
    /// The host has no address in the network.
    Isolated,
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// Both.
    Sctp,
}

impl Transport {
    /// `tcp`, `udp`, `sctp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The opposite.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|known| known.name() == name.to_ascii_lowercase())
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// Which.
    pub transport: Transport,
    /// Unspecified: every address of the host.
    pub host: SocketAddr,
    /// The container's.
    pub container: SocketAddr,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<Prefix>,
    /// Nothing goes in or out.
    pub internal: bool,
    /// Whether its containers reach each other.
    pub icc: bool,
    /// Whether what goes out gets the host's address.
    pub masquerade: bool,
    /// It gets these; none of a family: that of the interface by which it goes.
    pub sources: Vec<IpAddr>,
    /// Interfaces by which published ports may be reached at containers' own addresses.
    pub trusted: Vec<String>,
    /// Of IPv4.
    pub mode_ipv4: GatewayMode,
    /// Of IPv6.
    pub mode_ipv6: GatewayMode,
}

/// What rules are written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// `--iptables`.
    pub ipv4: bool,
    /// `--ip6tables`.
    pub ipv6: bool,
}

impl Families {
    fn has(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Whether the packet filter carries a published port: both ends are of one family that has rules, and connections to
    /// the loopback address of IPv6 never leave it.
    pub(super) fn carry(self, forward: &Forward) -> bool {
        let (host, container) = (forward.host.ip(), forward.container.ip());
        let has = if host.is_ipv4() { self.ipv4 } else { self.ipv6 };
        has && host.is_ipv4() == container.is_ipv4() && (host.is_ipv4() || !host.is_loopback())
    }
}

/// Ports of all the host's addresses, with what they lead to in turn.
pub(super) type Mesh = BTreeMap<(Transport, u16), Vec<SocketAddr>>;

fn leads_to(mesh: &Mesh, key: (Transport, u16)) -> Option<Vec<SocketAddr>> {
    mesh.get(&key).filter(|to| !to.is_empty()).cloned()
}

/// All that the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ruleset {
    bridges: Vec<Bridge>,
    forwards: BTreeSet<Forward>,
    /// How many forwards lead to each of these: ports that are open by the container's own address.
    open: BTreeMap<(Transport, SocketAddr), usize>,
    /// The routing mesh: what published ports lead to in turn; none leads nowhere.
    mesh: Mesh,
    /// The host does not forward but for bridges: it did not before this daemon had it forward.
    closed: Families,
    /// Published ports are open by containers' own addresses to everybody but other bridges (`--allow-direct-routing`).
    direct: bool,
}

/// What has come and gone.
#[derive(Debug, Default)]
struct Change {
    gone: Vec<Forward>,
    new: Vec<Forward>,
    shut: Vec<(Transport, SocketAddr)>,
    opened: Vec<(Transport, SocketAddr)>,
    mesh_gone: Vec<(Transport, u16)>,
    mesh_new: Mesh,
}

impl Ruleset {
    fn change(&mut self, gone: &[Forward], new: &[Forward]) -> Change {
        let mut change = Change::default();
        for forward in gone.iter().filter(|forward| self.forwards.remove(forward)) {
            change.gone.push(*forward);
            let key = (forward.transport, forward.container);
            match self.open.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    let _count = self.open.remove(&key);
                    change.shut.push(key);
                }
            }
        }
        for forward in new.iter().filter(|forward| self.forwards.insert(**forward)) {
            change.new.push(*forward);
            let key = (forward.transport, forward.container);
            let count = self.open.entry(key).or_default();
            if *count == 0 {
                change.opened.push(key);
            }
            *count += 1;
        }
        change
    }

    fn change_mesh(&mut self, mesh: Mesh) -> Change {
        let keys: BTreeSet<_> = self.mesh.keys().chain(mesh.keys()).copied().collect();
        let mut change = Change::default();
        for key in keys {
            let (before, now) = (leads_to(&self.mesh, key), leads_to(&mesh, key));
            if before == now {
                continue;
            }
            change.mesh_gone.extend(before.map(|_| key));
            change.mesh_new.extend(now.map(|to| (key, to)));
        }
        self.mesh = mesh;
        change
    }

    /// All of it as something new.
    fn whole(&self) -> Change {
        Change {
            mesh_new: self.mesh.clone(),
            new: self.forwards.iter().copied().collect(),
            opened: self.open.keys().copied().collect(),
            ..Change::default()
        }
    }
}

/// An address family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

/// The tables of one daemon; none when it is to write no rules.
#[derive(Debug)]
pub(super) struct Firewall(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    table: String,
    families: Families,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    wanted: Ruleset,
    /// Not before the daemon knows all: until then the tables of the one before do.
    is_begun: bool,
    /// The kernel has what is wanted; else nobody knows what it has.
    is_written: bool,
}

impl Firewall {
    /// Tables named after this instance, and a watch over them. Nothing is written before the first [`Self::begin`].
    pub(super) fn open(instance: &str, families: Families, direct: bool) -> Result<Self, NetlinkError> {
        if families == Families::default() {
            return Ok(Self(None));
        }
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
        let port = socket.port();
        let wanted = Ruleset { direct, ..Ruleset::default() };
        let state = Mutex::new(State { socket, wanted, is_begun: false, is_written: false });
        let shared = Arc::new(Shared { table: format!("ketch-{instance}"), families, state });
        watch::start(&shared, port)?;
        Ok(Self(Some(shared)))
    }

    /// Writes what there is at the daemon's start.
    pub(super) fn begin(
        &self,
        bridges: Vec<Bridge>,
        forwards: &[Forward],
        closed: Families,
    ) -> Result<(), NetlinkError> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let mut state = locked(&shared.state);
        (state.wanted.bridges, state.wanted.closed, state.is_begun) = (bridges, closed, true);
        let _whole = state.wanted.change(&[], forwards);
        shared.write(&mut state)
    }

    /// Networks have come or gone.
    pub(super) fn set_bridges(&self, bridges: Vec<Bridge>) -> Result<(), NetlinkError> {
        self.change_wanted(|wanted| {
            let is_same = wanted.bridges == bridges;
            wanted.bridges = bridges;
            is_same.then(Change::default)
        })
    }

    /// The host forwards from now on, and did not before.
    pub(super) fn close(&self, closed: Families) -> Result<(), NetlinkError> {
        self.change_wanted(|wanted| {
            let is_same = wanted.closed == closed;
            wanted.closed = closed;
            is_same.then(Change::default)
        })
    }

    /// Published ports have come and gone.
    pub(super) fn change(&self, gone: &[Forward], new: &[Forward]) -> Result<(), NetlinkError> {
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.change_wanted(|wanted| Some(wanted.change(gone, new)))
    }

    /// The routing mesh is this from now on.
    pub(super) fn set_mesh(&self, mesh: Mesh) -> Result<(), NetlinkError> {
        self.change_wanted(|wanted| Some(wanted.change_mesh(mesh)))
    }

    /// `change` gives what is to be changed by element; `None`: all is written anew.
    fn change_wanted(&self, change: impl FnOnce(&mut Ruleset) -> Option<Change>) -> Result<(), NetlinkError> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let mut state = locked(&shared.state);
        let elements = change(&mut state.wanted);
        if !state.is_begun {
            return Ok(());
        }
        if let (Some(change), true) = (elements, state.is_written) {
            let mut transaction = Transaction::default();
            for family in Family::BOTH.into_iter().filter(|family| shared.families.has(*family)) {
                rules::change_elements(&mut transaction, family, &shared.table, &change);
            }
            if transaction.commit(&mut state.socket).is_ok() {
                return Ok(());
            }
            // Somebody has had a hand in our tables: they are written anew.
        }
        shared.write(&mut state)
    }
}

impl Shared {
    fn write(&self, state: &mut State) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for family in Family::BOTH {
            transaction.remove_table(family, &self.table);
            if self.families.has(family) {
                rules::write(&mut transaction, family, &self.table, &state.wanted);
            }
        }
        // What could not be written is tried again with the next change.
        let written = transaction.commit(&mut state.socket);
        state.is_written = written.is_ok();
        written
    }
}

impl watch::Restore for Shared {
    fn table(&self) -> &str {
        &self.table
    }

    fn restore(&self) -> Result<(), NetlinkError> {
        let mut state = locked(&self.state);
        if state.is_begun { self.write(&mut state) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_port_is_open_while_one_leads_to_it() {
        let to = |port| Forward {
            transport: Transport::Tcp,
            host: SocketAddr::from(([0, 0, 0, 0], port)),
            container: SocketAddr::from(([172, 17, 0, 2], 80)),
        };
        let mut ruleset = Ruleset::default();
        let change = ruleset.change(&[], &[to(1), to(2)]);
        assert_eq!((change.new.len(), change.opened.len()), (2, 1));
        let change = ruleset.change(&[to(1)], &[]);
        assert_eq!((change.gone.len(), change.shut.len()), (1, 0));
        let change = ruleset.change(&[to(2), to(3)], &[]);
        assert_eq!((change.gone.len(), change.shut.len()), (1, 1));
        assert_eq!(ruleset, Ruleset::default());
    }

    #[test]
    fn of_the_mesh_only_what_differs_changes() {
        let port = |port: u16, last: &[u8]| {
            let to = last.iter().map(|last| SocketAddr::from(([172, 18, 0, *last], port))).collect();
            ((Transport::Tcp, port), to)
        };
        let mut ruleset = Ruleset::default();
        let change = ruleset.change_mesh(Mesh::from([port(80, &[2]), port(81, &[]), port(82, &[2])]));
        assert_eq!((change.mesh_gone.len(), change.mesh_new.len()), (0, 2));
        let change = ruleset.change_mesh(Mesh::from([port(80, &[2, 3]), port(82, &[2])]));
        assert_eq!(change.mesh_gone, [(Transport::Tcp, 80)]);
        assert_eq!(change.mesh_new, Mesh::from([port(80, &[2, 3])]));
        let change = ruleset.change_mesh(Mesh::new());
        assert_eq!((change.mesh_gone.len(), change.mesh_new.len()), (2, 0));
    }

    #[test]
    fn what_no_rule_carries() {
        let families = Families { ipv4: true, ipv6: true };
        let forward = |host: &str, container: &str| Forward {
            transport: Transport::Udp,
            host: host.parse().unwrap(),
            container: container.parse().unwrap(),
        };
        for (host, container, carried) in [
            ("0.0.0.0:1", "10.0.0.1:1", true),
            ("[::]:1", "[fd00::1]:1", true),
            ("[::]:1", "10.0.0.1:1", false),
            ("[::1]:1", "[fd00::1]:1", false),
        ] {
            assert_eq!(families.carry(&forward(host, container)), carried, "{host}");
        }
        assert!(!Families { ipv4: false, ipv6: true }.carry(&forward("0.0.0.0:1", "10.0.0.1:1")));
    }
}
