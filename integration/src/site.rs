//! A place for a daemon: mount, network and host name namespaces of a test's own, held open by one process.
//!
//! Daemons that make mounts and networks (containerd, dockerd, podman) run in here, and whatever they leave goes with
//! it: [`Site`]'s end kills every process that is still in its mount namespace. Called by the `callers`
//! and the `shim_` tests.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::case::Case;
use crate::runtime::{Invocation, Output};
use crate::wait::wait_until;

/// The namespaces, and the folder of everything in them.
#[derive(Debug)]
pub struct Site<'a> {
    pub case: &'a Case,
    pub dir: PathBuf,
    holder: Child,
}

/// A daemon of a site.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    log: PathBuf,
}

impl<'a> Site<'a> {
    /// Makes the namespaces.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new(case: &'a Case) -> Self {
        Self::in_folder(case, "site")
    }

    /// The same in a folder of the case by another name: a test may have several sites.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn in_folder(case: &'a Case, name: &str) -> Self {
        let dir = case.dir.join(name);
        Self::fresh(&dir);
        // Their own folders apart, the daemons write to these, /dev/shm for podman's lock of a fixed name; and podman
        // makes plain folders in a v1 /sys/fs/cgroup for hierarchies that are not mounted, so that it gets a folder of
        // the site's with the machine's mounts in it.
        let script = r#"
            set -e
            ip link set lo up
            for d in /run/containerd /run/docker /run/containers /run/netns /var/lib/cni; do
                mkdir -p $d; mount -t tmpfs site $d
            done
            mount -t tmpfs -o mode=1777 site /dev/shm
            if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
                mkdir $0/cgroup; mount -t tmpfs site $0/cgroup
                for h in /sys/fs/cgroup/*; do
                    if mountpoint -q $h; then mkdir $0/cgroup/${h##*/}; mount --bind $h $0/cgroup/${h##*/}; fi
                done
                mount --rbind $0/cgroup /sys/fs/cgroup; umount -R -l $0/cgroup
            fi
            echo ready >$0/ready
            exec sleep infinity
        "#;
        // It goes with whoever made it, however that ends.
        let holder = Command::new("unshare")
            .args(["--mount", "--net", "--uts", "setpriv", "--pdeathsig", "KILL", "sh", "-c", script])
            .arg(&dir)
            .stdin(Stdio::null())
            .spawn()
            .expect("start the holder of the namespaces");
        Self::held(case, dir, holder)
    }

    /// Another folder in the same network namespace; its mount namespace is its own.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        let dir = self.case.dir.join(name);
        Self::fresh(&dir);
        let script = "touch $0/ready; exec sleep infinity";
        let holder = Command::new("nsenter")
            .args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--uts", "--"])
            .args(["unshare", "--mount", "setpriv", "--pdeathsig", "KILL", "sh", "-c", script])
            .arg(&dir)
            .stdin(Stdio::null())
            .spawn()
            .expect("start the holder of the namespaces");
        Self::held(self.case, dir, holder)
    }

    /// The site of a holder, once that says that its namespaces are ready.
    fn held(case: &'a Case, dir: PathBuf, mut holder: Child) -> Self {
        let ready = dir.join("ready");
        wait_until("the site's namespaces", || {
            if let Ok(Some(status)) = holder.try_wait() {
                panic!("the holder of the site's namespaces ended with {status}");
            }
            if ready.exists() { Ok(()) } else { Err("no namespaces yet".into()) }
        });
        Self { case, dir, holder }
    }

    /// A folder in which no site has been.
    fn fresh(dir: &Path) {
        fs::create_dir_all(dir).expect("make the site's folder");
        assert!(!dir.join("ready").exists(), "{} has been a site already", dir.display());
    }

    /// A file of the site.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The file of its network namespace.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// Runs a program inside, with the harness's timeout.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Output {
        self.command(program).args(args).env("CONTAINERS_CONF", self.path("containers.conf")).run()
    }

    /// A program to be run inside, in the root folder.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Invocation {
        let holder = self.holder.id().to_string();
        self.case
            .program("nsenter")
            .args(["--target", &holder, "--mount", "--net", "--uts", "--"])
            .arg(program)
    }

    /// A program to be run inside, in `folder`.
    #[must_use]
    pub fn command_in(&self, folder: &Path, program: impl AsRef<OsStr>) -> Invocation {
        self.command("sh").args(["-c", "cd \"$0\" && exec \"$@\""]).arg(folder).arg(program)
    }

    /// PATH with the site's folder `bin` before anything else.
    #[must_use]
    pub fn path_variable(&self) -> OsString {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// A path inside, as a process outside of the site's mount namespace names it.
    #[must_use]
    pub fn seen_from_outside(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Starts a daemon inside, the site's folder `bin` before anything else on its PATH.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn daemon<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Daemon {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = self.path(&format!("{name}.log"));
        // A daemon that is started again goes on in it.
        let file =
            fs::OpenOptions::new().create(true).append(true).open(&log).expect("open the daemon's log");
        let child = Command::new("nsenter")
            .args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--uts", "--", program])
            .args(args)
            .env("PATH", self.path_variable())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("share the log"))
            .stderr(file)
            .spawn()
            .expect("start the daemon");
        Daemon { child, name, log }
    }

    /// Writes a tar of a root file system of busybox: the image that the daemons import.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn busybox_tar(&self) -> PathBuf {
        let root = self.path("image");
        for folder in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
            fs::create_dir_all(root.join(folder)).expect("make the image's folders");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy busybox (package busybox-static)");
        for applet in
            ["sh", "true", "false", "echo", "sleep", "ps", "id", "cat", "head", "tail", "ls", "grep", "stat"]
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
            .expect("write passwd");
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write group");
        let tar = self.path("image.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.is_ok_and(|status| status.success()), "make the image's tar");
        tar
    }

    /// Waits until no process inside has a command line whose first word holds `name`.
    ///
    /// # Panics
    /// When one stays.
    #[track_caller]
    pub fn wait_without(&self, name: &str) {
        wait_until(&format!("the end of every {name}"), || {
            let mut left = self.inhabitants().into_iter().map(|pid| (pid, command_line(pid)));
            match left
                .find(|(_, words)| words.split(' ').next().is_some_and(|program| program.contains(name)))
            {
                None => Ok(()),
                Some((pid, words)) => Err(format!("{pid}: {words}")),
            }
        });
    }

    /// The mount points inside that are below a folder.
    #[must_use]
    pub fn mounts(&self, folder: &Path) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id())).unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
    }

    /// The processes inside whose command line holds `text`.
    #[must_use]
    pub fn processes(&self, text: &str) -> Vec<i32> {
        self.inhabitants().into_iter().filter(|pid| command_line(*pid).contains(text)).collect()
    }

    /// The processes inside, and those of its daemons' containers.
    #[must_use]
    pub fn relatives(&self) -> Vec<i32> {
        let mut found = self.inhabitants();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let in_a_cgroup = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&self.case.tag))
        };
        found.extend(pids.filter(in_a_cgroup));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Processes that are in the site's mount namespace.
    fn inhabitants(&self) -> Vec<i32> {
        let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|data| data.ino()).ok();
        let Some(ours) = namespace(&self.holder.id().to_string()) else { return Vec::new() };
        // A holder that did not get as far as its namespaces: the machine's processes are not ours to end.
        if namespace("self") == Some(ours) {
            return Vec::new();
        }
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && namespace(pid) == Some(ours))
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let holder = i32::try_from(self.holder.id()).unwrap_or(0);
        for pid in self.inhabitants().into_iter().filter(|pid| *pid != holder).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // The parent cgroup, and podman's for conmon, are the daemon's, which leaves them behind; one that still holds a
        // container's is a leak, and stays for the leak check to find. A killed conmon takes its time to go. Other sites of the
        // case have theirs beside it, which are not waited for.
        let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let parents: Vec<PathBuf> =
            trees.chain([PathBuf::from("/sys/fs/cgroup")]).map(|tree| tree.join(&self.case.tag)).collect();
        let folder = self.dir.file_name().unwrap_or_default();
        for _ in 0..1000 {
            for parent in &parents {
                let _ = fs::remove_dir(parent.join("conmon"));
                let _ = fs::remove_dir(parent.join(folder));
                let _ = fs::remove_dir(parent);
            }
            let is_ours = |parent: &PathBuf| {
                let entries = fs::read_dir(parent).into_iter().flatten().flatten();
                let folders: Vec<_> =
                    entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect();
                parent.exists()
                    && (folders.is_empty() || folders.iter().any(|name| name == "conmon" || name == folder))
            };
            if !parents.iter().any(is_ours) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Daemon {
    /// Waits until `ready` holds; a daemon that ends instead fails the test with its log.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let (child, name, log) = (&mut self.child, &self.name, &self.log);
        wait_until(name, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{name} ended with {status}: {}", last_lines(log));
            }
            if ready() { Ok(()) } else { Err(last_lines(log)) }
        });
    }

    /// Its process.
    ///
    /// # Panics
    /// Never: a pid is a positive number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid is a small number")
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        self.terminate(signal);
    }

    /// Asks it to end, and waits.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) {
        self.terminate(Signal::TERM);
        let (child, name) = (&mut self.child, &self.name);
        wait_until("the daemon's end", || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{name}: {other:?}")),
        });
    }

    /// Kills it, as a crash would, and waits.
    pub fn kill(mut self) {
        self.terminate(Signal::KILL);
        let _ = self.child.wait();
    }

    fn terminate(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What a process was started with; nothing of one that has ended. In the middle of an execve(2), when whoever has started
/// the process goes on already, the kernel shows nothing yet: that is waited for.
fn command_line(pid: i32) -> String {
    wait_until("the arguments of a process", || {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if bytes.is_empty() && !matches!(state, None | Some('Z' | 'X')) {
            return Err(stat);
        }
        Ok(String::from_utf8_lossy(&bytes).replace('\0', " "))
    })
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
