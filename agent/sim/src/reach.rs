//! Who reaches services: what is asked for by `ketch.allow`, `ketch.publish.*` and published ports, and what the machines must have been
//! told of it. What a machine makes of that (doors, rules, relays) is the agent's, which the simulation lacks: here it ends with all that
//! they are made of, which is held against the containers that run and the specs, not against what managers compute.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ketch_cluster::assignment::{Item, Neighbour, ServiceEntry, Traffic};
use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::label::{allow, proxy, publish};
use ketch_cluster::objects::endpoint::{EndpointSpec, PortConfig, Protocol, PublishMode};
use ketch_cluster::objects::{Labels, Node, Service};
use ketch_cluster::store::Store;

use crate::cluster::Cluster;
use crate::random::Random;
use crate::wishes;

/// Port 80 of each task is published where the service says so, port 53 with it.
const WEB: u16 = 80;
const NAMES: u16 = 53;
/// Numbers that services choose themselves: another one each.
const CHOSEN: u16 = 8000;

/// What a new service asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reach {
    allowed: Allowed,
    published: Option<Published>,
}

/// Who comes to port 80.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Allowed {
    /// The label is not there.
    #[default]
    All,
    Nobody,
    /// And to port 53 anybody. The service may be gone, or never come.
    Service(u64),
}

#[derive(Debug, Clone, Copy)]
struct Published {
    /// None: one that the cluster chooses.
    port: Option<u16>,
    from: bool,
    at: bool,
    proxy: bool,
}

impl Reach {
    pub(crate) fn drawn(number: u64, random: &mut Random) -> Self {
        let allowed = Allowed::drawn(number, random);
        let chosen = u16::try_from(number).ok().map(|number| CHOSEN + number);
        let mut half = || random.below(2) == 0;
        let published =
            Published { port: chosen.filter(|_| half()), from: half(), at: half(), proxy: half() };
        Self { allowed, published: half().then_some(published) }
    }

    pub(crate) fn write(self, labels: &mut Labels) {
        self.allowed.write(labels);
        let Some(published) = self.published else { return };
        let asked = [
            (publish::FROM, published.from, "10.0.0.0/8,192.0.2.7"),
            (publish::IP, published.at, "192.0.2.1,eth1"),
            (proxy::LABEL, published.proxy, "80"),
        ];
        let asked = asked.into_iter().filter(|(_, is_asked, _)| *is_asked);
        labels.extend(asked.map(|(label, _, value)| (label.to_owned(), value.to_owned())));
    }

    pub(crate) fn endpoint(self) -> Option<EndpointSpec> {
        let published = self.published?;
        let port = |protocol, target_port, published_port| PortConfig {
            name: String::new(),
            protocol,
            target_port,
            published_port,
            publish_mode: PublishMode::Ingress,
        };
        let ports =
            vec![port(Protocol::Tcp, WEB, published.port.unwrap_or_default()), port(Protocol::Udp, NAMES, 0)];
        Some(EndpointSpec { ports, ..EndpointSpec::default() })
    }
}

impl Allowed {
    /// By services with numbers up to this one, and the next one.
    pub(crate) fn drawn(number: u64, random: &mut Random) -> Self {
        match random.below(5) {
            0 => Self::All,
            1 => Self::Nobody,
            _ => Self::Service(random.below(number + 2)),
        }
    }

    pub(crate) fn write(self, labels: &mut Labels) {
        let text = match self {
            Self::All => {
                labels.remove(allow::LABEL);
                return;
            }
            Self::Nobody => String::new(),
            Self::Service(number) => format!("{}:{WEB},*:{NAMES}/udp", wishes::name_of(number)),
        };
        labels.insert(allow::LABEL.to_owned(), text);
    }
}

/// Whether the mesh is to put the client's address before connections to port 80.
pub(crate) fn relay(labels: &mut Labels, is_on: bool) {
    if is_on {
        labels.insert(proxy::LABEL.to_owned(), WEB.to_string());
    } else {
        labels.remove(proxy::LABEL);
    }
}

/// Those of a service's labels that say who reaches it.
pub(crate) fn read(labels: &Labels) -> Labels {
    let ours = [allow::LABEL, publish::FROM, publish::IP, proxy::LABEL];
    let ours = labels.iter().filter(|(label, _)| ours.contains(&label.as_str()));
    ours.map(|(label, value)| (label.clone(), value.clone())).collect()
}

type Addresses = BTreeSet<(NetworkId, IpAddr)>;

/// Whatever a machine knows at any moment, however long ago it was told: an address is one task's, and a task its own service's. An
/// allowed name never is another service's.
pub(crate) fn always(cluster: &Cluster) -> Result<(), String> {
    for site in &cluster.sites {
        let told = site.machine.told();
        let wrong = cluster.newest(|store| {
            let neighbours = told.iter().filter_map(neighbour);
            one_of_each(neighbours.clone()).and_then(|()| are_who_they_were(store, neighbours))?;
            told.iter().filter_map(entry).try_for_each(|entry| are_called_so(store, entry))
        });
        if let Some(Err(why)) = wrong {
            return Err(format!("{} was told wrongly: {why}", site.name));
        }
    }
    Ok(())
}

fn one_of_each<'i>(neighbours: impl Iterator<Item = &'i Neighbour>) -> Result<(), String> {
    let mut held = BTreeMap::new();
    for neighbour in neighbours {
        for address in addresses(neighbour) {
            if let Some(other) = held.insert(address, neighbour.task) {
                return Err(format!("{} is of {} and {other}", address.1, neighbour.task));
            }
        }
    }
    Ok(())
}

/// By what is committed of them, as long as anything is.
fn are_who_they_were<'i>(
    store: &Store,
    neighbours: impl Iterator<Item = &'i Neighbour>,
) -> Result<(), String> {
    for told in neighbours {
        let Some(task) = store.task(told.task) else { continue };
        let has = task.networks.iter().flat_map(|it| it.addresses.iter().map(|at| (it.network, at.address)));
        if task.service != told.service || !addresses(told).is_subset(&has.collect()) {
            return Err(format!("{told:?} is {:?} {:?}", task.service, task.networks));
        }
    }
    Ok(())
}

/// No service is called otherwise than it was here.
fn are_called_so(store: &Store, entry: &ServiceEntry) -> Result<(), String> {
    for (name, id) in entry.allowed.iter().flatten() {
        if let Some(other) = store.service(*id).filter(|it| it.spec.name != *name) {
            return Err(format!("{} lets {name} in, and {id} is {}", entry.name, other.spec.name));
        }
    }
    Ok(())
}

/// Once nothing is wrong any more, each machine knows what runs and what is asked for, and nothing else.
pub(crate) fn healed(cluster: &Cluster) -> Result<(), String> {
    let running: Vec<_> = (0..cluster.sites.len())
        .filter_map(|index| Some((cluster.identity(index)?, cluster.sites[index].machine.residents())))
        .flat_map(|(node, residents)| residents.into_iter().map(move |it| (node, it)))
        .collect();
    for (index, site) in cluster.sites.iter().enumerate() {
        let told = site.machine.told();
        let Some(node) = cluster.identity(index) else { continue };
        let judged = cluster.newest(|store| {
            store.node(node).map_or(Ok(()), |node| {
                let networks = networks_of(node, &running);
                knows_the_tasks(&told, &running, &networks)?;
                knows_the_services(store, &told, &networks)?;
                relays_as_asked(store, &told, &running, &networks)
            })
        });
        judged.unwrap_or(Ok(())).map_err(|why| format!("{} was told wrongly: {why}", site.name))?;
    }
    Ok(())
}

type Running = (NodeId, crate::container::Resident);

/// Those of its own, the routing mesh's among them, and those of what runs there.
fn networks_of(node: &Node, running: &[Running]) -> BTreeSet<NetworkId> {
    let here = running.iter().filter(|(at, _)| *at == node.id);
    let of_tasks = here.flat_map(|(_, (.., addresses))| addresses.iter().map(|(network, _)| *network));
    of_tasks.chain(node.attachments.iter().map(|it| it.network)).collect()
}

/// All that run and have an address where this node may reach it, and traffic goes to each of them.
fn knows_the_tasks(told: &[Item], running: &[Running], networks: &BTreeSet<NetworkId>) -> Result<(), String> {
    let mut wanted = BTreeMap::new();
    for (node, (task, service, addresses)) in running {
        let seen: Addresses = addresses.iter().filter(|it| networks.contains(&it.0)).copied().collect();
        if !seen.is_empty() {
            wanted.insert(*task, (*node, *service, seen, Traffic::Serving));
        }
    }
    let neighbours = told.iter().filter_map(neighbour);
    let known: BTreeMap<TaskId, _> =
        neighbours.map(|it| (it.task, (it.node, it.service, addresses(it), it.traffic))).collect();
    let differs = |task: &&TaskId| known.get(task) != wanted.get(task);
    match known.keys().chain(wanted.keys()).find(differs) {
        Some(task) => Err(format!("{task} is {:?} and not {:?}", known.get(task), wanted.get(task))),
        None => Ok(()),
    }
}

/// All that can be reached from here, as their specs have them.
fn knows_the_services(store: &Store, told: &[Item], networks: &BTreeSet<NetworkId>) -> Result<(), String> {
    let in_mesh = networks.iter().any(|id| store.network(*id).is_some_and(|it| it.spec.ingress));
    let known: BTreeMap<ServiceId, &ServiceEntry> =
        told.iter().filter_map(entry).map(|it| (it.service, it)).collect();
    if let Some(entry) = known.values().find(|it| store.service(it.service).is_none()) {
        return Err(format!("{}, which is gone, has the ports {:?}", entry.name, entry.ports));
    }
    let mut open = BTreeSet::new();
    for service in store.services() {
        let of_spec = service.spec.endpoint.iter().flat_map(|it| &it.ports);
        let published: Vec<_> = of_spec.filter(|_| in_mesh).collect();
        let Some(entry) = known.get(&service.id) else {
            if published.is_empty() {
                continue;
            }
            return Err(format!("nothing of {}, which publishes {published:?}", service.spec.name));
        };
        has_its_ports(entry, &published)?;
        if let Some(port) = entry.ports.iter().find(|it| !open.insert((it.protocol, it.published_port))) {
            return Err(format!("{port:?} is published twice"));
        }
        lets_in_whom_it_says(store, service, entry)?;
    }
    Ok(())
}

fn has_its_ports(entry: &ServiceEntry, asked: &[&PortConfig]) -> Result<(), String> {
    let is_so = |port: &PortConfig, asked: &&PortConfig| {
        let is_number = port.published_port != 0 && [0, port.published_port].contains(&asked.published_port);
        is_number && (port.protocol, port.target_port) == (asked.protocol, asked.target_port)
    };
    let is_all = entry.ports.len() == asked.len()
        && entry.ports.iter().zip(asked).all(|(port, asked)| is_so(port, asked));
    if is_all { Ok(()) } else { Err(format!("{} has {:?} for {asked:?}", entry.name, entry.ports)) }
}

/// And passes the client's address on where it says so: that is read of the labels.
fn lets_in_whom_it_says(store: &Store, service: &Service, entry: &ServiceEntry) -> Result<(), String> {
    if entry.labels != service.spec.labels {
        return Err(format!("{} says {:?}, not {:?}", entry.name, entry.labels, service.spec.labels));
    }
    let allow = service.spec.labels.get(allow::LABEL);
    let names = |text: &String| {
        let names = text.split(',').filter_map(|it| it.split_once(':')).map(|(name, _)| name.to_owned());
        let named = |name: String| {
            let service = store.services().find(|it| it.spec.name == name)?;
            Some((name, service.id))
        };
        names.filter_map(named).collect::<BTreeMap<_, _>>()
    };
    let allowed = allow.map(names);
    if entry.allowed == allowed {
        Ok(())
    } else {
        Err(format!("{} lets in {:?}, not {allowed:?}", entry.name, entry.allowed))
    }
}

/// Published ports before whose connections the client's address is put, and where these lead.
type Relays = BTreeMap<u16, BTreeSet<SocketAddr>>;

/// A node of the mesh relays exactly the ports of which their services say so now, to exactly the tasks that run.
fn relays_as_asked(
    store: &Store,
    told: &[Item],
    running: &[Running],
    networks: &BTreeSet<NetworkId>,
) -> Result<(), String> {
    let is_mesh = |id: &NetworkId| store.network(*id).is_some_and(|it| it.spec.ingress);
    let Some(mesh) = networks.iter().copied().find(is_mesh) else { return Ok(()) };
    let at = |addresses: &Addresses, port: u16| {
        let here = addresses.iter().filter(|it| it.0 == mesh).map(|it| SocketAddr::new(it.1, port));
        here.collect::<Vec<_>>()
    };
    let (mut known, mut wanted) = (Relays::new(), Relays::new());
    for entry in told.iter().filter_map(entry) {
        let ports = proxy::in_force(&entry.labels);
        let carried = |it: &&PortConfig| it.protocol == Protocol::Tcp && ports.contains(&it.target_port);
        for port in entry.ports.iter().filter(carried) {
            let serving = told.iter().filter_map(neighbour).filter(|it| it.traffic == Traffic::Serving);
            let tasks = serving.filter(|it| it.service == Some(entry.service));
            let leads = tasks.flat_map(|it| at(&addresses(it), port.target_port));
            known.insert(port.published_port, leads.collect());
        }
    }
    for service in store.services().filter(|it| it.spec.labels.contains_key(proxy::LABEL)) {
        let web = |it: &&PortConfig| it.protocol == Protocol::Tcp && it.target_port == WEB;
        for port in service.endpoint.ports.iter().filter(web) {
            let tasks = running.iter().filter(|(_, (_, of, _))| *of == Some(service.id));
            let leads = tasks.flat_map(|(_, (.., addresses))| at(addresses, WEB));
            wanted.insert(port.published_port, leads.collect());
        }
    }
    if known == wanted { Ok(()) } else { Err(format!("it relays {known:?} where {wanted:?} is asked for")) }
}

fn neighbour(item: &Item) -> Option<&Neighbour> {
    if let Item::Neighbour(neighbour) = item { Some(neighbour) } else { None }
}

fn entry(item: &Item) -> Option<&ServiceEntry> {
    if let Item::Service(entry) = item { Some(entry) } else { None }
}

fn addresses(neighbour: &Neighbour) -> Addresses {
    let all = neighbour.attachments.iter();
    all.flat_map(|it| it.addresses.iter().map(|at| (it.network, at.address))).collect()
}
