//! The embedded name server towards others: who is asked for what is not known here, servers that are silent or gone, TCP and
//! truncation, and what never leaves.

use ketch_integration::ketchd::Engine;
use ketch_integration::runtime::{Output, Running};
use ketch_integration::{Case, tests, wait_until};

tests![
    others_names_are_asked_for,
    a_silent_server_does_not_hold_up,
    a_server_of_the_containers_network,
    a_long_answer_comes_by_tcp,
    inner_networks_ask_nobody,
    own_addresses_are_nobody_elses,
    search_domains,
    many_holders_of_a_name,
    foreign_names_stay_foreign,
];

/// Answers every question of an address with 192.0.2.99, `big.` with many; writes down what it is asked. `silent`: answers nothing.
const SERVER: &str = r#"
import socket, struct, sys, threading
address, log, how = sys.argv[1:4]
def answer(q, most):
    at, labels = 12, []
    while q[at]:
        labels.append(q[at + 1:at + 1 + q[at]].decode()); at += 1 + q[at]
    name, kind = '.'.join(labels), struct.unpack('>H', q[at + 1:at + 3])[0]
    with open(log, 'a') as f: f.write(name + '\n')
    if how == 'silent': return None
    records = [] if kind != 1 else [bytes([192, 0, 2, n]) for n in (range(1, 101) if name.startswith('big') else [99])]
    body = b''.join(b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 60, 4) + r for r in records)
    if 12 + len(q[12:at + 5]) + len(body) > most:
        return q[:2] + b'\x83\x80' + struct.pack('>HHHH', 1, 0, 0, 0) + q[12:at + 5]
    return q[:2] + b'\x81\x80' + struct.pack('>HHHH', 1, len(records), 0, 0) + q[12:at + 5] + body
def tcp():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((address, 53)); s.listen()
    while True:
        c, _ = s.accept(); n = struct.unpack('>H', c.recv(2))[0]; a = answer(c.recv(n), 65535)
        c.sendall(struct.pack('>H', len(a)) + a); c.close()
threading.Thread(target=tcp, daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((address, 53))
open(log, 'a').close()
while True:
    q, who = u.recvfrom(4096); a = answer(q, 512)
    if a: u.sendto(a, who)
"#;

/// Asks the name server of the namespace that it runs in; prints the addresses, or the code.
const CLIENT: &str = r#"
import socket, struct, sys
name, kind, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
q = b'\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00' + b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\0' + struct.pack('>HH', kind, 1)
if how == 'tcp':
    s = socket.create_connection(('127.0.0.11', 53), 20); s.sendall(struct.pack('>H', len(q)) + q)
    f = s.makefile('rb'); a = f.read(struct.unpack('>H', f.read(2))[0])
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('127.0.0.11', 53)); s.send(q); a = s.recv(65535)
at, found = len(q), []
for _ in range(struct.unpack('>H', a[6:8])[0]):
    while 0 < a[at] < 64: at += 1 + a[at]
    if a[at] == 0: at -= 1
    n = struct.unpack('>H', a[at + 10:at + 12])[0]; found.append(socket.inet_ntoa(a[at + 12:at + 16]) if n == 4 else 'other'); at += 12 + n
print('code', a[3] & 15, 'cut' if a[2] & 2 else 'whole', len(found), ' '.join(found[:3]))
"#;

struct Servers<'a, 'b> {
    engine: &'a Engine<'b>,
    running: Vec<Running>,
}

impl<'a, 'b> Servers<'a, 'b> {
    fn new(engine: &'a Engine<'b>) -> Self {
        Self { engine, running: Vec::new() }
    }

    /// One that answers, and is the only one that the host asks.
    fn answering(engine: &'a Engine<'b>) -> Self {
        let mut servers = Self::new(engine);
        servers.start("10.53.0.1", "answers");
        servers.are_the_hosts(&["10.53.0.1"]);
        servers
    }

    /// Starts one in the machine's namespace.
    fn start(&mut self, address: &str, how: &str) {
        let _ = self.engine.sh(&format!("ip addr add {address}/32 dev lo")).ok();
        let log = self.log(address);
        let server = self.engine.program("timeout").args(["120", "python3", "-c", SERVER, address]);
        self.running.push(server.arg(&log).arg(how).spawn());
        wait_until("the server", || if log.exists() { Ok(()) } else { Err("no server".to_owned()) });
    }

    fn log(&self, address: &str) -> std::path::PathBuf {
        self.engine.site.path(&format!("asked-{address}"))
    }

    fn asked(&self, address: &str) -> String {
        std::fs::read_to_string(self.log(address)).unwrap_or_default()
    }

    /// What containers' resolv.conf begins from.
    fn are_the_hosts(&self, addresses: &[&str]) {
        let file = self.engine.site.path("resolv.conf");
        let text: String = addresses.iter().map(|address| format!("nameserver {address}\n")).collect();
        std::fs::write(&file, text).expect("write a resolv.conf");
        let _ = self.engine.sh(&format!("mount --bind {} /etc/resolv.conf", file.display())).ok();
    }

    fn end(self) {
        let _ = self.engine.sh("while umount /etc/resolv.conf 2>/dev/null; do :; done").ok();
    }
}

fn up(engine: &Engine<'_>, name: &str, flags: &str) {
    let _ = engine.docker(&format!("run -d --name {name} {flags} busybox sleep 1000")).ok();
}

fn ask(engine: &Engine<'_>, container: &str, question: [&str; 3]) -> Output {
    let pid = engine.inspect(container, "{{.State.Pid}}");
    engine.program("nsenter").args(["--target", &pid, "--net", "python3", "-c", CLIENT]).args(question).run().ok()
}

fn others_names_are_asked_for(case: &Case) {
    let engine = Engine::start(case);
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "--network one");
    assert_eq!(ask(&engine, "alpha", ["www.example.test", "1", "udp"]).text(), "code 0 whole 1 192.0.2.99");
    assert_eq!(ask(&engine, "alpha", ["www.example.test", "1", "tcp"]).text(), "code 0 whole 1 192.0.2.99");
    assert!(ask(&engine, "alpha", ["alpha", "1", "udp"]).text().starts_with("code 0 whole 1 172.18.0.2"));
    assert_eq!(ask(&engine, "alpha", ["alpha", "28", "udp"]).text(), "code 0 whole 0");
    assert!(!servers.asked("10.53.0.1").contains("alpha"), "a container's name has left the machine");
    servers.end();
    engine.end();
}

fn a_silent_server_does_not_hold_up(case: &Case) {
    let engine = Engine::start(case);
    let mut servers = Servers::new(&engine);
    servers.start("10.53.0.1", "silent");
    servers.start("10.53.0.3", "answers");
    let _ = engine.sh("ip addr add 10.53.0.2/32 dev lo").ok();
    // One that hears and says nothing, one where nobody is, one that answers.
    servers.are_the_hosts(&["10.53.0.1", "10.53.0.2", "10.53.0.3"]);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "--network one");
    assert_eq!(ask(&engine, "alpha", ["www.example.test", "1", "udp"]).text(), "code 0 whole 1 192.0.2.99");
    if engine.is_ketch() {
        wait_until("no socket of the questions is left", || {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).map(Iterator::count).unwrap_or(0);
            let out = engine.sh("ss -Hnup dst 10.53.0.1");
            if out.text().is_empty() { Ok(()) } else { Err(format!("{fds} descriptors: {out}")) }
        });
    }
    servers.end();
    engine.end();
}

fn a_server_of_the_containers_network(case: &Case) {
    let engine = Engine::start(case);
    let mut servers = Servers::new(&engine);
    servers.start("10.53.0.9", "answers");
    let _ = engine.docker("network create --subnet 10.81.0.0/24 one").ok();
    // It names itself as its server: asked from the machine's namespace that would be another.
    up(&engine, "alpha", "--network one --dns 127.0.0.1");
    let pid = engine.inspect("alpha", "{{.State.Pid}}");
    let log = engine.site.path("asked-inside");
    let inside = engine.program("nsenter").args(["--target", &pid, "--net", "timeout", "120", "python3", "-c", SERVER, "127.0.0.1"]);
    let running = inside.arg(&log).arg("answers").spawn();
    wait_until("the server", || if log.exists() { Ok(()) } else { Err("no server".to_owned()) });
    assert_eq!(ask(&engine, "alpha", ["www.example.test", "1", "udp"]).text(), "code 0 whole 1 192.0.2.99");
    assert_eq!(ask(&engine, "alpha", ["www.example.test", "1", "tcp"]).text(), "code 0 whole 1 192.0.2.99");
    let resolv = engine.docker("exec alpha cat /etc/resolv.conf").ok();
    assert!(resolv.text().contains("# ExtServers: [127.0.0.1]\n# Overrides: [nameservers]\n"), "{resolv}");
    servers.end();
    engine.end();
    drop(running);
}

fn a_long_answer_comes_by_tcp(case: &Case) {
    let engine = Engine::start(case);
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "--network one");
    assert_eq!(ask(&engine, "alpha", ["big.example.test", "1", "udp"]).text(), "code 0 cut 0");
    assert!(ask(&engine, "alpha", ["big.example.test", "1", "tcp"]).text().starts_with("code 0 whole 100 "));
    servers.end();
    engine.end();
}

fn inner_networks_ask_nobody(case: &Case) {
    let engine = Engine::start(case);
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create --internal inner").ok();
    up(&engine, "alpha", "--network inner");
    assert!(ask(&engine, "alpha", ["secret.example.test", "1", "udp"]).text().starts_with("code 2 "));
    assert!(ask(&engine, "alpha", ["alpha", "1", "udp"]).text().starts_with("code 0 "));
    assert_eq!(servers.asked("10.53.0.1"), "");
    servers.end();
    engine.end();
}

fn own_addresses_are_nobody_elses(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("it asks others for the name of an address of its own that nobody has");
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create --subnet 10.81.0.0/24 one").ok();
    up(&engine, "alpha", "--network one");
    assert_eq!(ask(&engine, "alpha", ["2.0.81.10.in-addr.arpa", "12", "udp"]).text(), "code 0 whole 1 other");
    assert_eq!(ask(&engine, "alpha", ["77.0.81.10.in-addr.arpa", "12", "udp"]).text(), "code 3 whole 0");
    assert_eq!(servers.asked("10.53.0.1"), "");
    let _ = ask(&engine, "alpha", ["1.2.0.192.in-addr.arpa", "12", "udp"]);
    assert_eq!(servers.asked("10.53.0.1"), "1.2.0.192.in-addr.arpa\n");
    servers.end();
    engine.end();
}

fn search_domains(case: &Case) {
    let engine = Engine::start(case);
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create one").ok();
    up(&engine, "beta", "--network one");
    up(&engine, "alpha", "--network one --dns-search example.test");
    let resolv = engine.docker("exec alpha cat /etc/resolv.conf").ok();
    assert!(resolv.text().contains("nameserver 127.0.0.11\nsearch example.test\noptions ndots:0\n"), "{resolv}");
    let _ = engine.docker("exec alpha ping -c 1 -W 5 beta").ok();
    servers.end();
    engine.end();
}

fn many_holders_of_a_name(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    for name in ["a1", "a2", "a3"] {
        up(&engine, name, "--network one --network-alias shared");
    }
    let firsts: std::collections::BTreeSet<String> = (0..40)
        .map(|_| ask(&engine, "a1", ["shared", "1", "udp"]))
        .filter_map(|out| out.text().split(' ').nth(4).map(str::to_owned))
        .collect();
    assert_eq!(firsts.len(), 3, "each comes first at times: {firsts:?}");
    let _ = engine.docker("rm -f a2").ok();
    assert!(ask(&engine, "a1", ["shared", "1", "udp"]).text().starts_with("code 0 whole 2 "));
    engine.end();
}

fn foreign_names_stay_foreign(case: &Case) {
    let engine = Engine::start(case);
    let servers = Servers::answering(&engine);
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network create two").ok();
    up(&engine, "alpha", "--network one");
    up(&engine, "beta", "--network two");
    // Another network's container is a name like any other.
    assert_eq!(ask(&engine, "alpha", ["beta", "1", "udp"]).text(), "code 0 whole 1 192.0.2.99");
    servers.end();
    engine.end();
}
