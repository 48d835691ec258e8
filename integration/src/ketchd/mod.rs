//! ketchd in a site of a test's own, or dockerd 28.5 of the current peers in its place, and the stock docker command line.
//!
//! Every test is proven on dockerd (`KETCHD=peer`) before it is asked of ketchd. [`Engine::end`] looks for what either has
//! left: shims, mounts, interfaces, network namespaces, cgroups, open files. Called by the `ketchd_` tests.

pub mod archive;
pub mod front;
pub mod fronted;
pub mod full_disk;
pub mod hostile;
pub mod http;
pub mod intended;
pub mod lan;
pub mod mask;
pub mod outcome;
mod post_mortem;
pub mod registry;
pub mod traces;
pub mod turns;
pub mod words;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::case::Case;
use crate::runtime::{Invocation, Output};
use crate::shim::peer;
use crate::site::{Daemon, Site};
use crate::wait::wait_until;

pub use http::{Answer, Http};

/// The API's version that every call asks for: the newest of docker CLI 28.2, and what ketchd serves.
pub const API: &str = "1.51";
/// The newest of Debian's docker 20.10.
pub const DEBIANS_API: &str = "1.41";
const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ketchd");

/// Whose engine it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// ketchd, and where it is.
    Ketch(PathBuf),
    /// dockerd 28.5 of the current peers, with its own containerd.
    Docker,
    /// Debian's dockerd 20.10, with containerd 1.6.
    Debian,
}

impl Maker {
    /// The one that KETCHD names: a path, or `peer`; ours of the release build otherwise. Without it the test is skipped.
    ///
    /// # Panics
    /// When KETCHD names what is not there.
    #[must_use]
    pub fn under_test(case: &Case) -> Self {
        if let Some(reason) = turns::not_now(&case.name) {
            case.skip(reason);
        }
        case.root_only("an engine is run by root");
        case.native_only("dockerd and its clients see the machine's own cgroups");
        case.needs(peer("docker").exists(), "no current docker command line (make peers)");
        match std::env::var("KETCHD").as_deref() {
            Ok("peer") => Self::Docker,
            Ok(path) if !path.is_empty() => {
                assert!(Path::new(path).exists(), "the engine {path} is not there");
                Self::Ketch(path.into())
            }
            _ => {
                case.needs(Path::new(DEFAULT).exists(), "no ketchd in target/release (make build)");
                Self::Ketch(DEFAULT.into())
            }
        }
    }
}

/// A running engine, or one that is down for a while.
#[derive(Debug)]
pub struct Engine<'a> {
    pub site: Site<'a>,
    pub maker: Maker,
    flags: Vec<String>,
    api: &'static str,
    daemon: Option<Daemon>,
    containerd: Option<Daemon>,
}

impl<'a> Engine<'a> {
    /// Starts the engine under test; it has no image yet.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn bare(case: &'a Case, flags: &[&str]) -> Self {
        Self::of(case, Maker::under_test(case), flags)
    }

    /// Starts the engine under test and loads busybox into it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(case: &'a Case) -> Self {
        let engine = Self::bare(case, &[]);
        engine.load_busybox();
        engine
    }

    /// Starts one of two: the tests that compare need both.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn of(case: &'a Case, maker: Maker, flags: &[&str]) -> Self {
        let site = Site::new(case);
        Self::inside(site, maker, flags)
    }

    /// Starts one in a site that is there.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn inside(site: Site<'a>, maker: Maker, flags: &[&str]) -> Self {
        for folder in ["bin", "config/cli-plugins"] {
            fs::create_dir_all(site.path(folder)).expect("make a folder of the site");
        }
        symlink(peer("docker"), site.path("bin/docker")).expect("link the client");
        let plugin = site.path("config/cli-plugins/docker-compose");
        symlink(peer("docker-compose"), plugin).expect("link Compose");
        fs::write(site.path("daemon.json"), "{}").expect("write an empty configuration");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut engine = Self { site, maker, flags, api: API, daemon: None, containerd: None };
        match engine.maker {
            Maker::Docker => engine.start_containerd(3, &peer("containerd")),
            Maker::Debian => engine.start_containerd(2, Path::new("/usr/bin/containerd")),
            Maker::Ketch(_) => {}
        }
        engine.come_back();
        engine
    }

    /// The same with Debian's docker 20.10 and docker-compose 1.29 for its clients, asked for the API of that age.
    ///
    /// # Panics
    /// When the clients are not there.
    #[must_use]
    pub fn with_debians_clients(mut self) -> Self {
        for program in ["/usr/bin/docker", "/usr/bin/docker-compose"] {
            self.site.case.needs(Path::new(program).exists(), &format!("no {program} (make setup)"));
        }
        fs::remove_file(self.site.path("bin/docker")).expect("take the client away");
        symlink("/usr/bin/docker", self.site.path("bin/docker")).expect("link the client");
        fs::remove_dir_all(self.site.path("config/cli-plugins")).expect("take the plugins away");
        self.api = DEBIANS_API;
        self
    }

    /// A second one of the same maker in the same namespaces, with roots, a socket and cgroups of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn another(&self, name: &str) -> Self {
        self.another_with(name, &[])
    }

    /// The same with flags.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn another_with(&self, name: &str, flags: &[&str]) -> Self {
        Self::inside(self.site.beside(name), self.maker.clone(), flags)
    }

    fn start_containerd(&mut self, version: u32, program: &Path) {
        if self.maker == Maker::Docker {
            for program in ["dockerd", "docker-proxy", "containerd-shim-runc-v2", "runc"] {
                symlink(peer(program), self.site.path("bin").join(program))
                    .expect("link a program of the peer");
            }
        }
        let socket = self.site.path("containerd.sock");
        let text = format!(
            "version = {version}\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            self.site.path("containerd-root"),
            self.site.path("containerd-state"),
        );
        let file = self.site.path("containerd.toml");
        fs::write(&file, text).expect("write containerd's configuration");
        let mut daemon = self
            .site
            .daemon(&program.display().to_string(), [OsString::from("--config"), file.into_os_string()]);
        daemon.wait_ready(|| socket.exists());
        self.containerd = Some(daemon);
    }

    /// Starts the daemon, again with the flags that it was first started with.
    ///
    /// # Panics
    /// When it is not ready in time, or runs already.
    pub fn come_back(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs");
        let (program, args) = self.command_line();
        let mut daemon = self.site.daemon(&program, args);
        let socket = self.socket();
        daemon.wait_ready(|| Http::at(&socket).is_ok_and(|http| http.is_served()));
        self.daemon = Some(daemon);
    }

    /// The daemon's program and its arguments.
    #[must_use]
    pub fn command_line(&self) -> (String, Vec<OsString>) {
        let mut args = vec![OsString::from("--host"), format!("unix://{}", self.socket().display()).into()];
        let paths = [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "docker.pid"),
            ("--config-file", "daemon.json"),
        ];
        for (flag, name) in paths {
            args.extend([flag.into(), self.site.path(name).into_os_string()]);
        }
        args.extend(["--cgroup-parent".into(), self.cgroup_parent().into()]);
        let program = match &self.maker {
            Maker::Docker | Maker::Debian => {
                args.extend(["--containerd".into(), self.site.path("containerd.sock").into_os_string()]);
                args.extend(["--exec-opt", "native.cgroupdriver=cgroupfs"].map(OsString::from));
                if self.maker == Maker::Docker { peer("dockerd") } else { "/usr/sbin/dockerd".into() }
            }
            Maker::Ketch(path) => path.clone(),
        };
        // dockerd's default, which ketchd's is not.
        if self.is_ketch() && !self.flags.iter().any(|flag| flag.starts_with("--live-restore")) {
            args.push("--live-restore=false".into());
        }
        args.extend(self.flags.iter().map(OsString::from));
        (program.display().to_string(), args)
    }

    /// The cgroup above its containers', of its own where a case has several engines.
    #[must_use]
    pub fn cgroup_parent(&self) -> String {
        let name =
            self.site.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("/{}/{name}", self.site.case.tag)
    }

    /// Where it serves.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.site.path("docker.sock")
    }

    /// Marks what only ketchd does, with the reason.
    pub fn only_ketch(&self, reason: &str) {
        self.site.case.needs(self.is_ketch(), &format!("dockerd: {reason}"));
    }

    #[must_use]
    pub fn is_ketch(&self) -> bool {
        matches!(self.maker, Maker::Ketch(_))
    }

    /// Loads `busybox:latest`.
    ///
    /// # Panics
    /// When it is refused.
    pub fn load_busybox(&self) {
        let tar = archive::busybox(&self.site);
        let out = self.client().args(["load", "--input"]).arg(tar).run().ok();
        assert_eq!(out.text(), "Loaded image: busybox:latest");
    }

    /// The docker command line, with nothing to do yet.
    #[must_use]
    pub fn client(&self) -> Invocation {
        self.program(self.site.path("bin/docker"))
    }

    /// A program inside that finds the engine, and Compose as a plugin, by its environment.
    #[must_use]
    pub fn program(&self, path: impl AsRef<std::ffi::OsStr>) -> Invocation {
        self.site
            .command(path)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("PATH", self.site.path_variable())
            .env("DOCKER_API_VERSION", self.api)
            .env("COMPOSE_API_VERSION", self.api)
            .env("DOCKER_CONFIG", self.site.path("config"))
            .env("DOCKER_CLI_HINTS", "false")
            .env("HOME", &self.site.dir)
    }

    /// A command of the client, its words split as a shell would.
    #[must_use]
    pub fn docker(&self, line: &str) -> Output {
        self.client().args(words::split(line)).run()
    }

    /// A program inside, its words split as a shell would.
    #[must_use]
    pub fn sh(&self, line: &str) -> Output {
        self.program("sh").arg("-c").arg(line).run()
    }

    /// A new connection to the API.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::at(&self.socket()).expect("connect to the engine")
    }

    /// One call, without a version in its path, on a connection of its own.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let kind: &[&str] = if body.is_empty() { &[] } else { &["Content-Type: application/json"] };
        self.http().call(method, path, kind, body)
    }

    /// What its metrics say of one number, by the name with its labels as they are written there.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.call("GET", "/metrics", "").is(200).body;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// `docker inspect`, in a format.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.client().args(["inspect", "--format", format, name]).run().ok().text().to_owned()
    }

    /// Waits until that is as wanted.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn wait_inspect(&self, name: &str, format: &str, wanted: &str) {
        wait_until(format, || {
            let seen = self.inspect(name, format);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
    }

    /// Waits until a container's log holds a text.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_log(&self, name: &str, text: &str) {
        wait_until("a container's log", || {
            let out = self.client().args(["logs", name]).run().ok();
            if out.stdout.contains(text) || out.stderr.contains(text) { Ok(()) } else { Err(out.to_string()) }
        });
    }

    /// Whether the daemon was started and neither stopped nor killed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.daemon.is_some()
    }

    /// The daemon's pid.
    ///
    /// # Panics
    /// When it is down.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("the engine is up").pid()
    }

    /// Sends the daemon a signal.
    ///
    /// # Panics
    /// When it is down.
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("the engine is up").signal(signal);
    }

    /// What the daemon has written.
    #[must_use]
    pub fn log(&self) -> String {
        let name =
            Path::new(&self.command_line().0).file_name().map(|name| name.to_string_lossy().into_owned());
        fs::read_to_string(self.site.path(&format!("{}.log", name.unwrap_or_default()))).unwrap_or_default()
    }

    /// Kills the daemon, as a crash would.
    ///
    /// # Panics
    /// When it is down.
    pub fn kill(&mut self) {
        self.daemon.take().expect("the engine is up").kill();
    }

    /// Has the daemon end, and waits.
    ///
    /// # Panics
    /// When it is down, or does not end in time.
    pub fn stop(&mut self) {
        self.daemon.take().expect("the engine is up").stop();
    }

    /// Removes every container, looks for what is left, and has the daemon end.
    ///
    /// # Panics
    /// When something is left, or the daemon does not end in time.
    #[track_caller]
    pub fn end(mut self) {
        let ids = self.docker("ps --all --quiet --no-trunc").ok();
        if !ids.text().is_empty() {
            let _ = self.client().args(["rm", "--force", "--volumes"]).args(ids.text().lines()).run().ok();
        }
        // Debian's dockerd has files of network namespaces left for a while.
        if self.maker != Maker::Debian {
            wait_until("an engine without containers leaves nothing", || match self.left() {
                left if left.is_empty() => Ok(()),
                left => Err(left.join("\n")),
            });
        }
        self.stop();
        if let Some(containerd) = self.containerd.take() {
            containerd.stop();
        }
    }

    /// What containers have left.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.site.processes("containerd-shim").iter().map(|pid| format!("shim {pid}")));
        left.extend(self.site.processes("docker-proxy").iter().map(|pid| format!("proxy {pid}")));
        let inside = |name: &str| self.site.seen_from_outside(&self.site.path(name));
        for mount in self.site.mounts(&self.site.dir) {
            // dockerd's network namespaces of a container go a little later than it; the folders themselves may be mounts.
            // The machine's own namespace is bound under this name for --network host. With users of the host's of their own
            // both folders have the numbers of these.
            let own = ["data", "exec", "exec/netns/default"]
                .iter()
                .any(|name| self.site.path(name) == Path::new(&mount));
            let folder = Path::new(&mount).strip_prefix(&self.site.dir).unwrap_or(Path::new(""));
            let numbered =
                |name: &str| name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'/'));
            let folder = folder.to_string_lossy();
            let remapped = folder.strip_prefix("data/").is_some_and(numbered)
                || folder
                    .strip_prefix("exec.")
                    .and_then(|rest| rest.strip_suffix("/netns/default"))
                    .is_some_and(numbered);
            if !own && !remapped {
                left.push(format!("mount {mount}"));
            }
        }
        for folder in ["/run/docker/netns", "/run/netns"]
            .map(|path| self.site.seen_from_outside(Path::new(path)))
            .iter()
            .chain([&inside("exec/netns")])
        {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let entries = entries.filter(|entry| entry.file_name() != "default");
            left.extend(entries.map(|entry| format!("network namespace {}", entry.path().display())));
        }
        // The site's /sys is the machine's: ip asks the kernel.
        let links = self.site.run("ip", ["-brief", "link"]);
        left.extend(
            links
                .text()
                .lines()
                .filter(|line| line.starts_with("veth"))
                .map(|line| format!("interface {line}")),
        );
        left.extend(self.cgroups().into_iter().map(|path| format!("cgroup {}", path.display())));
        if self.is_ketch() {
            left.extend(self.files());
        }
        left
    }

    /// The cgroups of containers.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let parents = trees.map(|tree| tree.join(self.cgroup_parent().trim_start_matches('/')));
        let children = parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
        children.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
    }

    /// The daemon's open files that are a container's.
    fn files(&self) -> Vec<String> {
        let Some(daemon) = &self.daemon else { return Vec::new() };
        let entries = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).into_iter().flatten().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        let (containers, bundles) = (self.site.path("data/containers"), self.site.path("exec"));
        let is_containers = |path: &PathBuf| {
            path.starts_with(&containers)
                || (path.starts_with(&bundles)
                    // The daemon's own: its sockets, and the mark by which an exec root is its.
                    && !path.to_string_lossy().ends_with(".sock")
                    && path != &bundles.join("daemon-id"))
        };
        targets.filter(is_containers).map(|path| format!("open file {}", path.display())).collect()
    }
}

impl Drop for Engine<'_> {
    /// After a failure: it is told what goes on, and what the test has left running would be told as leaks.
    fn drop(&mut self) {
        if self.daemon.is_some() && std::thread::panicking() {
            // A second panic that leaves here would end the suite, and hide the first.
            let looked = catch_unwind(AssertUnwindSafe(|| {
                self.site.case.note(post_mortem::examine(self));
                let _ = self
                    .program("sh")
                    .args(["-c", "docker ps -aq | xargs -r timeout 20 docker rm -fv"])
                    .run();
            }));
            if looked.is_err() {
                self.site.case.note("what was left could not be looked at, or not be removed".to_owned());
            }
        }
    }
}
