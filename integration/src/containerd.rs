//! containerd in a site of a test's own: Debian's 1.6 or the current peers' 2.x, its socket, root and state in the case's
//! folder, an image made of busybox imported.
//!
//! Called by `callers_containerd` and the `shim_` tests that go through containerd.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::case::Case;
use crate::runtime::{Invocation, Output};
use crate::shim::{Maker, Shim, peer};
use crate::site::{Daemon, Site};
use crate::wait::wait_until;

/// The image of every test.
pub const IMAGE: &str = "test.local/busybox:1";
/// What a script ends with whose words are to be heard ([`Containerd::hear`]), before its exit code.
pub const HEARD: &str = "until [ -e /gate/heard ]; do sleep 0.1; done";
/// What CRI starts first in a pod: the same image, whose command sleeps.
pub const PAUSE: &str = "test.local/pause:1";

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Debian bookworm's.
    V1_6,
    /// The current peers'.
    V2,
}

/// A running containerd, or one that is down for a while.
#[derive(Debug)]
pub struct Containerd<'a> {
    pub site: Site<'a>,
    pub age: Age,
    pub shim: Shim,
    daemon: Option<Daemon>,
}

/// Whether the CRI plugin is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cri {
    Off,
    /// A pod's namespaces are kept by its pause process.
    On,
    /// By the shim: there is no such process (containerd 2 and later).
    Sandboxed,
    /// As `On`, for pods with a user namespace (containerd 2 and later).
    Users,
    /// As `Sandboxed`, for such pods.
    UsersSandboxed,
}

impl Cri {
    /// Whether the shim keeps a pod's namespaces.
    #[must_use]
    pub fn is_sandboxed(self) -> bool {
        matches!(self, Self::Sandboxed | Self::UsersSandboxed)
    }

    /// Whether pods may have a user namespace. Their images' owners are mapped, not copied: that takes overlayfs. containerd asks
    /// runc's runtime type alone whether it can do such pods, and Kubernetes asks containerd: so that is the type.
    fn has_users(self) -> bool {
        matches!(self, Self::Users | Self::UsersSandboxed)
    }
}

impl<'a> Containerd<'a> {
    /// Starts it with the shim under test, or its own where SHIM names a peer.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(case: &'a Case, age: Age, cri: Cri) -> Self {
        let shim = Shim::under_test(case);
        let shim = match (shim.maker, age) {
            (Maker::Ketch, _) => shim,
            (_, Age::V1_6) => Shim::go16(),
            (_, Age::V2) => Shim::go2(),
        };
        Self::with_shim(case, age, cri, shim)
    }

    /// Starts it with a shim.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with_shim(case: &'a Case, age: Age, cri: Cri, shim: Shim) -> Self {
        case.native_only("containerd asks for controllers that the private v2 layout lacks");
        match age {
            Age::V1_6 => {
                case.needs(
                    case.has_program("containerd") && case.has_program("ctr"),
                    "no containerd (package containerd)",
                );
            }
            Age::V2 => case.needs(peer("containerd").exists(), "no current containerd (make peers)"),
        }
        let site = Site::new(case);
        let bin = site.path("bin");
        fs::create_dir_all(&bin).expect("make the folder of programs");
        symlink(&shim.path, bin.join(shim.file_name())).expect("link the shim");
        symlink(&case.runtime.path, bin.join("ketch")).expect("link the runtime");
        let mut containerd = Self { site, age, shim, daemon: None };
        fs::write(containerd.site.path("config.toml"), containerd.config(cri))
            .expect("write the configuration");
        containerd.come_back();
        let archive = containerd.image();
        let _ = containerd.ctr(["images", "import", archive.as_str()]).ok();
        if cri != Cri::Off {
            let _ = containerd.in_namespace("k8s.io", ["images", "import", archive.as_str()]).run().ok();
        }
        containerd
    }

    fn config(&self, cri: Cri) -> String {
        let mut text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[debug]\nlevel = \"debug\"\n",
            self.site.path("root"),
            self.site.path("state"),
            self.socket()
        );
        if cri == Cri::Off {
            text.insert_str(0, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
            return text;
        }
        let network = self.site.path("net.d");
        fs::create_dir_all(&network).expect("make the folder of networks");
        let list = r#"{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
            { "type": "bridge", "bridge": "pods0", "isGateway": true,
              "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/24" }]] } },
            { "type": "loopback" }] }"#;
        fs::write(network.join("10-pods.conflist"), list).expect("write the network");
        // A container's shim is found by a path in the configuration, and a pod's by the type's name on PATH.
        let runtime_path = match cri {
            Cri::Users => format!("runtime_path = {:?}", self.site.path("bin").join(self.shim.file_name())),
            Cri::UsersSandboxed if self.shim.is_ketch() => {
                let name = self.site.path("bin/containerd-shim-runc-v2");
                symlink(&self.shim.path, name).expect("link the shim under runc's name");
                String::new()
            }
            _ => String::new(),
        };
        let _ = write!(
            text,
            // NRI has one socket for all of a machine, in /var/run.
            r#"[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {network:?}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{}"
default_runtime_name = "tested"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
runtime_type = "{}"
sandboxer = "{}"
{runtime_path}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
{}"#,
            if cri.has_users() { "overlayfs" } else { "native" },
            if cri.has_users() { "io.containerd.runc.v2" } else { self.shim.runtime_type() },
            if cri.is_sandboxed() { "shim" } else { "podsandbox" },
            // With such a sandboxer containerd writes into the options, and knows runc's only: the shim takes `ketch` by its name.
            if cri == Cri::Sandboxed { String::new() } else { self.runtime_options() },
        );
        text
    }

    /// The options of the runtime as CRI takes them: runc's by name for runc's runtime type. For any other, 2.x hands the text
    /// over as it stands, and 1.6 the path of a file with the same keys.
    fn runtime_options(&self) -> String {
        let text = format!("BinaryName = {:?}\n", self.runtime());
        if !self.shim.is_ketch() || self.age == Age::V2 {
            return text;
        }
        let file = self.site.path("options.toml");
        fs::write(&file, text).expect("write the options");
        format!("TypeUrl = \"runtimeoptions.v1.Options\"\nConfigPath = {file:?}\n")
    }

    fn program(&self, name: &str) -> PathBuf {
        match self.age {
            Age::V1_6 => PathBuf::from("/usr/bin").join(name),
            Age::V2 => peer(name),
        }
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.site.path("containerd.sock")
    }

    /// The path of the runtime under test.
    #[must_use]
    pub fn runtime(&self) -> String {
        self.site.case.runtime.path.display().to_string()
    }

    /// `ctr` in the case's namespace.
    #[must_use]
    pub fn ctr<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.ctr_command(args).run()
    }

    /// The same, not yet run.
    #[must_use]
    pub fn ctr_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Invocation {
        self.in_namespace(&self.site.case.tag, args)
    }

    fn in_namespace<A: AsRef<OsStr>>(
        &self,
        namespace: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Invocation {
        let command = self.site.command(self.program("ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(args)
    }

    /// `ctr run` with the shim and the runtime under test: further flags, then the container's name and its command.
    #[must_use]
    pub fn run_command(&self, flags: &[&str], id: &str, command: &[&str]) -> Invocation {
        self.run_with_runtime(&self.runtime(), flags, id, command)
    }

    /// The same with another runtime.
    ///
    /// # Panics
    /// When the options' file cannot be written.
    #[must_use]
    pub fn run_with_runtime(&self, runtime: &str, flags: &[&str], id: &str, command: &[&str]) -> Invocation {
        // A cgroup of the case's own, so that what is left there is seen.
        let cgroup = format!("/{}/{id}", self.site.case.tag);
        let run = self.ctr_command(["run", "--snapshotter", "native", "--runtime", self.shim.runtime_type()]);
        // ctr names runc's options to runc's runtime type alone; every other takes a file.
        let run = if self.shim.is_ketch() {
            let file = self.site.path(&format!("{id}.toml"));
            fs::write(&file, format!("BinaryName = {runtime:?}\n")).expect("write the options");
            run.arg("--runtime-config-path").arg(file)
        } else {
            run.args(["--runc-binary", runtime])
        };
        run.args(["--cgroup", &cgroup]).args(flags).args([IMAGE, id]).args(command)
    }

    /// The mount by which a container gets to know that it was heard: `ctr run --mount`.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn gate(&self) -> String {
        let gate = self.site.path("gate");
        fs::create_dir_all(&gate).expect("make the gate");
        format!("type=bind,src={},dst=/gate,options=rbind:ro", gate.display())
    }

    /// Runs a command of ctr whose process writes these words, and then waits with [`HEARD`], to its end.
    ///
    /// ctr opens a container's streams beside all else, and when the container has ended it gives up on those that are not open yet:
    /// on a loaded machine nothing is heard of one that ends at once, whatever the shim and the runtime are.
    ///
    /// # Panics
    /// When the words don't come.
    #[must_use]
    pub fn hear(&self, command: Invocation, stdout: &str, stderr: &str) -> Output {
        let heard = self.site.path("gate/heard");
        let _ = fs::remove_file(&heard);
        let running = command.spawn();
        wait_until("the container's words", || {
            let words = (running.stdout_now(), running.stderr_now());
            if (words.0.trim(), words.1.trim()) == (stdout, stderr) {
                Ok(())
            } else {
                Err(format!("{words:?}"))
            }
        });
        fs::write(heard, "").expect("open the gate");
        running.wait()
    }

    /// Kills the daemon as a crash would; shims and containers go on.
    pub fn crash(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Starts the daemon, again after a crash.
    ///
    /// # Panics
    /// When it does not start.
    pub fn come_back(&mut self) {
        let program = self.program("containerd").display().to_string();
        let config = self.site.path("config.toml");
        let mut daemon = self.site.daemon(&program, [OsStr::new("--config"), config.as_os_str()]);
        daemon.wait_ready(|| self.ctr(["version"]).code == 0);
        self.daemon = Some(daemon);
    }

    /// Crashes it and starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.crash();
        self.come_back();
    }

    /// Has it end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn end(mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// An OCI archive with both images: containerd imports no bare root file system.
    fn image(&self) -> String {
        let layer = self.site.busybox_tar();
        let script = r#"
            set -e; cd "$0"; mkdir -p oci/blobs/sha256
            put() { d=$(sha256sum "$1" | cut -d' ' -f1); cp "$1" oci/blobs/sha256/$d; echo $d; }
            size() { stat -c %s "$1"; }
            layer=$(put "$1")
            entry() {
                printf '{"architecture":"amd64","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$2" $layer >config.json
                config=$(put config.json)
                printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' $config $(size config.json) $layer $(size "$layer_file") >manifest.json
                manifest=$(put manifest.json)
                printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"%s"}}' $manifest $(size manifest.json) "$1"
            }
            layer_file=$1
            one=$(entry "$2" '{}')
            two=$(entry "$3" '{"Cmd":["/bin/sleep","1000000"]}')
            printf '{"schemaVersion":2,"manifests":[%s,%s]}' "$one" "$two" >oci/index.json
            printf '{"imageLayoutVersion":"1.0.0"}' >oci/oci-layout
            tar -C oci -cf image-oci.tar .
        "#;
        let dir = self.site.dir.as_os_str();
        let args =
            [OsStr::new("-c"), script.as_ref(), dir, layer.as_os_str(), IMAGE.as_ref(), PAUSE.as_ref()];
        let _ = self.site.run("bash", args).ok();
        self.site.path("image-oci.tar").display().to_string()
    }
}
