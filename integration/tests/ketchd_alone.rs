//! ketchd with nothing but its own static binaries: a bare Debian root without nft, iptables, iproute2, runc, containerd, certificates
//! or systemd, and an empty PATH. What asks it is outside, through its socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_integration::ketchd::{Http, Maker, archive, words};
use ketch_integration::mesh::Wire;
use ketch_integration::runtime::Output;
use ketch_integration::shim::peer;
use ketch_integration::site::{Daemon, Site};
use ketch_integration::{Case, tests, wait_until, wait_within};

tests![a_published_port, two_nodes_of_a_cluster];

/// Made by integration/setup/bare-root.sh.
const ROOT: &str = "/var/cache/ketch/bare/root";
/// How long parts of a cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the agent must not need.
const ABSENT: &[&str] = &[
    "usr/sbin/nft", "usr/sbin/iptables", "usr/bin/ip", "usr/sbin/ip", "usr/sbin/runc", "usr/bin/containerd", "usr/bin/dockerd",
    "usr/bin/systemctl", "usr/lib/systemd/systemd", "etc/ssl/certs/ca-certificates.crt", "usr/bin/wget", "usr/bin/curl",
];
/// Copy-on-write over the bare root, so that it stays as it was built; the daemon is what the root's first process becomes.
const ENTER: &str = r#"
    set -e
    mount -t tmpfs alone "$1"
    mkdir "$1/up" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=$0,upperdir=$1/up,workdir=$1/work" alone "$1/root"
    root=$1/root
    mount --rbind /proc $root/proc
    mount --rbind /dev $root/dev
    mount -t sysfs -o nosuid,nodev,noexec sysfs $root/sys
    mount --rbind /sys/fs/cgroup $root/sys/fs/cgroup
    mount -t tmpfs -o mode=755 run $root/run
    # No name server is near, which is heard at once.
    echo 'nameserver 127.0.0.1' >$root/etc/resolv.conf
    mkdir -p $root/var/lib/ketchd $root/opt/ketch $root/shared $root/.old
    mount -t tmpfs data $root/var/lib/ketchd
    mount --bind "$2" $root/opt/ketch
    mount --bind "$3" $root/shared
    cd $root
    pivot_root . .old
    cd /
    umount -l /.old
    exec env -i PATH=/nowhere /opt/ketch/ketchd --host unix:///shared/ketchd.sock --cgroup-parent "$4"
"#;

/// A daemon in a bare root.
struct Alone<'a> {
    site: Site<'a>,
    daemon: Daemon,
    socket: PathBuf,
}

impl<'a> Alone<'a> {
    /// Starts one in a site; its binaries are all that is brought along.
    fn start(site: Site<'a>) -> Self {
        let Maker::Ketch(program) = Maker::under_test(site.case) else {
            site.case.skip("dockerd needs containerd, runc, iptables and more")
        };
        site.case.needs(Path::new(ROOT).exists(), "no bare root (integration/setup/bare-root.sh)");
        for path in ABSENT {
            assert!(!Path::new(ROOT).join(path).exists(), "the bare root is not bare: {path}");
        }
        for folder in ["mnt", "bin", "shared", "config"] {
            fs::create_dir_all(site.path(folder)).expect("make a folder of the site");
        }
        let beside = program.parent().expect("the folder of the binaries");
        for name in ["ketchd", "ketch", "containerd-shim-ketch-v2"] {
            fs::copy(beside.join(name), site.path("bin").join(name)).expect("copy a binary");
        }
        let args = [Path::new("--mount"), Path::new("sh"), Path::new("-c"), Path::new(ENTER), Path::new(ROOT)].map(Path::to_path_buf);
        let name = site.dir.file_name().unwrap_or_default().display();
        let parent = format!("/{}/{name}", site.case.tag);
        let own = [site.path("mnt"), site.path("bin"), site.path("shared"), parent.into()];
        let mut daemon = site.daemon("unshare", args.into_iter().chain(own));
        let socket = site.path("shared/ketchd.sock");
        daemon.wait_ready(|| Http::at(&socket).is_ok_and(|http| http.is_served()));
        Self { site, daemon, socket }
    }

    /// A command of the docker command line, which is outside.
    fn docker(&self, line: &str) -> Output {
        let client = self.site.command(peer("docker")).env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        client.env("DOCKER_CONFIG", self.site.path("config")).args(words::split(line)).run()
    }

    /// Ends it; nothing of its own runs on.
    fn stop(self) {
        self.daemon.stop();
        assert_eq!(self.site.processes("containerd-shim"), [] as [i32; 0]);
    }
}

fn a_published_port(case: &Case) {
    let alone = Alone::start(Site::new(case));
    let (site, socket) = (&alone.site, &alone.socket);

    let tar = fs::read(archive::busybox(site)).expect("read the archive");
    let mut http = Http::at(socket).expect("connect to the engine");
    http.send(format!("POST /images/load HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n", tar.len()).as_bytes());
    http.send(&tar);
    assert!(http.answer(false).is(200).body.contains("Loaded image: busybox:latest"));
    let json = ["Content-Type: application/json"];
    let body = r#"{"Image": "busybox", "Cmd": ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}"#;
    let _ = http.call("POST", "/containers/create?name=web", &json, body).is(201);
    let _ = http.call("POST", "/containers/web/start", &[], "").is(204);
    wait_until("a page of the container", || {
        let out = site.run("busybox", ["timeout", "5", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/group"]);
        if out.stdout.contains("extra:x:2000:user") { Ok(()) } else { Err(out.to_string()) }
    });
    // From another machine: a namespace behind a pair of interfaces.
    let script = r#"
        set -e
        ip netns add other
        ip link add outside type veth peer name inside netns other
        ip address add 10.99.0.1/24 dev outside
        ip link set outside up
        ip -n other address add 10.99.0.2/24 dev inside
        ip -n other link set inside up
        for try in 1 2 3 4 5 6 7 8 9 10; do
            ip netns exec other busybox timeout 5 busybox wget -qO- http://10.99.0.1:8080/group && break
        done
        ip netns delete other
    "#;
    let out = site.run("sh", ["-c", script]).ok();
    assert!(out.stdout.contains("extra:x:2000:user"), "{out}");
    // By the name server of a network of one's own, and to another container by its name.
    let _ = http.call("POST", "/networks/create", &json, r#"{"Name": "net"}"#).is(201);
    let _ = http.call("POST", "/networks/net/connect", &json, r#"{"Container": "web"}"#).is(200);
    let body = r#"{"Image": "busybox", "Cmd": ["busybox", "wget", "-qO-", "http://web/group"], "HostConfig": {"NetworkMode": "net"}}"#;
    let _ = http.call("POST", "/containers/create?name=asks", &json, body).is(201);
    let _ = http.call("POST", "/containers/asks/start", &[], "").is(204);
    let ended = http.call("POST", "/containers/asks/wait", &[], "").is(200).json();
    assert_eq!(ended["StatusCode"], 0, "{:?}", http.call("GET", "/containers/asks/logs?stdout=1&stderr=1", &[], ""));
    for name in ["asks", "web"] {
        let _ = http.call("DELETE", &format!("/containers/{name}?force=1"), &[], "").is(204);
    }
    drop(http);
    alone.stop();
}

/// One command makes a node: it has its task's image, network and port without another program.
fn two_nodes_of_a_cluster(case: &Case) {
    case.needs(peer("docker").exists(), "no current docker command line (make peers)");
    let wire = Wire::new(case);
    let nodes = [1, 2].map(|number| Alone::start(wire.connected(number)));
    let tar = archive::busybox(wire.site());
    for node in &nodes {
        let _ = node.docker(&format!("load --quiet --input {}", tar.display())).ok();
    }
    let [first, second] = &nodes;
    let _ = first.docker("swarm init").ok();
    let token = first.docker("swarm join-token --quiet worker").ok();
    let joined = second.docker(&format!("swarm join --token {} 10.99.0.1:2377", token.text())).ok();
    assert_eq!(joined.text(), "This node joined a swarm as a worker.");
    let line = "service create -q -d --no-resolve-image --name web --replicas 2 --publish 8080:80 --stop-grace-period 0s busybox httpd -f -p 80 -h /etc";
    let _ = first.docker(line).ok();
    wait_within(PATIENCE, "a task on each", || {
        let out = first.docker("service ps --filter desired-state=running --format '{{.Node}} {{.CurrentState}}' web");
        let runs = |name: &str| out.stdout.lines().any(|line| line.starts_with(&format!("{name} Running")));
        if runs("node1") && runs("node2") { Ok(()) } else { Err(out.to_string()) }
    });
    for node in [1, 2] {
        // In turn, so that some are the other node's.
        for _ in 0..4 {
            wait_within(PATIENCE, "a page by each node", || {
                let url = format!("http://10.99.0.{node}:8080/group");
                let out = wire.site().run("curl", ["--silent", "--max-time", "5", &url]);
                if out.stdout.contains("extra:x:2000:user") { Ok(()) } else { Err(out.to_string()) }
            });
        }
    }
    for node in nodes.iter().rev() {
        let _ = node.docker("swarm leave --force").ok();
        assert_eq!(node.docker("ps --all --quiet").ok().text(), "");
    }
    nodes.into_iter().for_each(Alone::stop);
}
