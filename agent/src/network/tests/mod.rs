//! Networks in the kernel: each test has a network and a mount namespace of its own, a store of its own, and sandboxes whose
//! processes are threads of the test. They need root, and say so when they do not run.

mod access;
mod overlay;
mod ports;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_engine_api::network::{EndpointSettings, NetworkCreateRequest, PortBinding};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::firewall::Families;
use super::link::Links;
use super::settings::{DefaultBridge, Settings};
use super::{Join, Joined, Mode, Networks, ipam, namespace};
use crate::events::Events;
use crate::scratch::{self, Folder};
use crate::store::Store;

struct World {
    folder: PathBuf,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn open(&self) -> Networks {
        let settings = Settings {
            namespaces: self.folder.join("netns"),
            sandboxes: self.folder.join("sandboxes"),
            spaces: self.folder.join("overlays"),
            default_options: BTreeMap::new(),
            direct_routing: false,
            forwarding_for_all: false,
            bridge: Some(DefaultBridge::default()),
            pools: ipam::default_pools(),
            firewall: Families { ipv4: true, ipv6: true },
            forwarding: true,
            servers: Vec::new(),
            search: Vec::new(),
            options: Vec::new(),
            publish_at: IpAddr::from([0, 0, 0, 0]),
            host_gateways: Vec::new(),
        };
        let _entered = self.runtime.enter();
        Networks::open(settings, self.store.clone(), Arc::new(Events::default())).unwrap()
    }

    fn join(&self, networks: &Networks, name: &str, mode: &str, ports: &[(&str, &str, &str)]) -> Joined {
        networks.join(&self.wanted(name, mode, ports)).unwrap()
    }

    fn wanted(&self, name: &str, mode: &str, ports: &[(&str, &str, &str)]) -> Join {
        let folder = self.folder.join(name);
        let _there = std::fs::create_dir(&folder);
        Join {
            places: BTreeMap::new(),
            service: None,
            container: format!("{name:0<64}"),
            name: name.to_owned(),
            hostname: format!("{name}-host"),
            domain: String::new(),
            mode: Mode::of(mode),
            endpoints: BTreeMap::new(),
            bindings: ports
                .iter()
                .map(|(port, ip, host)| {
                    let binding = PortBinding { host_ip: (*ip).to_owned(), host_port: (*host).to_owned() };
                    ((*port).to_owned(), Some(vec![binding]))
                })
                .collect(),
            exposed: ports.iter().map(|(port, _, _)| (*port).to_owned()).collect(),
            publish_all: false,
            links: Vec::new(),
            extra_hosts: Vec::new(),
            servers: Vec::new(),
            search: Vec::new(),
            options: Vec::new(),
            folder,
            owner: (0, 0),
            made: None,
        }
    }
}

/// Runs a test in namespaces of its own.
fn alone(test: impl FnOnce(&World) + Send) {
    if !scratch::is_root("network namespaces need") {
        return;
    }
    // Removed when the namespaces, and with them their mounts, are gone.
    let scratch = Folder::new("networks");
    std::thread::scope(|scope| {
        let run = || {
            #[expect(deprecated, reason = "unsafe for CLONE_FILES only")]
            rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let sysfs = Command::new("mount").args(["-t", "sysfs", "sysfs", "/sys"]).status();
            assert!(sysfs.is_ok_and(|status| status.success()));
            Links::open().unwrap().up(1).unwrap();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let world = World {
                folder: scratch.path().to_owned(),
                store: Store::open(&scratch.path().join("store")).unwrap(),
                runtime,
            };
            test(&world);
        };
        std::thread::Builder::new().spawn_scoped(scope, run).unwrap().join().unwrap();
    });
}

fn network(networks: &Networks, body: &str) -> String {
    networks.create(serde_json::from_str::<NetworkCreateRequest>(body).unwrap()).unwrap()
}

fn address(joined: &Joined, network: &str) -> IpAddr {
    joined.settings.networks[network].ip_address.parse().unwrap()
}

fn listen(joined: &Joined, port: u16) -> TcpListener {
    let path = joined.namespace.as_deref().unwrap();
    namespace::enter(path, || Ok(TcpListener::bind(("0.0.0.0", port)).unwrap())).unwrap()
}

/// Connects, as [`attempt`] does, for as long as it takes: a first packet may be lost while links come up.
fn reach(from: Option<&Joined>, to: (IpAddr, u16), server: &TcpListener) -> Option<IpAddr> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = attempt(from, to, server);
        if seen.is_some() || Instant::now() > deadline {
            return seen;
        }
    }
}

/// Connects once from a sandbox, or, without one, from the host; gives the client's address as the server sees it.
fn attempt(from: Option<&Joined>, to: (IpAddr, u16), server: &TcpListener) -> Option<IpAddr> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_millis(700));
    let mut client = match from {
        Some(joined) => namespace::enter(joined.namespace.as_deref().unwrap(), || Ok(connect())).unwrap(),
        None => connect(),
    }
    .ok()?;
    client.write_all(b"x").unwrap();
    let (mut accepted, peer) = server.accept().unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    Some(peer.ip())
}

fn nft(arguments: &[&str]) -> String {
    let out = Command::new("nft").args(arguments).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
        .unwrap_or_default()
}

/// The kernel takes the links of ended namespaces away in its own time.
fn wait_for_links(are: impl Fn(&BTreeSet<String>) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !are(&link_names()) {
        assert!(Instant::now() < deadline, "{:?}", link_names());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn link_names() -> BTreeSet<String> {
    Links::open().unwrap().list().unwrap().into_iter().map(|link| link.name).collect()
}

#[test]
fn containers_of_a_bridge_reach_each_other_and_leave_nothing() {
    alone(|world| {
        let networks = world.open();
        let before = link_names();
        let one = world.join(&networks, "one", "default", &[]);
        let two = world.join(&networks, "two", "bridge", &[]);
        assert_eq!(
            (address(&one, "bridge"), address(&two, "bridge")),
            ([172, 17, 0, 2].into(), [172, 17, 0, 3].into())
        );
        let server = listen(&two, 80);
        assert_eq!(reach(Some(&one), ([172, 17, 0, 3].into(), 80), &server), Some([172, 17, 0, 2].into()));
        assert_eq!(reach(None, ([172, 17, 0, 3].into(), 80), &server), Some([172, 17, 0, 1].into()));
        let hosts = std::fs::read_to_string(&one.hosts).unwrap();
        assert!(hosts.ends_with("172.17.0.2\tone-host\n"), "{hosts}");
        let shown = networks.show(&networks.find("bridge").unwrap(), true);
        assert_eq!(shown.containers.len(), 2);
        for name in ["one", "two"] {
            networks.leave(&format!("{name:0<64}")).unwrap();
        }
        wait_for_links(|names| *names == before);
        assert_eq!(std::fs::read_dir(world.folder.join("netns")).unwrap().count(), 0);
    });
}

/// Asks from a sandbox; gives the code and the bytes of each answer's data.
fn ask(joined: &Joined, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, u8::try_from(kind).unwrap(), 0, 1]);
    let socket = namespace::enter(joined.namespace.as_deref().unwrap(), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _length = socket.send(&query).unwrap();
        Ok(socket)
    })
    .unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    let (mut at, mut found) = (query.len(), Vec::new());
    while at < length {
        let size = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        found.push(answer[at + 12..at + 12 + size].to_vec());
        at += 12 + size;
    }
    (answer[3] & 15, found)
}

#[test]
fn containers_of_a_network_know_each_other_by_name() {
    alone(|world| {
        let networks = world.open();
        let _id = network(&networks, r#"{"Name":"front","Internal":true}"#);
        let web = world.join(&networks, "web", "front", &[]);
        let mut wanted = world.wanted("db", "front", &[]);
        let asked =
            EndpointSettings { aliases: Some(vec!["store".to_owned()]), ..EndpointSettings::default() };
        let _none = wanted.endpoints.insert("front".to_owned(), asked);
        let db = networks.join(&wanted).unwrap();
        let own = match address(&db, "front") {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(_) => unreachable!(),
        };
        for name in ["db", "store", "DB.front", "db0000000000", "db-host"] {
            assert_eq!(ask(&web, name, 1), (0, vec![own.clone()]), "{name}");
        }
        assert_eq!(ask(&web, "db", 28), (0, vec![]));
        assert_eq!(ask(&web, "3.0.18.172.in-addr.arpa", 12), (0, vec![b"\x02db\x05front\0".to_vec()]));
        assert_eq!(ask(&web, "nosuch", 1), (2, vec![]));
        let resolv = std::fs::read_to_string(&web.resolv_conf).unwrap();
        assert!(
            resolv.contains("nameserver 127.0.0.11\n") && resolv.contains("options ndots:0\n"),
            "{resolv}"
        );
        networks.leave(&format!("{:0<64}", "db")).unwrap();
        assert_eq!(ask(&web, "db", 1), (2, vec![]));
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    alone(|world| {
        let networks = world.open();
        let _id = network(&networks, r#"{"Name":"back","EnableIPv6":true}"#);
        let one = world.join(&networks, "one", "bridge", &[("80/tcp", "", "8080")]);
        let two = world.join(&networks, "two", "back", &[]);
        let server = listen(&two, 80);
        let there = (address(&two, "back"), 80);
        assert_eq!(attempt(Some(&one), there, &server), None);
        let container = format!("{:0<64}", "one");
        networks.connect("back", &container, EndpointSettings::default()).unwrap();
        assert!(reach(Some(&one), there, &server).is_some());
        assert_eq!(ask(&one, "two", 1).0, 0);
        let settings = networks.settings(&container).unwrap();
        assert!(!settings.networks["back"].global_ipv6_address.is_empty());
        let twice = networks.connect("back", &container, EndpointSettings::default()).unwrap_err();
        assert_eq!(twice.message, "endpoint with name one already exists in network back");
        let used = networks.remove("back").unwrap_err().message;
        assert!(
            used.starts_with("error while removing network: network back has active endpoints (name:"),
            "{used}"
        );
        networks.disconnect("back", &container).unwrap();
        assert_eq!(attempt(Some(&one), there, &server), None);
        networks.leave(&format!("{:0<64}", "two")).unwrap();
        let _removed = networks.remove("back").unwrap();
    });
}

#[test]
fn a_daemon_that_starts_again_keeps_what_runs_and_removes_the_rest() {
    alone(|world| {
        let networks = world.open();
        let _id = network(&networks, r#"{"Name":"front"}"#);
        let web = world.join(&networks, "web", "front", &[("80/tcp", "", "8080")]);
        let _gone = world.join(&networks, "gone", "front", &[("80/tcp", "", "8081")]);
        let server = listen(&web, 80);
        std::fs::write(world.folder.join("netns/stranger"), "").unwrap();
        // As a daemon that is killed: nothing is given back but what ends with its sockets.
        drop(networks);
        let networks = world.open();
        networks.keep(&BTreeSet::from([format!("{:0<64}", "web")])).unwrap();
        assert!(reach(None, ([127, 0, 0, 1].into(), 8080), &server).is_some());
        assert_eq!(ask(&web, "web", 1).0, 0);
        let files = |path: &Path| std::fs::read_dir(path).unwrap().count();
        assert_eq!(files(&world.folder.join("netns")), 1);
        wait_for_links(|names| names.iter().filter(|name| name.starts_with("veth")).count() == 1);
        assert!(!nft(&["list", "ruleset"]).contains("8081"));
        let fresh = world.join(&networks, "fresh", "front", &[("80/tcp", "", "8081")]);
        assert_eq!(address(&fresh, "front"), IpAddr::from([172, 18, 0, 3]));
    });
}

#[test]
fn host_none_and_anothers() {
    alone(|world| {
        let networks = world.open();
        let host = world.join(&networks, "host", "host", &[("80/tcp", "", "8080")]);
        assert_eq!((host.namespace.clone(), host.settings.ports.len()), (None, 0));
        let none = world.join(&networks, "none", "none", &[]);
        let path = none.namespace.clone().unwrap();
        let links = namespace::enter(&path, || Ok(Links::open().unwrap().list().unwrap().len())).unwrap();
        assert_eq!(links, 1);
        let shared = world.join(&networks, "shared", &format!("container:{:0<64}", "none"), &[]);
        assert_eq!(shared.namespace, Some(path));
    });
}

/// Prints what a start and an end take with few others, and with many: nothing in either looks at all of them.
#[test]
fn many_others() {
    alone(|world| {
        let networks = world.open();
        let _id = network(&networks, r#"{"Name":"front"}"#);
        let mut took = Vec::new();
        let count = 160;
        for number in 0..count {
            let began = Instant::now();
            let joined = world.join(&networks, &format!("c{number:03}"), "front", &[("80/tcp", "", "")]);
            took.push(began.elapsed());
            assert_eq!(joined.settings.ports["80/tcp"].as_ref().unwrap().len(), 2);
        }
        let mean = |some: &[Duration]| some.iter().sum::<Duration>() / 20;
        eprintln!(
            "a start took {:?} of the first 20, {:?} of the last",
            mean(&took[..20]),
            mean(&took[140..])
        );
        let shown = networks.show(&networks.find("front").unwrap(), true);
        let addresses: BTreeSet<_> = shown.containers.values().map(|one| &one.ipv4_address).collect();
        assert_eq!(addresses.len(), count);
        let began = Instant::now();
        for number in 0..count {
            networks.leave(&format!("{:0<64}", format!("c{number:03}"))).unwrap();
        }
        eprintln!("an end took {:?}", began.elapsed() / 160);
        wait_for_links(|names| !names.iter().any(|name| name.starts_with("veth")));
        let sandboxes = world.folder.join("sandboxes");
        wait_for_links(|_| std::fs::read_dir(&sandboxes).unwrap().count() == 0);
        assert!(!nft(&["list", "ruleset"]).contains("0.0.2 . 80"));
    });
}
