//! The routing mesh's ports at the host: kept from others by sockets, and led to tasks by rules, or by the relay where tasks are told
//! who connects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::plan::{MeshPort, Problem};
use crate::error::Result;
use crate::network::firewall::{Connection, Forward, Mesh, Transport, forget_those};
use crate::network::ports::{Carried, Wanted};
use crate::network::relay::Leads;
use crate::network::{Networks, State, refused};

/// Whose the ports are, among containers.
const OWNER: &str = "the routing mesh";

/// How long a task that serves no more is looked for among connections.
const REMEMBERED: Duration = Duration::from_secs(60);

/// By port.
type Ports = BTreeMap<(Transport, u16), MeshPort>;

/// Where the mesh's network is reached from the host.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) door: IpAddr,
    /// Its namespace.
    pub(super) space: PathBuf,
}

/// What is published now.
#[derive(Debug, Default)]
pub(super) struct Published {
    held: BTreeMap<(Transport, u16), (Carried, Vec<Forward>)>,
    /// Those that somebody else has on this node.
    refused: BTreeSet<(Transport, u16)>,
    ports: Ports,
    /// Tasks of this node that serve no more, and since when.
    gone: BTreeMap<IpAddr, Instant>,
}

impl Networks {
    /// Publishes these and no others. Without an entrance only this node's tasks are reached, and no port that is carried by the relay.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn publish_mesh(
        &self,
        published: &mut Published,
        ports: &Ports,
        entrance: Option<&Entrance>,
    ) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let mut state = self.state();
        self.give_back(published, &mut state, ports);
        published.refused.clear();
        for (key, port) in ports {
            let Some(entrance) = entrance.filter(|_| !published.held.contains_key(key)) else { continue };
            match take(&mut state, *key, (entrance.door, carried(port))) {
                Ok(held) => drop(published.held.insert(*key, (carried(port), held))),
                Err(problem) => {
                    problems.push(problem);
                    let _new = published.refused.insert(*key);
                }
            }
        }
        drop(state);
        let is_led = |(key, port): &(&(Transport, u16), &MeshPort)| {
            port.relayed.is_none() && (entrance.is_none() || published.held.contains_key(key))
        };
        let door = |key: &(Transport, u16)| entrance.map(|it| SocketAddr::new(it.door, key.1));
        let mesh: Mesh =
            ports.iter().filter(is_led).map(|(key, port)| (*key, turns(port, door(key)))).collect();
        self.0.firewall.set_mesh(mesh).map_err(|error| refused(&error))?;
        if let Err(error) = self.relay_ports(published, ports, entrance) {
            problems.push(Problem::Relay(error.to_string()));
        }
        published.forget_gone(ports)?;
        published.ports.clone_from(ports);
        Ok(problems)
    }

    fn relay_ports(&self, published: &Published, ports: &Ports, entrance: Option<&Entrance>) -> Result<()> {
        let Some(entrance) = entrance else {
            self.0.relay.end();
            return Ok(());
        };
        let relayed: BTreeMap<u16, Leads> = ports
            .iter()
            .filter(|(key, _)| published.held.contains_key(key))
            .filter_map(|((_, port), leads)| Some((*port, leads.relayed.clone()?)))
            .collect();
        let listeners = |port| self.state().ports.listeners(OWNER, port);
        self.0.relay.set(&entrance.space, &relayed, listeners)
    }

    /// Those that are published no more, or are carried by another from now on.
    fn give_back(&self, published: &mut Published, state: &mut State, ports: &Ports) {
        published.held.retain(|key, (by, held)| {
            let stays = ports.get(key).is_some_and(|port| carried(port) == *by);
            if !stays {
                state.ports.give_back(OWNER, held);
                if *by == Carried::ByRelay {
                    self.0.relay.forget(key.1);
                }
            }
            stays
        });
    }

    /// Gives all of them back.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn unpublish_mesh(&self, published: &mut Published) -> Result<()> {
        self.give_back(published, &mut self.state(), &Ports::new());
        self.0.relay.end();
        self.0.firewall.set_mesh(Mesh::new()).map_err(|error| refused(&error))
    }
}

impl Published {
    /// Whether the port was somebody else's when it was last asked for.
    pub(super) fn is_refused(&self, port: &(Transport, u16)) -> bool {
        self.refused.contains(port)
    }
}

fn carried(port: &MeshPort) -> Carried {
    if port.relayed.is_some() { Carried::ByRelay } else { Carried::Here }
}

/// Keeps a port from others, at all addresses. What comes by IPv6 the daemon carries to the door.
fn take(
    state: &mut State,
    (transport, port): (Transport, u16),
    (door, carried): (IpAddr, Carried),
) -> Result<Vec<Forward>, Problem> {
    let to = SocketAddr::new(door, port);
    let mut hosts = vec![(IpAddr::V4(Ipv4Addr::UNSPECIFIED), to)];
    if transport != Transport::Sctp && crate::network::publish::host_has_ipv6() {
        hosts.push((IpAddr::V6(Ipv6Addr::UNSPECIFIED), to));
    }
    let wanted = Wanted { transport, hosts, ports: Some(port..=port), carried };
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

impl Published {
    /// Connections to tasks of this node that get no new ones: datagrams are led to others at once, streams when the task has gone.
    /// Datagrams' are looked for again for a while: a packet that was under way while the rules changed makes one that nobody has
    /// listed, and its client keeps it alive. Not so streams': the address may be another container's by then.
    fn forget_gone(&mut self, now: &Ports) -> Result<()> {
        let (serving, stay) = (here(now), draining(now));
        let had = here(&self.ports).into_iter().chain(draining(&self.ports));
        let gone: BTreeSet<IpAddr> = had.filter(|it| !serving.contains(it)).collect();
        let noted = Instant::now();
        self.gone.extend(gone.iter().map(|address| (*address, noted)));
        self.gone.retain(|address, noted| !serving.contains(address) && noted.elapsed() < REMEMBERED);
        if self.gone.is_empty() {
            return Ok(());
        }
        let unwanted = |it: &Connection| {
            let is_translated = it.to != it.answered_by;
            let is_over = if it.is_udp {
                self.gone.contains_key(&it.answered_by)
            } else {
                gone.contains(&it.answered_by) && !stay.contains(&it.answered_by)
            };
            is_translated && is_over
        };
        forget_those(unwanted).map_err(|error| refused(&error))
    }
}

fn here(ports: &Ports) -> BTreeSet<IpAddr> {
    ports.values().flat_map(|port| port.here.iter().map(SocketAddr::ip)).collect()
}

fn draining(ports: &Ports) -> BTreeSet<IpAddr> {
    ports.values().flat_map(|port| port.draining.clone()).collect()
}
