//! Which names there are: of each network, who has which; of each container, which networks it sees, in which order, and what
//! it calls others by links.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use tokio::sync::Semaphore;

use crate::locks::{reading, writing};
use crate::network::carrier;
use crate::network::ipam::Prefix;
use crate::network::resolver::Upstream;

/// Of a container, as it is asked for by its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct View {
    /// Ids of networks, the first asked first.
    pub(in crate::network) networks: Vec<String>,
    /// What it alone calls others: alias, network, name.
    pub(in crate::network) links: Vec<(String, String, String)>,
    /// The networks' subnets: who has which address there nobody else knows.
    pub(in crate::network) subnets: Vec<Prefix>,
    /// Whom it asks for other names; none: nobody, as all its networks are internal.
    pub(in crate::network) servers: Vec<Upstream>,
    /// From where it asks those that are not the host's.
    pub(in crate::network) namespace: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Network {
    name: String,
    /// By name in lower case, then by container: a name may be of several.
    holders: HashMap<String, BTreeMap<String, Vec<IpAddr>>>,
    /// The first name of whoever has the address.
    addresses: HashMap<IpAddr, String>,
    /// What is to be forgotten with a container.
    of: HashMap<String, (Vec<String>, Vec<IpAddr>)>,
    /// What somebody else says of the network, all of it at once: before what containers of this node say.
    told: Option<Told>,
}

/// Who is called what in a network that spans the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Told {
    /// By name in lower case.
    pub(in crate::network) addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(in crate::network) names: BTreeMap<IpAddr, String>,
}

/// What is known.
#[derive(Debug)]
pub(in crate::network) struct Names {
    known: RwLock<Known>,
    /// Of the daemon's descriptors: what all containers together may ask others at once.
    pub(super) share: Arc<Semaphore>,
    /// Turns the order of several answers on with each.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    networks: HashMap<String, Network>,
    views: HashMap<String, View>,
}

/// A container in a network.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Holder<'a> {
    pub(in crate::network) container: &'a str,
    pub(in crate::network) network: &'a str,
    pub(in crate::network) network_name: &'a str,
    pub(in crate::network) names: &'a [String],
    pub(in crate::network) addresses: &'a [IpAddr],
}

impl Default for Names {
    fn default() -> Self {
        Self { known: RwLock::default(), share: carrier::share(), turn: AtomicUsize::default() }
    }
}

impl Names {
    /// A container is in a network.
    pub(in crate::network) fn add(&self, holder: Holder<'_>) {
        let mut known = writing(&self.known);
        let network = known.networks.entry(holder.network.to_owned()).or_default();
        holder.network_name.clone_into(&mut network.name);
        network.forget(holder.container);
        let names = holder.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let _before = network.of.insert(holder.container.to_owned(), (names, holder.addresses.to_vec()));
        for name in holder.names {
            let holders = network.holders.entry(name.to_ascii_lowercase()).or_default();
            let _before = holders.insert(holder.container.to_owned(), holder.addresses.to_vec());
        }
        for (address, name) in holder.addresses.iter().zip(holder.names.iter().cycle()) {
            let first = holder.names.first().unwrap_or(name);
            let _before = network.addresses.insert(*address, first.clone());
        }
    }

    /// It is no longer.
    pub(in crate::network) fn remove(&self, container: &str, network: &str) {
        let mut known = writing(&self.known);
        let Some(found) = known.networks.get_mut(network) else { return };
        found.forget(container);
        if found.is_empty() {
            drop(known.networks.remove(network));
        }
    }

    /// All that there is to say of a network; `None`: nothing any more.
    pub(in crate::network) fn tell(&self, network: &str, network_name: &str, told: Option<Told>) {
        let mut known = writing(&self.known);
        let found = known.networks.entry(network.to_owned()).or_default();
        network_name.clone_into(&mut found.name);
        found.told = told;
        if found.is_empty() {
            drop(known.networks.remove(network));
        }
    }

    /// What a container sees; `None`: it is gone.
    pub(in crate::network) fn set_view(&self, container: &str, view: Option<View>) {
        let mut known = writing(&self.known);
        match view {
            Some(view) => drop(known.views.insert(container.to_owned(), view)),
            None => drop(known.views.remove(container)),
        }
    }

    /// Whom a container asks for names that are not known here.
    pub(super) fn servers(&self, container: &str) -> (Vec<Upstream>, Option<PathBuf>) {
        let known = reading(&self.known);
        let view = known.views.get(container);
        view.map(|view| (view.servers.clone(), view.namespace.clone())).unwrap_or_default()
    }

    /// Whether an address is of one of the container's networks, whoever has it.
    pub(super) fn is_near(&self, container: &str, address: IpAddr) -> bool {
        let known = reading(&self.known);
        known
            .views
            .get(container)
            .is_some_and(|view| view.subnets.iter().any(|subnet| subnet.contains(address)))
    }

    /// The addresses of a name, of both families; `None`: nobody has it.
    pub(super) fn addresses(&self, container: &str, name: &str) -> Option<Vec<IpAddr>> {
        let known = reading(&self.known);
        let view = known.views.get(container)?;
        let link = view.links.iter().find(|(alias, _, _)| alias.eq_ignore_ascii_case(name));
        let linked = link.and_then(|(_, network, target)| known.find(network, &target.to_ascii_lowercase()));
        let mut found = linked
            .or_else(|| view.networks.iter().find_map(|network| known.find_qualified(network, name)))?;
        if !found.is_empty() {
            let by = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
            found.rotate_left(by);
        }
        Some(found)
    }

    /// The name of whoever has an address in one of the container's networks, with the network's behind it.
    pub(super) fn name(&self, container: &str, address: IpAddr) -> Option<String> {
        let known = reading(&self.known);
        known.views.get(container)?.networks.iter().find_map(|network| {
            let network = known.networks.get(network)?;
            let told = network.told.as_ref().and_then(|told| told.names.get(&address));
            let name = told.or_else(|| network.addresses.get(&address))?;
            Some(format!("{name}.{}", network.name))
        })
    }
}

impl Network {
    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.told.is_none()
    }

    fn forget(&mut self, container: &str) {
        let Some((names, addresses)) = self.of.remove(container) else { return };
        for name in names {
            if let Some(holders) = self.holders.get_mut(&name) {
                drop(holders.remove(container));
                if holders.is_empty() {
                    drop(self.holders.remove(&name));
                }
            }
        }
        for address in addresses {
            drop(self.addresses.remove(&address));
        }
    }
}

impl Known {
    fn find(&self, network: &str, name: &str) -> Option<Vec<IpAddr>> {
        let network = self.networks.get(network)?;
        if let Some(told) = network.told.as_ref().and_then(|told| told.addresses.get(name)) {
            return Some(told.iter().copied().collect());
        }
        let holders = network.holders.get(name)?;
        Some(holders.values().flatten().copied().collect())
    }

    /// Also as `name.network`.
    fn find_qualified(&self, network: &str, name: &str) -> Option<Vec<IpAddr>> {
        self.find(network, name).or_else(|| {
            let own = self.networks.get(network)?.name.to_ascii_lowercase();
            self.find(network, name.strip_suffix(&own)?.strip_suffix('.')?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let names = Names::default();
        for (container, last, own) in [("c1", 2, "web"), ("c2", 3, "db"), ("c3", 4, "other")] {
            names.add(Holder {
                container,
                network: if own == "other" { "n2" } else { "n1" },
                network_name: if own == "other" { "back" } else { "front" },
                names: &[own.to_owned(), "App".to_owned()],
                addresses: &[[172, 18, 0, last].into()],
            });
        }
        names.set_view(
            "c1",
            Some(View {
                networks: vec!["n1".to_owned()],
                links: vec![("store".to_owned(), "n1".to_owned(), "db".to_owned())],
                subnets: vec!["172.18.0.0/24".parse().unwrap()],
                ..View::default()
            }),
        );
        names
    }

    #[test]
    fn a_container_sees_its_networks_only() {
        let names = names();
        assert_eq!(names.addresses("c1", "db"), Some(vec![[172, 18, 0, 3].into()]));
        assert_eq!(names.addresses("c1", "db.front"), Some(vec![[172, 18, 0, 3].into()]));
        assert_eq!(names.addresses("c1", "store"), Some(vec![[172, 18, 0, 3].into()]));
        assert_eq!(names.addresses("c1", "other"), None);
        assert_eq!(names.addresses("nobody", "db"), None);
        assert_eq!(names.name("c1", [172, 18, 0, 3].into()).as_deref(), Some("db.front"));
        assert_eq!(names.name("c1", [172, 18, 0, 4].into()), None);
        assert!(names.is_near("c1", [172, 18, 0, 4].into()) && !names.is_near("c1", [172, 19, 0, 4].into()));
    }

    #[test]
    fn what_is_told_of_a_network_comes_first_and_goes_at_once() {
        let names = names();
        let told = Told {
            addresses: BTreeMap::from([("db".to_owned(), BTreeSet::from([[10, 0, 1, 2].into()]))]),
            names: BTreeMap::from([([10, 0, 1, 2].into(), "db".to_owned())]),
        };
        names.tell("n1", "front", Some(told));
        assert_eq!(names.addresses("c1", "db.front"), Some(vec![[10, 0, 1, 2].into()]));
        assert_eq!(names.addresses("c1", "web"), Some(vec![[172, 18, 0, 2].into()]));
        assert_eq!(names.name("c1", [10, 0, 1, 2].into()).as_deref(), Some("db.front"));
        names.tell("n1", "front", None);
        assert_eq!(names.addresses("c1", "db"), Some(vec![[172, 18, 0, 3].into()]));
    }

    #[test]
    fn several_holders_take_turns() {
        let names = names();
        let first = names.addresses("c1", "app").unwrap();
        let second = names.addresses("c1", "app").unwrap();
        assert_eq!((first.len(), first[0], first[1]), (2, second[1], second[0]));
        names.remove("c2", "n1");
        assert_eq!(names.addresses("c1", "app").map(|found| found.len()), Some(1));
        assert_eq!(names.addresses("c1", "db"), None);
    }
}
