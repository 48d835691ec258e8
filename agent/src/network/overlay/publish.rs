//! The routing mesh's ports at the host: kept from others by sockets, and led to tasks by rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::plan::{MeshPort, Problem};
use crate::error::Result;
use crate::network::firewall::{Connection, Forward, Mesh, Transport, forget_those};
use crate::network::ports::Wanted;
use crate::network::{Networks, State, refused};

/// Whose the ports are, among containers.
const OWNER: &str = "the routing mesh";

/// What is published now.
#[derive(Debug, Default)]
pub(super) struct Published {
    held: BTreeMap<(Transport, u16), Vec<Forward>>,
    /// Those that somebody else has on this node.
    refused: BTreeSet<(Transport, u16)>,
    ports: BTreeMap<(Transport, u16), MeshPort>,
}

impl Networks {
    /// Publishes these and no others. `door`: where the mesh's network is reached; without it only this node's tasks are.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn publish_mesh(
        &self,
        published: &mut Published,
        ports: &BTreeMap<(Transport, u16), MeshPort>,
        door: Option<IpAddr>,
    ) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let mut state = self.state();
        published.give_back(&mut state, |key| ports.contains_key(key));
        published.refused.clear();
        for key in ports.keys().filter(|_| door.is_some()) {
            if let (false, Some(door)) = (published.held.contains_key(key), door) {
                match take(&mut state, *key, door) {
                    Ok(held) => drop(published.held.insert(*key, held)),
                    Err(problem) => {
                        problems.push(problem);
                        let _new = published.refused.insert(*key);
                    }
                }
            }
        }
        drop(state);
        let is_held = |key: &(Transport, u16)| door.is_none() || published.held.contains_key(key);
        let mesh: Mesh = ports
            .iter()
            .filter(|(key, _)| is_held(key))
            .map(|(key, port)| (*key, turns(port, door.map(|door| SocketAddr::new(door, key.1)))))
            .collect();
        self.0.firewall.set_mesh(mesh).map_err(|error| refused(&error))?;
        forget_gone(&published.ports, ports)?;
        published.ports.clone_from(ports);
        Ok(problems)
    }

    /// Gives all of them back.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn unpublish_mesh(&self, published: &mut Published) -> Result<()> {
        published.give_back(&mut self.state(), |_| false);
        self.0.firewall.set_mesh(Mesh::new()).map_err(|error| refused(&error))
    }
}

impl Published {
    /// Whether the port was somebody else's when it was last asked for.
    pub(super) fn is_refused(&self, port: &(Transport, u16)) -> bool {
        self.refused.contains(port)
    }

    fn give_back(&mut self, state: &mut State, stays: impl Fn(&(Transport, u16)) -> bool) {
        self.held.retain(|key, held| {
            let stays = stays(key);
            if !stays {
                state.ports.give_back(OWNER, held);
            }
            stays
        });
    }
}

/// Keeps a port from others, at all addresses. What comes by IPv6 the daemon carries to the door.
fn take(
    state: &mut State,
    (transport, port): (Transport, u16),
    door: IpAddr,
) -> Result<Vec<Forward>, Problem> {
    let to = SocketAddr::new(door, port);
    let mut hosts = vec![(IpAddr::V4(Ipv4Addr::UNSPECIFIED), to)];
    if transport != Transport::Sctp && crate::network::publish::host_has_ipv6() {
        hosts.push((IpAddr::V6(Ipv6Addr::UNSPECIFIED), to));
    }
    let wanted = Wanted { transport, hosts, ports: Some(port..=port) };
    state
        .ports
        .take(OWNER, &wanted)
        .map_err(|error| Problem::Port(format!("{port}/{}", transport.name()), error.to_string()))
}

/// Each task has the same share: those elsewhere have theirs by way of the door.
fn turns(port: &MeshPort, door: Option<SocketAddr>) -> Vec<SocketAddr> {
    let elsewhere = door.into_iter().flat_map(|door| std::iter::repeat_n(door, port.elsewhere));
    port.here.iter().copied().chain(elsewhere).collect()
}

/// Connections to tasks of this node that get no new ones: datagrams are led to others at once, streams when the task has gone.
fn forget_gone(
    before: &BTreeMap<(Transport, u16), MeshPort>,
    now: &BTreeMap<(Transport, u16), MeshPort>,
) -> Result<()> {
    type Ports = BTreeMap<(Transport, u16), MeshPort>;
    let here = |ports: &Ports| -> BTreeSet<IpAddr> {
        ports.values().flat_map(|port| port.here.iter().map(SocketAddr::ip)).collect()
    };
    let draining = |ports: &Ports| -> BTreeSet<IpAddr> {
        ports.values().flat_map(|port| port.draining.clone()).collect()
    };
    let had: BTreeSet<IpAddr> = here(before).union(&draining(before)).copied().collect();
    let (serving, stay) = (here(now), draining(now));
    let gone: BTreeSet<IpAddr> = had.difference(&serving).copied().collect();
    if gone.is_empty() {
        return Ok(());
    }
    let unwanted = |it: &Connection| {
        let is_to_one = it.to != it.answered_by && gone.contains(&it.answered_by);
        is_to_one && (it.is_udp || !stay.contains(&it.answered_by))
    };
    forget_those(unwanted).map_err(|error| refused(&error))
}
