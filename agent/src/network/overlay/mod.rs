//! Networks that span the cluster: what a node is told by its assignment becomes namespaces, bridges, VXLAN devices, entries, rules
//! and names. Nobody gossips, and nothing is learnt from datagrams.
//!
//! ```text
//! items (ketch_cluster::assignment) --plan, services--> Plan --space, guard, ..--> the kernel
//!                                                            --> names of the sandboxes' servers
//! ```
//! [`plan`] and [`services`] decide, and see nothing but their arguments; the others have no choices left, and make what is there
//! be as planned: after a change, after a start, after a failure half way. Called by the worker with each change of the node's
//! assignment; `join` and `connect` put sandboxes into the namespaces that are made here.

mod access;
mod balancer;
mod door;
mod doors;
#[cfg(test)]
pub(super) mod fixture;
mod plan;
mod publish;
mod sealing;
mod services;
mod space;
#[cfg(test)]
mod tests;
mod vxlan;
mod way_out;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;

use ketch_cluster::assignment::Item;
use ketch_cluster::id::NetworkId;
use ketch_cluster::objects as cluster;
use ketch_engine_api::network::{Ipam, IpamConfig, Map};
use tracing::warn;

use self::doors::Doors;
use self::plan::{Known, Locals, Overlay, Plan};
use self::publish::{Entrance, Published};
use self::sealing::{Sealing, Stage, Wear};
use super::firewall::{Admission, Guarded, Narrowed, OwnedPort};
use super::ipam::{Prefix, Subnet};
use super::record::{Driver, Endpoint, NETWORKS, Network, Spanned};
use super::{Networks, State, namespace, refused};
use crate::error::{Error, Result};
use crate::locks::locked;
use crate::store::Table;
use crate::timestamp::Timestamp;

pub use self::access::read as read_labels;
pub(super) use self::plan::mac_for;
pub use self::plan::{Problem, Underlay};
pub(super) use self::space::{BRIDGE, forget_port, links_of, pin};

const DAEMON_TRAFFIC: Table = Table("overlay-traffic");
const TRAFFIC: &str = "known";
const DAEMON_GUARD: Table = Table("overlay-guard");
const GUARD: &str = "written";
/// As dockerd shows it.
const VXLAN_IDS: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// What the node was told last, and what of it the kernel has.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// How the node sends while it belongs to a cluster.
    member: Option<Underlay>,
    told: Option<(Underlay, Vec<Item>)>,
    /// `None`: not read yet.
    known: Option<Known>,
    /// Networks that are made as they were planned.
    made: BTreeMap<String, Overlay>,
    published: Published,
    /// `None`: what of the kernel's associations and policies is ours is not known.
    sealed: Option<Sealing>,
    /// Encrypted networks that are here, or could not be removed.
    encrypted: BTreeSet<u32>,
    /// What the tasks of this node let in, by sandbox, as far as it is known.
    admitted: BTreeMap<String, Option<Admission>>,
    /// `None`: not known.
    /// The ports to narrow: the routing mesh's, and those of containers themselves.
    narrowing: (Narrowed, Narrowed),
    narrowed: Option<Narrowed>,
    /// How far the key is used up that is sent with, as it was told to the log.
    wear: Option<Wear>,
}

impl Networks {
    /// The node belongs to a cluster from now on, whose other nodes believe what comes from its address: no container of its may
    /// send in its name. Networks are told by [`Self::apply`].
    ///
    /// # Errors
    /// The kernel's; [`Self::apply`] tries it again.
    pub fn enter_cluster(&self, underlay: &Underlay) -> Result<()> {
        let mut held = locked(&self.0.overlays);
        held.member = Some(underlay.clone());
        let entries = fs::read_dir(&self.0.settings.spaces).into_iter().flatten().flatten();
        if entries.map(|entry| entry.path()).any(|space| namespace::is_bound(&space)) {
            // A daemon has served networks before: whom it let in holds until the worker tells them. A locked manager's does so when
            // it is unlocked, and its rules may have been taken away meanwhile.
            let before = self.guarded_before(underlay)?;
            return match before {
                Some(before) => self.0.guard.set(Some(before)).map_err(|error| refused(&error)),
                None => Ok(()),
            };
        }
        self.let_in(underlay, &Plan::default(), &held.encrypted)
    }

    /// Has this node's overlay networks be what its items say; gives what keeps them from that, and all else is done. Items of
    /// other kinds are passed over. Again with the same items it mends what failed. Of a cluster that the node has left nothing is
    /// done.
    ///
    /// # Errors
    /// The store's; the kernel refuses what all networks need. Nothing is served that needs it.
    pub fn apply(&self, underlay: &Underlay, items: &[Item]) -> Result<Vec<Problem>> {
        let mut held = locked(&self.0.overlays);
        if held.member.as_ref() != Some(underlay) {
            return Ok(Vec::new());
        }
        self.know_traffic(&mut held, items)?;
        if held.told.as_ref().is_some_and(|(before, _)| before != underlay) {
            // Devices have the node's address, and keys are derived from it.
            held.made.clear();
            held.sealed = None;
        }
        held.told =
            Some((underlay.clone(), items.iter().filter(|item| is_of_networks(item)).cloned().collect()));
        self.make_so(&mut held)
    }

    /// What is known of tasks' traffic is remembered: a daemon and a leader may start anew at once.
    fn know_traffic(&self, held: &mut Held, items: &[Item]) -> Result<()> {
        let before = match &held.known {
            Some(known) => known.clone(),
            None => {
                let all = self.0.store.all::<Known>(DAEMON_TRAFFIC)?.into_iter();
                all.map(|(_, known)| known).next().unwrap_or_default()
            }
        };
        let known = plan::known(items, &before);
        if held.known.as_ref() != Some(&known) {
            self.0.store.put(DAEMON_TRAFFIC, TRAFFIC, &known)?;
        }
        held.known = Some(known);
        Ok(())
    }

    /// The node leaves the cluster: nothing of it stays but the bridge that was its containers' way out, which is a network like
    /// others.
    ///
    /// # Errors
    /// The store's or the kernel's: what is left goes with [`Self::go_on_leaving`].
    pub fn forget_overlays(&self) -> Result<()> {
        let mut held = locked(&self.0.overlays);
        held.member = None;
        self.forget_all(&mut held)
    }

    /// Removes what was left by [`Self::forget_overlays`], unless the node belongs to a cluster again.
    ///
    /// # Errors
    /// As there.
    pub fn go_on_leaving(&self) -> Result<()> {
        let mut held = locked(&self.0.overlays);
        if held.member.is_some() { Ok(()) } else { self.forget_all(&mut held) }
    }

    fn forget_all(&self, held: &mut Held) -> Result<()> {
        self.unpublish_mesh(&mut held.published)?;
        *held = Held::default();
        self.0.store.remove(DAEMON_TRAFFIC, TRAFFIC)?;
        // While a network is there, strangers are kept out of it.
        if let Some((_, error)) = self.remove_strange_spaces(&Plan::default())?.into_iter().next() {
            return Err(error);
        }
        if super::can_encrypt() {
            sealing::seal(&sealing::Wanted::default())?;
        }
        self.set_doors(held, &[])?.narrowed?;
        self.0.guard.set(None).map_err(|error| refused(&error))?;
        self.0.store.remove(DAEMON_GUARD, GUARD)?;
        let mut state = self.state();
        let ours = state.networks.values().filter(|network| network.is_overlay());
        let ours: Vec<Network> = ours.cloned().collect();
        for network in ours {
            self.0.names.tell(&network.id, &network.name, None);
            self.forget_network(&mut state, &network.id)?;
        }
        Ok(())
    }

    /// The node's own sandboxes have changed. What can't be done now is done with the next change.
    pub(super) fn renew_overlays(&self) {
        let mut held = locked(&self.0.overlays);
        match self.make_so(&mut held) {
            Ok(problems) => problems.iter().for_each(|problem| warn!("{problem}")),
            Err(error) => warn!("overlay networks: {error}"),
        }
    }

    fn make_so(&self, held: &mut Held) -> Result<Vec<Problem>> {
        let Some((underlay, items)) = held.told.clone() else { return Ok(Vec::new()) };
        let locals = self.state().locals();
        let known = held.known.clone().unwrap_or_default();
        let mut plan = plan::plan(&underlay, &items, &known, &locals);
        self.know_networks(&underlay, &items, &mut plan)?;
        // What goes does so while its rules are there, and keeps them when it can't go.
        let stay = self.remove_strange_spaces(&plan)?;
        let before = if stay.is_empty() { BTreeSet::new() } else { std::mem::take(&mut held.encrypted) };
        held.encrypted = &before | &plan.sealing.networks;
        plan.problems.extend(stay.into_iter().map(|(name, error)| Problem::Failed(name, error.to_string())));
        // Before there is a network, strangers are kept out of it; and where there is none, containers from other nodes'.
        self.let_in(&underlay, &plan, &held.encrypted)?;
        Self::seal(held, &underlay, &mut plan);
        // Before anything leads to it.
        let Doors { failed, narrowed } = self.set_doors(held, &items)?;
        let failed =
            failed.into_iter().map(|(container, error)| Problem::Ports(container, error.to_string()));
        plan.problems.extend(failed);
        if let Err(error) = narrowed {
            // All else of the node is served; these would be open to everybody.
            plan.problems.push(Problem::Narrowing(error.to_string()));
            plan.mesh.retain(|port, _| !held.narrowing.0.0.contains_key(port));
        }
        self.make_spaces(held, &underlay, &mut plan)?;
        self.tell_of_overlays(&plan);
        self.publish_ports(held, &mut plan)?;
        // Who has a port is known now, and what is published no more has gone.
        if let Err(error) = self.narrow(held) {
            plan.problems.push(Problem::Narrowing(error.to_string()));
        }
        Ok(plan.problems)
    }

    /// Associations and policies of encrypted networks. What could not be made is dropped by the packet filter meanwhile.
    fn seal(held: &mut Held, underlay: &Underlay, plan: &mut Plan) {
        let is_known = plan.sealing.networks.is_empty() || !plan.sealing.keys.is_empty();
        // Of others' kernels nothing is asked.
        if !underlay.encrypts || !is_known || held.sealed.as_ref() == Some(&plan.sealing) {
            return;
        }
        held.sealed = None;
        match sealing::seal(&sealing::wanted(underlay, &plan.sealing)) {
            Ok(()) => held.sealed = Some(plan.sealing.clone()),
            Err(error) => {
                let all = "that are encrypted".to_owned();
                plan.problems.push(Problem::Failed(all, error.to_string()));
            }
        }
    }

    fn let_in(&self, underlay: &Underlay, plan: &Plan, encrypted: &BTreeSet<u32>) -> Result<()> {
        // With the lock, as whoever makes a bridge writes it: of two lists the newer one stays.
        let state = self.state();
        let guarded = Guarded {
            address: underlay.address,
            port: underlay.port,
            peers: plan.peers.clone(),
            bridges: state.bridges().into_iter().map(|bridge| bridge.name).collect(),
            encrypted: encrypted.clone(),
        };
        if self.0.guard.has(&guarded) {
            return Ok(());
        }
        self.0.store.put(DAEMON_GUARD, GUARD, &guarded)?;
        self.0.guard.set(Some(guarded)).map_err(|error| refused(&error))
    }

    /// What the rules were written for when networks were served last, with the bridges of now.
    fn guarded_before(&self, underlay: &Underlay) -> Result<Option<Guarded>> {
        let mut known = self.0.store.all::<Guarded>(DAEMON_GUARD)?.into_iter().map(|(_, known)| known);
        let same = known.find(|it| (it.address, it.port) == (underlay.address, underlay.port));
        let bridges = || self.state().bridges().into_iter().map(|bridge| bridge.name).collect();
        Ok(same.map(|it| Guarded { bridges: bridges(), ..it }))
    }

    /// The generation of the data key of which so much is used up that the managers are to make the next one; told to the log once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn worn_key(&self) -> Result<Option<u64>> {
        let mut held = locked(&self.0.overlays);
        let wear = match (&held.told, &held.sealed) {
            (Some((underlay, _)), Some(sealed)) if !sealed.peers.is_empty() => {
                sealing::look(underlay, sealed)?
            }
            _ => None,
        };
        if held.wear != wear {
            held.wear = wear;
            match wear.map(|wear| wear.stage) {
                Some(Stage::Worn) => {
                    warn!(
                        "half of what can be sent with the data key is sent: the managers are asked for the next one"
                    );
                }
                Some(Stage::Spent) => {
                    warn!(
                        "the data key is used up: nothing of encrypted networks is sent to some nodes until managers give the next one"
                    );
                }
                None => {}
            }
        }
        Ok(wear.map(|wear| wear.generation))
    }

    fn tell_of_overlays(&self, plan: &Plan) {
        let state = self.state();
        for network in state.networks.values().filter(|network| network.is_overlay()) {
            self.0.names.tell(&network.id, &network.name, plan.names.get(&network.id).cloned());
        }
    }

    /// The routing mesh, as far as this node is part of it.
    fn publish_ports(&self, held: &mut Held, plan: &mut Plan) -> Result<()> {
        let entrance = match self.open_door(held) {
            Ok(entrance) => entrance,
            Err(error) => {
                plan.problems.push(Problem::Failed("of the routing mesh".to_owned(), error.to_string()));
                None
            }
        };
        let problems = self.publish_mesh(&mut held.published, &plan.mesh, entrance.as_ref())?;
        plan.problems.extend(problems);
        Ok(())
    }

    /// Where the mesh's network is reached, if this node forwards for it.
    fn open_door(&self, held: &Held) -> Result<Option<Entrance>> {
        let mut made = held.made.iter();
        let Some((id, _)) = made.find(|(_, overlay)| overlay.ingress && !overlay.own.is_empty()) else {
            return Ok(None);
        };
        let door = self.door(&self.way_out()?)?;
        let space = self.0.settings.spaces.join(id);
        door.make(&space)?;
        Ok(Some(Entrance { door: door.address.address(), space }))
    }

    /// Networks have names and ids here for as long as the node is told of them, or has endpoints in them.
    fn know_networks(&self, underlay: &Underlay, items: &[Item], plan: &mut Plan) -> Result<()> {
        if items.iter().any(leads_out)
            && let Err(error) = self.way_out()
        {
            let problem = Problem::Failed("that containers leave by".to_owned(), error.to_string());
            plan.problems.push(problem);
        }
        let mut state = self.state();
        for item in items {
            if let Item::Network(told) = item
                && told.network.spec.is_overlay()
            {
                self.remember_network(&mut state, record(underlay, &told.network, plan))?;
            }
        }
        let is_told = |id: &String| plan.networks.contains_key(id) || plan.refused.contains_key(id);
        let gone: Vec<String> = state
            .networks
            .values()
            .filter(|network| network.is_overlay() && !is_told(&network.id))
            .filter(|network| state.endpoints(&network.id).next().is_none())
            .map(|network| network.id.clone())
            .collect();
        for id in gone {
            self.0.names.tell(&id, "", None);
            self.forget_network(&mut state, &id)?;
        }
        Ok(())
    }

    fn forget_network(&self, state: &mut State, id: &str) -> Result<()> {
        drop(state.networks.remove(id));
        drop(state.taken.remove(id));
        self.0.store.remove(NETWORKS, id)
    }

    fn make_spaces(&self, held: &mut Held, underlay: &Underlay, plan: &mut Plan) -> Result<()> {
        let folder = &self.0.settings.spaces;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .map_err(|error| Error::internal(format_args!("making {}", folder.display()), &error))?;
        held.made.retain(|id, _| plan.networks.contains_key(id));
        for (id, overlay) in &plan.networks {
            if held.made.get(id) == Some(overlay) {
                continue;
            }
            let before = held.made.remove(id);
            // One that can't be had keeps no others from work.
            let ports = if before.is_some() { Vec::new() } else { self.state().ports_in(id) };
            match space::make(&folder.join(id), underlay, (overlay, before.as_ref()), &ports) {
                Ok(()) => {
                    let _none = held.made.insert(id.clone(), overlay.clone());
                }
                Err(error) => {
                    plan.problems.push(Problem::Failed(overlay.name.clone(), error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Removes the namespaces of networks that the node is not in; gives those that stay, and why.
    fn remove_strange_spaces(&self, plan: &Plan) -> Result<Vec<(String, Error)>> {
        let folder = &self.0.settings.spaces;
        let mut left = Vec::new();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(left),
            entries => entries
                .map_err(|error| Error::internal(format_args!("reading {}", folder.display()), &error))?,
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| plan.networks.contains_key(name)) {
                continue;
            }
            if let Err(error) = space::remove(&entry.path()) {
                left.push((name.to_string_lossy().into_owned(), error));
            }
        }
        Ok(left)
    }
}

/// Secrets and tasks are not kept here.
fn is_of_networks(item: &Item) -> bool {
    matches!(
        item,
        Item::Network(_) | Item::Neighbour(_) | Item::Service(_) | Item::Peer(_) | Item::DataKeys(_)
    )
}

/// Whether it is a network whose containers have a way out.
fn leads_out(item: &Item) -> bool {
    matches!(item, Item::Network(told) if told.network.spec.is_overlay() && !told.network.spec.internal)
}

impl State {
    /// The ports of sandboxes in a network's namespace.
    fn ports_in(&self, network: &str) -> Vec<OwnedPort> {
        let endpoints = self.endpoints(network).map(|(_, endpoint)| endpoint);
        endpoints.filter(|endpoint| endpoint.space.is_some()).filter_map(Endpoint::port).collect()
    }

    /// Who of this node is in overlay networks, and where the host reaches him.
    fn locals(&self) -> Locals {
        let mut locals = Locals::new();
        for sandbox in self.sandboxes.values() {
            let by_host = || {
                let route = self.route(sandbox, true)?;
                let endpoint = sandbox.endpoints.iter().find(|one| one.interface == route.interface)?;
                let network = self.networks.get(&endpoint.network)?;
                endpoint.ipv4.filter(|_| network.driver == Driver::Bridge)
            };
            for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.space.is_some()) {
                let Ok(network) = endpoint.network.parse::<NetworkId>() else { continue };
                for address in endpoint.addresses() {
                    let _none = locals.insert((network, address), by_host());
                }
            }
        }
        locals
    }
}

/// A network of the cluster as the node's own know it.
fn record(underlay: &Underlay, network: &cluster::Network, plan: &Plan) -> Network {
    let id = network.id.to_string();
    let allocation = network.allocation.clone().unwrap_or_default();
    let pools = allocation.pools.iter().filter_map(|pool| Some((pool, plan::prefix(pool.subnet?)?)));
    let subnets: Vec<Prefix> = pools.clone().map(|(_, subnet)| subnet.subnet()).collect();
    let shown = pools.map(|(pool, subnet)| IpamConfig {
        subnet: subnet.subnet().to_string(),
        ip_range: pool.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: None,
    });
    let mut options: Map = network.spec.driver.options.clone().into_iter().collect();
    options.extend(allocation.vni.map(|vni| (VXLAN_IDS.to_owned(), vni.to_string())));
    let nanos = i64::try_from(network.meta.created_at.0).unwrap_or(i64::MAX);
    Network {
        name: network.spec.name.clone(),
        created: Timestamp::of_nanos(nanos).to_string(),
        driver: Driver::Overlay,
        ipv4: subnets.iter().any(|subnet| subnet.is_ipv4()),
        ipv6: subnets.iter().any(|subnet| !subnet.is_ipv4()),
        ipam: Ipam { driver: "default".to_owned(), options: None, config: Some(shown.collect()) },
        chosen: Vec::new(),
        subnets: subnets.into_iter().map(Subnet::of).collect(),
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        config_from: String::new(),
        config_only: false,
        made_link: false,
        options,
        labels: network.spec.labels.clone().into_iter().collect(),
        spanned: Some(Spanned {
            mtu: plan::mtu(underlay, network),
            ingress: network.is_ingress(),
            refusal: plan.refused.get(&id).map(ToString::to_string),
        }),
        id,
    }
}
