//! The features document, as containerd and dockerd read it: the current ones, as Debian's are older than the document.

use std::fs;

use ketch_integration::containerd::{Age, Containerd, Cri};
use ketch_integration::shim::{Shim, peer};
use ketch_integration::{Case, tests};
use serde_json::{Value, json};

tests![containerd_reads_it_through_its_shim, dockerd_reads_it_at_its_start];

/// What the runtime says by itself. Its readers know fields of runtime-spec 1.2 or later, and drop the others.
fn document(case: &Case) -> Value {
    case.needs_runc(1, 2, "has fewer features, and claims fewer");
    case.bare().arg("features").run().ok().json()
}

fn assert_same(read: &Value, own: &Value) {
    for part in ["/ociVersionMin", "/ociVersionMax", "/hooks", "/mountOptions", "/annotations"] {
        assert_eq!(read.pointer(part), own.pointer(part), "{part}");
    }
    for part in ["namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "mountExtensions"] {
        assert_eq!(read["linux"][part], own["linux"][part], "{part}");
    }
}

fn containerd_reads_it_through_its_shim(case: &Case) {
    let own = document(case);
    let containerd = Containerd::with_shim(case, Age::V2, Cri::Off, Shim::go2());
    let runtime = containerd.runtime();
    let inspect = ["plugins", "inspect-runtime", "--runtime", "io.containerd.runc.v2", "--runc-binary", &runtime];
    let info = containerd.ctr(inspect).ok().json();
    assert_same(&info["Features"], &own);
    containerd.end();
}

fn dockerd_reads_it_at_its_start(case: &Case) {
    let own = document(case);
    case.needs(peer("dockerd").exists(), "no current dockerd (make peers)");
    case.needs(case.has_program("curl"), "no curl (package curl)");
    let containerd = Containerd::with_shim(case, Age::V2, Cri::Off, Shim::go2());
    let site = &containerd.site;
    let socket = site.path("docker.sock");
    let configuration = json!({
        "runtimes": { "tested": { "path": case.runtime.path } }, "default-runtime": "tested", "storage-driver": "vfs",
        "features": { "containerd-snapshotter": false }, "iptables": false, "ip6tables": false, "bridge": "none",
        "exec-opts": ["native.cgroupdriver=cgroupfs"], "data-root": site.path("data"), "exec-root": site.path("exec"),
        "pidfile": site.path("docker.pid"), "hosts": [format!("unix://{}", socket.display())],
        "containerd": containerd.socket(),
    });
    let file = site.path("daemon.json");
    fs::write(&file, configuration.to_string()).expect("write dockerd's configuration");
    let program = peer("dockerd").display().to_string();
    let mut daemon = site.daemon(&program, [std::ffi::OsStr::new("--config-file"), file.as_os_str()]);
    let ask = |path: &str| {
        let url = format!("http://docker/{path}");
        let socket = socket.display().to_string();
        site.run("curl", ["--silent", "--fail", "--unix-socket", &socket, &url])
    };
    daemon.wait_ready(|| ask("_ping").code == 0);
    let info = ask("info").ok().json();
    let text = info["Runtimes"]["tested"]["status"]["org.opencontainers.runtime-spec.features"].clone();
    let read: Value = serde_json::from_str(text.as_str().unwrap_or_else(|| panic!("{}", info["Runtimes"]))).expect("JSON");
    assert_same(&read, &own);
    daemon.stop();
    containerd.end();
}
