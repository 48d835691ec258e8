//! Who reaches what of a small cluster: a client's service here, `web` here and elsewhere.

use ketch_cluster::id::{ServiceId, TaskId};
use ketch_cluster::objects::endpoint::{ResolutionMode, VirtualIp};

use super::super::fixture::{FRONT, INGRESS, Told as Cluster, WEB, task};
use super::*;

const SHOP: ServiceId = ServiceId::of(8);

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

/// Tasks of `shop` here and on another node, a container of nobody's, and tasks of `web`, which has these labels.
fn items(given: &[(&str, &str)]) -> Vec<Item> {
    let of_shop = |name, node, last| {
        let mut task = task(name, node, last);
        task.service = Some(SHOP);
        task
    };
    let mut tasks = vec![task("web.1", 1, 11), task("web.2", 2, 12)];
    tasks.iter_mut().for_each(|task| {
        let [_, _, _, last] = task.addresses[0].1;
        task.addresses.push((INGRESS, [10, 0, 0, last]));
    });
    tasks.extend([of_shop("shop.1", 1, 20), of_shop("shop.2", 2, 21), task("plain", 1, 30)]);
    let cluster =
        Cluster { nodes: vec![1, 2], tasks, ingress: true, labels: labels(given), ..Cluster::default() };
    let mut items = cluster.items(1);
    items.push(Item::Service(entry("shop")));
    items
}

fn entry(name: &str) -> ServiceEntry {
    ServiceEntry {
        service: SHOP,
        name: name.to_owned(),
        labels: Labels::new(),
        mode: ResolutionMode::Vip,
        virtual_ips: vec![VirtualIp { network: FRONT, addresses: vec!["10.0.1.3/24".parse().unwrap()] }],
        ports: Vec::new(),
        allowed: None,
    }
}

fn web(known: &[(&str, &str)]) -> Resident {
    Resident {
        container: "web".to_owned(),
        sandbox: "1".to_owned(),
        namespace: PathBuf::from("/net"),
        of: OfService { task: TaskId::of(1).to_string(), labels: labels(known) },
        overlays: vec![("eth0".to_owned(), INGRESS), ("eth1".to_owned(), FRONT)],
        bridges: vec!["eth2".to_owned()],
        published: vec![(Transport::Tcp, 9000, 90)],
        is_closed: false,
    }
}

fn addresses_of(texts: &[&str]) -> Option<BTreeSet<IpAddr>> {
    Some(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn pass_of(interface: Option<&str>, from: Option<BTreeSet<IpAddr>>, port: u16) -> Pass {
    Pass { interface: interface.map(str::to_owned), from, transport: Transport::Tcp, ports: (port, port) }
}

#[test]
fn a_service_without_labels_asks_for_nothing() {
    let items = items(&[("ketch.mesh.prefer-local", "true"), ("com.docker.stack.namespace", "x")]);
    let stack = [(STACK.to_owned(), "x".to_owned())].into();
    let wanted = Access { admissions: vec![None], labels: vec![stack], ..Access::default() };
    assert_eq!(access(&items, &[web(&[])]), wanted);
    let told = Told::of(&items, &Known::new());
    assert!(told.services.iter().all(|it| passes(&told, it, (NodeId::of(1), FRONT)).is_none()));
}

#[test]
fn a_closed_task_lets_in_whom_it_names_nodes_for_them_and_what_it_publishes() {
    let items = items(&[("ketch.allow", "shop:80,*:443,nobody:7")]);
    let admission = access(&items, &[web(&[])]).admissions.remove(0).unwrap();
    let mut wanted = vec![
        pass_of(None, None, 443),
        // From the tasks of `shop`, and from nodes, by which virtual addresses lead here.
        pass_of(Some("eth1"), addresses_of(&["10.0.1.20", "10.0.1.21", "10.0.1.201", "10.0.1.202"]), 80),
        pass_of(Some("eth1"), addresses_of(&["10.0.1.201", "10.0.1.202"]), 7),
        // What the mesh publishes, from nodes and from the host; what it publishes here.
        pass_of(Some("eth0"), addresses_of(&["10.0.0.201", "10.0.0.202"]), 80),
        pass_of(Some("eth2"), None, 80),
        pass_of(Some("eth2"), None, 90),
    ];
    wanted.extend(
        [
            pass_of(Some("eth0"), addresses_of(&["10.0.0.201", "10.0.0.202"]), 80),
            pass_of(Some("eth2"), None, 80),
        ]
        .map(|pass| Pass { transport: Transport::Udp, ..pass }),
    );
    wanted.sort();
    assert_eq!(admission.passes, wanted);
}

#[test]
fn by_a_virtual_address_only_this_nodes_own_are_looked_at() {
    let items = items(&[("ketch.allow", "shop:80,*:443,nobody:7")]);
    let told = Told::of(&items, &Known::new());
    let entry = told.services.iter().find(|it| it.service == WEB).unwrap();
    let wanted = vec![pass_of(None, addresses_of(&["10.0.1.20"]), 80), pass_of(None, None, 443)];
    assert_eq!(passes(&told, entry, (NodeId::of(1), FRONT)), Some(wanted));
}

#[test]
fn in_a_stack_its_own_services_come_first() {
    let from = |stack: &str, others: &[&str]| {
        let mut items = items(&[("ketch.allow", "shop:80"), ("com.docker.stack.namespace", stack)]);
        for (number, name) in (20..).zip(others) {
            items.push(Item::Service(ServiceEntry { service: ServiceId::of(number), ..entry(name) }));
        }
        let told = Told::of(&items, &Known::new());
        let entry = told.services.iter().find(|it| it.service == WEB).unwrap();
        passes(&told, entry, (NodeId::of(1), FRONT)).unwrap().len()
    };
    assert_eq!(from("x", &[]), 1, "there is no other of the name");
    assert_eq!(from("x", &["x_shop"]), 0, "it has no task here");
    assert_eq!(from("x", &["y_shop"]), 1);
}

#[test]
fn a_name_means_whom_managers_say_whatever_this_node_is_told_of() {
    let from = |allowed: Option<&[(&str, ServiceId)]>| {
        let mut items = items(&[("ketch.allow", "shop:80"), ("com.docker.stack.namespace", "x")]);
        for item in &mut items {
            if let Item::Service(entry) = item
                && entry.service == WEB
            {
                let names = allowed.map(|names| names.iter().map(|(name, id)| ((*name).to_owned(), *id)));
                entry.allowed = names.map(Iterator::collect);
            }
        }
        let told = Told::of(&items, &Known::new());
        let entry = told.services.iter().find(|it| it.service == WEB).unwrap();
        let is_passed = passes(&told, entry, (NodeId::of(1), FRONT)).unwrap().len();
        let admission = access(&items, &[web(&[])]).admissions.remove(0).unwrap();
        let shop = "10.0.1.20".parse().unwrap();
        let is_in = admission.passes.iter().any(|it| it.from.as_ref().is_some_and(|it| it.contains(&shop)));
        (is_passed, is_in)
    };
    assert_eq!(from(Some(&[("shop", SHOP)])), (1, true));
    assert_eq!(from(Some(&[("shop", ServiceId::of(99))])), (0, false), "x_shop, in another network");
    assert_eq!(from(Some(&[])), (0, false), "there is none");
    assert_eq!(from(None), (1, true), "of an older manager");
}

#[test]
fn what_managers_tell_goes_before_what_the_task_was_made_with() {
    let known = [("ketch.allow", "*:1")];
    assert_eq!(access(&items(&[]), &[web(&known)]).admissions, [None]);
    // In no network of the cluster, or before anything was told.
    let alone = Resident { overlays: Vec::new(), bridges: Vec::new(), ..web(&known) };
    let closed = Admission { passes: vec![pass_of(None, None, 1)] };
    assert_eq!(access(&[], &[alone]).admissions, [Some(closed)]);
}

#[test]
fn published_ports_are_narrowed_on_each_node_and_at_each_task() {
    let given = [("ketch.publish.from", "10.0.0.0/8,fd00::1"), ("ketch.publish.ip", "eth0,10.1.2.3")];
    let access = access(&items(&given), &[web(&[])]);
    let narrowing = Narrowing {
        from: Some(["10.0.0.0/8", "fd00::1/128"].map(|text| prefix(text.parse().unwrap()).unwrap()).to_vec()),
        at: Some(vec![OpenAt::Interface("eth0".to_owned()), OpenAt::Address("10.1.2.3".parse().unwrap())]),
    };
    let mesh = [(Transport::Tcp, 8080), (Transport::Udp, 8080)];
    assert_eq!(access.mesh.0, mesh.map(|port| (port, narrowing.clone())).into());
    assert_eq!(access.narrowed.0, [((Transport::Tcp, 9000), narrowing)].into());
    assert_eq!((access.asked.len(), access.admissions), (2, vec![None]));
}

#[test]
fn what_can_not_be_read_closes() {
    let access = access(&items(&[("ketch.allow", "x"), ("ketch.publish.from", "x")]), &[web(&[])]);
    let shut = Narrowing { from: Some(Vec::new()), at: Some(Vec::new()) };
    let ports: Vec<_> = access.mesh.0.values().chain(access.narrowed.0.values()).collect();
    assert_eq!(ports, [&shut; 3]);
    let admission = access.admissions[0].clone().unwrap();
    assert!(admission.passes.iter().all(|pass| pass.interface.as_deref() != Some("eth1")));
}
