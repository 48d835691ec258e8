//! What must hold in a store after every commit of the allocator, or once it is at rest; derived from the objects alone.

use super::*;

/// Who holds each address: of a virtual address, the service and the tasks that know it are one holder.
pub(super) fn holders(store: &Store) -> BTreeMap<(NetworkId, IpAddr), BTreeSet<ObjectId>> {
    let mut holders: BTreeMap<_, BTreeSet<ObjectId>> = BTreeMap::new();
    let mut hold = |network: NetworkId, addresses: &[Subnet], holder: ObjectId| {
        for address in addresses {
            holders.entry((network, address.address)).or_default().insert(holder);
        }
    };
    for node in store.nodes() {
        node.attachments.iter().for_each(|it| hold(it.network, &it.addresses, node.id.into()));
    }
    for service in store.services() {
        service.endpoint.virtual_ips.iter().for_each(|it| hold(it.network, &it.addresses, service.id.into()));
    }
    for task in store.tasks().filter(|task| !task.status.state.is_terminal()) {
        task.networks.iter().for_each(|it| hold(it.network, &it.addresses, task.id.into()));
        let virtual_ips = task.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        virtual_ips.for_each(|it| hold(it.network, &it.addresses, task.service.unwrap().into()));
    }
    holders
}

pub(super) fn nobody_shares_an_address(store: &Store) -> Result<(), TestCaseError> {
    for ((network, address), holders) in holders(store) {
        prop_assert_eq!(holders.len(), 1, "{} of {}: {:?}", address, network, holders);
        let Some(network) = store.network(network) else { continue };
        let pools = &network.allocation.as_ref().unwrap().pools;
        let pool = pools.iter().find(|pool| pool.subnet.unwrap().contains(address)).unwrap();
        prop_assert!(may_be_given(pool, address), "{} of {:?}", address, pool);
    }
    Ok(())
}

/// No network goes before the last task that may run on it, and a task knows virtual addresses of its own networks alone.
pub(super) fn no_task_has_lost_its_network(store: &Store) -> Result<(), TestCaseError> {
    for task in store.tasks().filter(|task| !task.status.state.is_terminal()) {
        let on: BTreeSet<NetworkId> = task.networks.iter().map(|attachment| attachment.network).collect();
        prop_assert!(on.iter().all(|network| store.network(*network).is_some()));
        let mut told = task.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        prop_assert!(told.all(|virtual_ip| on.contains(&virtual_ip.network)), "{:?}", task);
    }
    Ok(())
}

fn may_be_given(pool: &IpamConfig, address: IpAddr) -> bool {
    let subnet = pool.subnet.unwrap();
    let broadcast = subnet.address.is_ipv4().then(|| subnet.address_at(subnet.last()));
    subnet.contains(address)
        && address != subnet.address_at(subnet.first())
        && Some(address) != broadcast
        && Some(address) != pool.gateway
}

/// Whether all of a pool is taken, counted one by one; a large one never is.
fn is_full(pool: &IpamConfig, taken: impl Fn(IpAddr) -> bool) -> bool {
    let subnet = pool.subnet.unwrap();
    if subnet.last() - subnet.first() > 300 {
        return false;
    }
    let mut addresses = (subnet.first()..=subnet.last()).map(|number| subnet.address_at(number));
    addresses.all(|address| !may_be_given(pool, address) || taken(address))
}

pub(super) fn no_subnet_overlaps(store: &Store) -> Result<(), TestCaseError> {
    let subnets: Vec<Subnet> = store
        .networks()
        .filter_map(|network| network.allocation.as_ref())
        .flat_map(|allocation| allocation.pools.iter().map(|pool| pool.subnet.unwrap()))
        .collect();
    for (index, subnet) in subnets.iter().enumerate() {
        prop_assert!(!subnets[..index].iter().any(|other| other.overlaps(*subnet)), "{:?}", subnets);
    }
    let vnis: Vec<u32> = store.networks().filter_map(|network| network.allocation.as_ref()?.vni).collect();
    prop_assert_eq!(vnis.iter().collect::<BTreeSet<_>>().len(), vnis.len());
    Ok(())
}

pub(super) fn no_port_is_published_twice(store: &Store) -> Result<(), TestCaseError> {
    let mut mesh = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for service in store.services() {
        for port in service.endpoint.ports.iter().filter(|port| port.published_port != 0) {
            match port.publish_mode {
                PublishMode::Ingress => prop_assert!(mesh.insert((port.protocol, port.published_port))),
                PublishMode::Host => drop(hosts.insert((port.protocol, port.published_port))),
            }
        }
    }
    prop_assert!(mesh.is_disjoint(&hosts));
    Ok(())
}

/// A task that waits says why, and when it says that a network is full, it is.
pub(super) fn whoever_waits_says_why(store: &Store) -> Result<(), TestCaseError> {
    let holders = holders(store);
    for task in store.tasks_new().filter(|task| task.desired_state <= TaskState::Complete) {
        let message = &task.status.message;
        let orphan = task.service.is_some_and(|service| store.service(service).is_none());
        prop_assert!(orphan || !message.is_empty());
        if orphan || !message.starts_with("no address is free") {
            continue;
        }
        let full = store.networks().filter(|network| message.contains(&network.spec.name)).any(|network| {
            let pools = network.allocation.iter().flat_map(|allocation| &allocation.pools);
            pools
                .into_iter()
                .any(|pool| is_full(pool, |address| holders.contains_key(&(network.id, address))))
        });
        prop_assert!(full, "{}", message);
    }
    Ok(())
}

/// A node has its place on each network where a task of it has one, unless that network is full, and on ingress while it is
/// ready.
pub(super) fn nodes_are_where_their_tasks_are(store: &Store) -> Result<(), TestCaseError> {
    for node in store.nodes() {
        let has: BTreeSet<NetworkId> = node.attachments.iter().map(|it| it.network).collect();
        let ready = node.status.state == NodeState::Ready;
        for network in store.networks().filter(|network| network.allocation.is_some()) {
            let needed =
                store.networks_on(node.id).any(|on| on == network.id) || (network.is_ingress() && ready);
            let mut pools = network.allocation.iter().flat_map(|allocation| &allocation.pools);
            let full =
                pools.any(|pool| is_full(pool, |address| store.holders_of(network.id, address).live > 0));
            prop_assert!(!needed || full || has.contains(&network.id));
            prop_assert!(needed || !ready || !has.contains(&network.id));
        }
        prop_assert!(has.iter().all(|network| store.network(*network).is_some()));
    }
    Ok(())
}
