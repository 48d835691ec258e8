//! Frames that somebody injects into a network of the cluster: a stranger on the wire, a container of a bridge, one with the host's
//! network, a task that claims another's address (CVE-2023-28840, -28841, -28842). Each attack proves itself first, or afterwards:
//! without the rule that stops it, it arrives.
//!
//! A frame is for a port that nobody listens at; whether it arrives, the receiver's kernel counts (`NoPorts` in `/proc/net/snmp`).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ketch_integration::mesh::{Mesh, Node, node_of};
use ketch_integration::wait::DEADLINE;
use ketch_integration::{Case, tests, wait_until};

tests![frames_in_a_nodes_name, a_task_in_anothers_name];

/// How long is waited for a frame that is not to come.
const NEVER: Duration = Duration::from_millis(500);
/// How long one that is to come may take, before another is sent.
const ARRIVES: Duration = Duration::from_secs(2);

/// A task's container in the network.
#[derive(Debug)]
struct Inmate {
    node: usize,
    pid: String,
    address: Ipv4Addr,
}

/// Two nodes, with two tasks each in one network.
struct Field<'a> {
    mesh: Mesh<'a>,
    inmates: Vec<Inmate>,
}

impl<'a> Field<'a> {
    fn new(case: &'a Case) -> Self {
        let mesh = Mesh::formed(case, 1, 1);
        case.needs(mesh.node(1).engine.is_ketch(), "dockerd marks such datagrams with iptables, and its guards are its own");
        let _ = mesh.docker(1, "network create -d overlay front").ok();
        let _ = mesh
            .docker(1, "service create -q -d --name web --network front --replicas 4 10.99.0.254:5000/busybox:1 sleep 1000")
            .ok();
        let running = mesh.wait_running(1, "web", 4, |_| true);
        let nodes = running.iter().filter_map(|line| node_of(line));
        assert_eq!(nodes.filter(|node| *node == 1).count(), 2, "{running:?}");
        let inmates = [1, 2].into_iter().flat_map(|node| inmates(mesh.node(node))).collect();
        Self { mesh, inmates }
    }

    fn on(&self, node: usize) -> (&Inmate, &Inmate) {
        let mut inmates = self.inmates.iter().filter(|inmate| inmate.node == node);
        (inmates.next().expect("a task"), inmates.next().expect("another"))
    }

    /// A frame from a task of the first node for one of the second, as a VXLAN datagram in a file.
    fn frame(&self) -> PathBuf {
        let told = "network inspect front --format '{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}'";
        let vni = self.mesh.docker(1, told).ok().text().parse().expect("a network's number");
        let file = self.mesh.node(1).engine.site.path("frame");
        std::fs::write(&file, frame(vni, (self.on(1).0.address, self.on(2).0.address))).expect("write a frame");
        file
    }

}

/// Whether a task gets what is done, which it is not to.
fn is_reached(inmate: &Inmate, by: impl Fn()) -> bool {
    is_reached_within(NEVER, inmate, by)
}

/// The same of what is to get there, sooner or later on a busy machine.
fn becomes_reached(inmate: &Inmate, by: impl Fn()) -> bool {
    at_last(&|| is_reached_within(ARRIVES, inmate, &by))
}

fn is_reached_within(time: Duration, inmate: &Inmate, by: impl Fn()) -> bool {
    let before = unasked(inmate);
    by();
    let end = Instant::now() + time;
    while unasked(inmate) == before {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// How many datagrams have come to it for ports at which nobody listens.
fn unasked(inmate: &Inmate) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/net/snmp", inmate.pid)).unwrap_or_default();
    let udp = text.lines().filter(|line| line.starts_with("Udp: ")).nth(1);
    let ports = udp.and_then(|line| line.split(' ').nth(2)).and_then(|count| count.parse().ok());
    ports.unwrap_or_else(|| panic!("what the kernel counts for {inmate:?}: {text:?}"))
}

/// What is to be seen is looked for again.
fn at_last(is_so: &dyn Fn() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if is_so() {
            return true;
        }
    }
    false
}

fn inmates(node: &Node<'_>) -> Vec<Inmate> {
    let listed = node.engine.docker("ps --quiet --no-trunc --filter label=com.docker.swarm.service.name=web").ok();
    let inmate = |id: &str| Inmate {
        node: node.number,
        pid: node.engine.inspect(id, "{{.State.Pid}}"),
        address: node.engine.inspect(id, "{{.NetworkSettings.Networks.front.IPAddress}}").parse().expect("an address"),
    };
    listed.text().lines().map(inmate).collect()
}

/// An Ethernet address as the cluster has it for an address.
fn mac(address: Ipv4Addr) -> Vec<u8> {
    [[2, 0x42].as_slice(), &address.octets()].concat()
}

/// A VXLAN header, and in it a datagram for port 9999.
fn frame(vni: u32, (from, to): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(from.octets().into_iter().chain(to.octets()));
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("two bytes");
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [0x27, 0x0f, 0x27, 0x0f, 0, 10, 0, 0, b'h', b'i'];
    [[8, 0, 0, 0].as_slice(), &(vni << 8).to_be_bytes(), &mac(to), &mac(from), &[8, 0], &ip, &udp].concat()
}

/// The command that sends a file as one datagram to the second node's data port.
fn sending(frame: &Path) -> String {
    format!("cat {} >/dev/udp/10.99.0.2/4789", frame.display())
}

/// Without the rules of a node: its agent, which would write them again, hangs for a moment.
fn without_rules<T>(node: &Node<'_>, work: impl FnOnce() -> T) -> T {
    let tables = || node.engine.sh("nft list tables").ok().text().to_owned();
    let name = tables().lines().find_map(|line| line.split(' ').find(|word| word.ends_with("-vxlan")).map(str::to_owned));
    let name = name.unwrap_or_else(|| panic!("the node's rules: {}", tables()));
    node.freeze();
    let _ = node.engine.sh(&format!("nft delete table ip {name}")).ok();
    let done = work();
    node.thaw();
    wait_until("the node's rules are back", || {
        if tables().contains(&name) { Ok(()) } else { Err(tables()) }
    });
    done
}

fn frames_in_a_nodes_name(case: &Case) {
    let field = Field::new(case);
    let (mesh, victim) = (&field.mesh, field.on(2).0);
    let frame = field.frame();
    let inside = |pid: &str| {
        let line = format!("nsenter --net=/proc/{pid}/ns/net bash -c '{}'", sending(&frame));
        let node = mesh.node(1);
        // What is dropped at its node's output is refused.
        move || drop(node.engine.sh(&line))
    };
    let container = |name: &str, network: &str| {
        let run = format!("run -d --name {name} --network {network} 10.99.0.254:5000/busybox:1 sleep 1000");
        let _ = mesh.docker(1, &run).ok();
        mesh.node(1).engine.inspect(name, "{{.State.Pid}}")
    };

    let stranger = mesh.wire().connected(9);
    let send = || drop(stranger.run("bash", ["-c", &sending(&frame)]));
    assert!(!is_reached(victim, send), "a stranger's frame arrives");
    let reached = without_rules(mesh.node(2), || becomes_reached(victim, send));
    assert!(reached, "the stranger's frame is well made");

    let (bridged, host) = (container("bridged", "bridge"), container("hosted", "host"));
    for (which, pid) in [("a bridge", &bridged), ("the host's network", &host), ("the network itself", &field.on(1).0.pid)] {
        assert!(!is_reached(victim, inside(pid)), "a frame of a container of {which} arrives");
        let reached = without_rules(mesh.node(1), || becomes_reached(victim, inside(pid)));
        assert!(reached, "a frame of a container of {which} is well made");
        assert!(!is_reached(victim, inside(pid)), "a frame of a container of {which} arrives again");
    }
    let _ = mesh.docker(1, "rm -f bridged hosted").ok();
    field.mesh.end();
}

fn a_task_in_anothers_name(case: &Case) {
    let field = Field::new(case);
    let mesh = &field.mesh;
    let ((thief, near), far) = (field.on(1), field.on(2).0);
    let node = mesh.node(1);
    let run = |inmate: &Inmate, line: &str| {
        node.engine.program("nsenter").arg(format!("--net=/proc/{}/ns/net", inmate.pid)).args(["sh", "-c", line]).run()
    };
    let shown = run(thief, &format!("ip -o -4 address show to {} | cut -d' ' -f2", thief.address)).ok();
    let interface = shown.text().trim();
    // An address of the network that nobody has, and that whoever may write packets may write into them.
    let claimed = Ipv4Addr::from(u32::from(thief.address) & !0xff | 250);
    let claim = format!("ip address add {claimed}/32 dev {interface}");
    let _ = run(thief, &claim).ok();
    let send = |to: &Inmate, from: Ipv4Addr| {
        let line = format!(
            "ip route replace {0}/32 dev {interface} src {from}; bash -c 'echo >/dev/udp/{0}/9999'",
            to.address
        );
        is_reached(to, || drop(run(thief, &line)))
    };
    // Whether somebody near takes the thief for whom it says it is.
    let is_believed = || {
        let line = format!("ip neighbour flush all; bash -c 'echo >/dev/udp/{claimed}/9999'; sleep 0.3; ip neighbour show {claimed}");
        let mac = mac(thief.address).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        run(near, &line).text().contains(&mac)
    };
    for to in [near, far] {
        assert!(at_last(&|| send(to, thief.address)), "as what it is, to node {}", to.node);
        assert!(!send(to, claimed), "in another's name, to node {}", to.node);
    }
    assert!(!is_believed(), "its answers for another's address are believed");
    let id = mesh.docker(1, "network inspect front --format '{{.Id}}'").ok().text().to_owned();
    let space = node.engine.site.path("exec/overlays").join(id);
    let delete = format!("nsenter --net={} nft delete table bridge ketch-ports", space.display());
    // As often as it is tried: the agent writes it anew when something changes.
    let unguarded = |is_so: &dyn Fn() -> bool| {
        at_last(&|| {
            drop(node.engine.sh(&delete));
            is_so()
        })
    };
    assert!(unguarded(&|| send(near, claimed)) && unguarded(&|| send(far, claimed)), "what it sends in another's name is well made");
    assert!(unguarded(&is_believed), "its answers are well made");
    field.mesh.end();
}
