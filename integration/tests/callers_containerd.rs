//! Debian's containerd with its runc shim, whose `BinaryName` is the runtime under test: `ctr run` and `ctr task`.

use std::fs;

use ketch_integration::site::Daemon;
use ketch_integration::{Case, Output, Site, tests, wait_until};

tests![a_task_runs_and_its_exit_code_comes_back, a_task_lives_through_exec_pause_metrics_and_kill];

struct Containerd<'a> {
    site: Site<'a>,
    daemon: Option<Daemon>,
}

impl<'a> Containerd<'a> {
    fn start(case: &'a Case) -> Self {
        case.native_only("containerd 1.6 asks for controllers that the private v2 layout lacks");
        case.needs(case.has_program("containerd") && case.has_program("ctr"), "no containerd (package containerd)");
        let site = Site::new(case);
        let config = site.path("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            site.path("root"),
            site.path("state"),
            site.path("containerd.sock")
        );
        fs::write(&config, text).expect("write containerd's configuration");
        let mut daemon = site.daemon("containerd", [std::ffi::OsStr::new("--config"), config.as_os_str()]);
        let started = Self { site, daemon: None };
        daemon.wait_ready(|| started.ctr(["version"]).code == 0);
        let started = Self { daemon: Some(daemon), ..started };
        let archive = started.image();
        let _ = started.ctr(["images", "import", archive.as_str()]).ok();
        started
    }

    fn ctr<const N: usize>(&self, args: [&str; N]) -> Output {
        let address = self.site.path("containerd.sock").display().to_string();
        let head = ["--address", address.as_str(), "--namespace", self.site.case.tag.as_str()];
        self.site.run("ctr", head.into_iter().chain(args))
    }

    /// An OCI archive of the busybox image: containerd imports no bare root file system.
    fn image(&self) -> String {
        let layer = self.site.busybox_tar();
        let script = r#"
            set -e; cd "$0"; mkdir -p oci/blobs/sha256
            put() { d=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" oci/blobs/sha256/$d; echo $d; }
            size() { stat -c %s "$1"; }
            layer=$(put "$1")
            printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $layer >config.json
            config=$(put config.json)
            printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' $config $(size config.json) $layer $(size "$1") >manifest.json
            manifest=$(put manifest.json)
            printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"test.local/busybox:1"}}]}' $manifest $(size manifest.json) >oci/index.json
            printf '{"imageLayoutVersion":"1.0.0"}' >oci/oci-layout
            tar -C oci -cf image-oci.tar .
        "#;
        let dir = self.site.dir.as_os_str();
        let _ = self.site.run("bash", [std::ffi::OsStr::new("-c"), script.as_ref(), dir, layer.as_os_str()]).ok();
        self.site.path("image-oci.tar").display().to_string()
    }

    fn runtime(&self) -> String {
        self.site.case.runtime.path.display().to_string()
    }

    fn end(mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

const IMAGE: &str = "test.local/busybox:1";

fn a_task_runs_and_its_exit_code_comes_back(case: &Case) {
    let containerd = Containerd::start(case);
    let runtime = containerd.runtime();
    let run = ["run", "--rm", "--snapshotter", "native", "--runc-binary", &runtime, IMAGE, "one", "/bin/sh", "-c", "echo from inside; exit 3"];
    let out = containerd.ctr(run).exits(3);
    assert_eq!(out.text(), "from inside");
    containerd.end();
}

fn a_task_lives_through_exec_pause_metrics_and_kill(case: &Case) {
    let containerd = Containerd::start(case);
    let runtime = containerd.runtime();
    let run = ["run", "--detach", "--snapshotter", "native", "--runc-binary", &runtime, IMAGE, "two", "/bin/sleep", "1000"];
    let _ = containerd.ctr(run).ok();
    assert!(containerd.ctr(["task", "ls"]).ok().text().contains("RUNNING"));
    let id = containerd.ctr(["task", "exec", "--exec-id", "e", "two", "/bin/id", "-u"]).ok();
    assert_eq!(id.text(), "0");
    let _ = containerd.ctr(["task", "exec", "--exec-id", "f", "two", "/bin/sh", "-c", "exit 5"]).exits(5);
    let _ = containerd.ctr(["task", "pause", "two"]).ok();
    assert!(containerd.ctr(["task", "ls"]).ok().text().contains("PAUSED"));
    let _ = containerd.ctr(["task", "resume", "two"]).ok();
    assert!(containerd.ctr(["task", "metrics", "two"]).ok().text().contains("pids.current"));
    assert!(containerd.ctr(["task", "ps", "two"]).ok().text().lines().count() >= 2);
    let _ = containerd.ctr(["task", "kill", "--signal", "KILL", "two"]).ok();
    wait_until("the task's end", || {
        let list = containerd.ctr(["task", "ls"]).ok();
        if list.text().contains("STOPPED") { Ok(()) } else { Err(list.text().to_owned()) }
    });
    let removed = containerd.ctr(["task", "rm", "two"]).ok();
    assert!(removed.stderr.contains("exit code 137"), "{removed}");
    let _ = containerd.ctr(["container", "rm", "two"]).ok();
    containerd.end();
}
