//! ketchd with nothing but its own static binaries: a bare Debian root without nft, iptables, iproute2, runc, containerd, certificates
//! or systemd, and an empty PATH. What asks it is outside, through its socket.

use std::fs;
use std::path::Path;

use ketch_integration::ketchd::{Http, Maker, archive};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};

tests![a_published_port];

/// Made by integration/setup/bare-root.sh.
const ROOT: &str = "/var/cache/ketch/bare/root";
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

fn a_published_port(case: &Case) {
    let Maker::Ketch(program) = Maker::under_test(case) else {
        case.skip("dockerd needs containerd, runc, iptables and more")
    };
    case.needs(Path::new(ROOT).exists(), "no bare root (integration/setup/bare-root.sh)");
    for path in ABSENT {
        assert!(!Path::new(ROOT).join(path).exists(), "the bare root is not bare: {path}");
    }
    let site = Site::new(case);
    for folder in ["mnt", "bin", "shared"] {
        fs::create_dir_all(site.path(folder)).expect("make a folder of the site");
    }
    let beside = program.parent().expect("the folder of the binaries");
    for name in ["ketchd", "ketch", "containerd-shim-ketch-v2"] {
        fs::copy(beside.join(name), site.path("bin").join(name)).expect("copy a binary");
    }
    let args = [Path::new("--mount"), Path::new("sh"), Path::new("-c"), Path::new(ENTER), Path::new(ROOT)].map(Path::to_path_buf);
    let own = [site.path("mnt"), site.path("bin"), site.path("shared"), format!("/{}/site", case.tag).into()];
    let mut daemon = site.daemon("unshare", args.into_iter().chain(own));
    let socket = site.path("shared/ketchd.sock");
    daemon.wait_ready(|| Http::at(&socket).is_ok_and(|http| http.is_served()));

    let tar = fs::read(archive::busybox(&site)).expect("read the archive");
    let mut http = Http::at(&socket).expect("connect to the engine");
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
    daemon.stop();
    assert_eq!(site.processes("containerd-shim"), [] as [i32; 0]);
}
