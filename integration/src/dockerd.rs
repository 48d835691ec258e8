//! Debian's dockerd with the runtime under test as its default runtime, and the docker command line.
//!
//! Called by `callers_dockerd`, with containerd's own shim, and by `shim_dockerd`, where the shim under test stands under
//! that one's name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::case::Case;
use crate::runtime::Output;
use crate::site::{Daemon, Site};
use crate::wait::wait_until;

/// dockerd and its containerd.
#[derive(Debug)]
pub struct Docker<'a> {
    pub site: Site<'a>,
    daemons: Vec<Daemon>,
}

impl<'a> Docker<'a> {
    /// Starts both; a shim is put first on their PATH, under the name of containerd's own.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(case: &'a Case, shim: Option<&Path>) -> Self {
        case.native_only("dockerd 20.10 asks for controllers that the private v2 layout lacks");
        case.needs(case.has_program("dockerd"), "no dockerd (package docker.io)");
        let site = Site::new(case);
        if let Some(shim) = shim {
            fs::create_dir_all(site.path("bin")).expect("make the folder of programs");
            symlink(shim, site.path("bin/containerd-shim-runc-v2")).expect("link the shim");
        }
        let containerd = site.path("containerd.sock");
        let config = site.path("containerd.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {containerd:?}\n",
            site.path("containerd-root"),
            site.path("containerd-state"),
        );
        fs::write(&config, text).expect("write containerd's configuration");
        let mut first = site.daemon("containerd", [OsStr::new("--config"), config.as_os_str()]);
        first.wait_ready(|| containerd.exists());
        let file = site.path("daemon.json");
        let text = format!(
            r#"{{"runtimes": {{"tested": {{"path": {:?}}}}}, "default-runtime": "tested", "storage-driver": "vfs",
                "iptables": false, "bridge": "none", "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/{}", "data-root": {:?}, "exec-root": {:?},
                "pidfile": {:?}, "hosts": ["unix://{}"], "containerd": {containerd:?}}}"#,
            case.runtime.path,
            case.tag,
            site.path("data"),
            site.path("exec"),
            site.path("docker.pid"),
            site.path("docker.sock").display(),
        );
        fs::write(&file, text).expect("write dockerd's configuration");
        let mut second = site.daemon("dockerd", [OsStr::new("--config-file"), file.as_os_str()]);
        let started = Self { site, daemons: Vec::new() };
        second.wait_ready(|| started.docker(["version"]).code == 0);
        let started = Self { daemons: vec![second, first], ..started };
        let tar = started.site.busybox_tar().display().to_string();
        let _ = started.docker(["import", tar.as_str(), "busybox"]).ok();
        started
    }

    /// A command of the client.
    #[must_use]
    pub fn docker<const N: usize>(&self, args: [&str; N]) -> Output {
        let host = format!("unix://{}", self.site.path("docker.sock").display());
        let head = ["--host".to_owned(), host];
        self.site.run(&client(), head.into_iter().chain(args.into_iter().map(str::to_owned)))
    }

    /// `docker inspect`, in a format.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.docker(["inspect", "--format", format, name]).ok().text().to_owned()
    }

    /// Waits until that is as wanted.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn wait_inspect(&self, name: &str, format: &str, wanted: &str) {
        wait_until(format, || {
            let seen = self.inspect(name, format);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
    }

    /// Has both end.
    ///
    /// # Panics
    /// When one does not end in time.
    pub fn end(self) {
        self.daemons.into_iter().for_each(Daemon::stop);
    }
}

/// The client that comes with the daemon, whose API it speaks; a newer one may be first on PATH.
fn client() -> String {
    let own = "/usr/bin/docker";
    if Path::new(own).exists() { own.into() } else { "docker".into() }
}
