//! The packet filter: forwarding between bridges and out, masquerading, published ports. All of it is in tables of our own,
//! `ip` and `ip6`, named after the daemon's instance; others' tables are neither read nor touched.
//!
//! [`rules`] says what the tables hold, as data; [`expression`] and [`table`] write it in the kernel's encoding; [`watch`] puts it
//! back when somebody flushes the ruleset. A change of networks replaces the tables; a change of ports is elements of their
//! maps. Both are one transaction: the kernel has all of it, or nothing.

mod expression;
mod rules;
mod table;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use self::table::Transaction;
use super::ipam::Prefix;
use super::netlink::{NetlinkError, Socket};

use crate::locks::locked;

pub(super) use self::rules::redirect_names;

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
    /// Of IPv4.
    pub mode_ipv4: GatewayMode,
    /// Of IPv6.
    pub mode_ipv6: GatewayMode,
}

/// All that the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// In any order.
    pub bridges: Vec<Bridge>,
    /// Sorted, each once.
    pub forwards: Vec<Forward>,
}

/// An address family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

/// The tables of one daemon.
#[derive(Debug)]
pub(super) struct Firewall(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    /// What the kernel has been given; `None`: nothing yet, or nobody knows.
    applied: Option<Ruleset>,
}

impl Firewall {
    /// Tables named after this instance, and a watch over them. Nothing is written before the first [`Self::apply`].
    pub(super) fn open(instance: &str) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
        let port = socket.port();
        let state = Mutex::new(State { socket, applied: None });
        let shared = Arc::new(Shared { table: format!("ketch-{instance}"), state });
        watch::start(&shared, port)?;
        Ok(Self(shared))
    }

    /// Makes the tables say this.
    pub(super) fn apply(&self, wanted: Ruleset) -> Result<(), NetlinkError> {
        self.0.apply(wanted)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn apply(&self, wanted: Ruleset) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        if state.applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let before = state.applied.take();
        if let Some(before) = before.filter(|before| before.bridges == wanted.bridges) {
            let mut transaction = Transaction::default();
            rules::change_forwards(&mut transaction, &self.table, &before.forwards, &wanted.forwards);
            if transaction.commit(&mut state.socket).is_ok() {
                state.applied = Some(wanted);
                return Ok(());
            }
            // Somebody has had a hand in our tables: they are written anew.
        }
        self.replace(&mut state, wanted)
    }

    fn replace(&self, state: &mut State, wanted: Ruleset) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for family in Family::BOTH {
            transaction.remove_table(family, &self.table);
            rules::write(&mut transaction, family, &self.table, &wanted);
        }
        // What is wanted is kept whether or not it could be written: the watch tries again.
        let written = transaction.commit(&mut state.socket);
        state.applied = written.is_ok().then_some(wanted);
        written
    }

    /// Writes again what the tables have to say.
    fn restore(&self) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        match state.applied.take() {
            Some(wanted) => {
                let again = wanted.clone();
                let written = self.replace(&mut state, wanted);
                let _same = state.applied.get_or_insert(again);
                written
            }
            None => Ok(()),
        }
    }
}
