//! A restore: a container's processes, brought back from a folder of images.
//!
//! criu runs in a mount namespace of its own, where the root is bound to a place for it and the mount points are made; both
//! go with the namespace. It is in the container's cgroup, so that whatever it makes is there: born in it, or moved by systemd
//! before it is asked for anything. The restored first process becomes this process's child.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::process::{self, Child};
use ketch_sys::{namespace, path, socket, stat};

use super::error::{CriuError, step};
use super::images::{Folder, NetworkMark};
use super::message::{self, Kind, Response};
use super::mounts::Judge;
use super::processes;
use super::service::{Criu, Start};
use super::streams::Handed;
use crate::cgroup::Cgroup;
use crate::error::chain;
use crate::init::{ProcessIo, Shown};
use crate::log;
use crate::plan::Plan;
use crate::plan::criu::bounds::{Bounds, Links, NoNewPrivileges};
use crate::plan::criu::external::{self, External, MASK};
use crate::plan::criu::{
    CriuOptions, Inherited, JoinedNamespace, NetworkContents, SharedFlags, namespace_key,
};
use crate::plan::namespaces::NamespacePlan;
use crate::plan::process::ProcessPlan;
use crate::rootfs;
use crate::spec::NamespaceType;

const LOG_FILE: &str = "restore.log";

/// How a container is to be brought back.
#[derive(Debug)]
pub struct RestoreRequest {
    /// The folder of images.
    pub images: PathBuf,
    /// The folder of criu's log; that of the images without.
    pub work: Option<PathBuf>,
    /// What the checkpoint was told as well.
    pub shared: SharedFlags,
    /// `apparmor:NAME` or `selinux:LABEL`, in place of the saved one.
    pub lsm_profile: Option<String>,
    /// SELinux context of the mounts, in place of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// The container to bring back.
#[derive(Debug)]
pub struct Restoration<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// Its cgroup, with its limits not yet set; one of systemd's is made here, around criu.
    pub cgroup: &'a mut Cgroup,
    /// An empty directory for its root, which nobody else uses.
    pub place: &'a Path,
    /// criu's configuration file.
    pub config_file: Option<String>,
    /// Its streams, and where its terminal's master is sent.
    pub io: ProcessIo,
}

/// What the caller does on the way; an error ends the restore, and nothing of it is left.
pub trait RestoreSteps {
    /// The namespaces exist: the runtime's hooks.
    ///
    /// # Errors
    /// Ends the restore.
    fn namespaces_made(&mut self, pid: i32) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Every process is there, and none has run yet. What rights they have is still to be seen.
    ///
    /// # Errors
    /// Ends the restore.
    fn restored(
        &mut self,
        child: &Child,
        cgroup: &Cgroup,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Whether the container in this folder of images was shown a folder of its own for sd_notify(3), which the restored one
/// has to be shown again. Images that nobody can read say no.
#[must_use]
pub fn was_shown_notify_folder(images: &Path) -> bool {
    Folder::open(images).is_ok_and(|folder| folder.was_shown_notify())
}

/// Brings the container back, which has no [`Obstacle`](crate::plan::criu::Obstacle); it runs when this returns.
///
/// # Errors
/// What can't be done, or what criu could not: no process of it is left then. The cgroup is the caller's to remove.
pub fn restore(
    request: &RestoreRequest,
    restoration: Restoration<'_>,
    steps: &mut dyn RestoreSteps,
) -> Result<Child, CriuError> {
    let Restoration { plan, cgroup, place, config_file, mut io } = restoration;
    let criu = Criu::find()?;
    let images = Folder::open(&request.images)?;
    images.check_complete()?;
    let work = request.work.as_deref().map(Folder::make).transpose()?;
    let externals = external::externals(&plan.rootfs, &plan.cgroup);
    let namespaces = Namespaces::open(&plan.namespaces)?;
    let mut options = options(request, &plan.process, &externals, place);
    options.config_file = config_file;
    options.joined = namespaces.joined.clone();
    options.network = namespaces.network(&images)?;
    let cgroup_files = cgroup.child_join()?;
    let prepare = || rootfs::make_mount_points(&plan.rootfs, place).map_err(|error| chain(&error));
    let mut start = Start {
        streams: io.streams.as_ref(),
        extra: namespaces.files.iter().map(|(_, file)| file.as_fd()).collect(),
        namespaces: namespace::NEW_MOUNT,
        into_cgroup: cgroup.clone_into_fd(),
        cgroup_files: &cgroup_files,
        prepare: Some(&prepare),
        ..Start::plain()
    };
    let folders = start.take_folders(images.path(), work.as_ref().map(Folder::path));
    options.inherited = namespaces.inherited(start.first_extra());
    let mut handed = io.with_streams(|streams| images.streams().map(|saved| Handed::new(saved, streams)))?;
    options.inherited.append(&mut handed.inherited);
    let mut session = criu.start(&start)?;
    drop(start);
    drop(io.streams.take());
    // What the caller left open is not for hooks, which may outlive both.
    process::close_on_exec_from(3).map_err(step("closing descriptors"))?;
    cgroup.enter(&plan.cgroup, session.pid())?;
    cgroup.set(&plan.cgroup.limits)?;
    // The cgroup is the source of a mount on v1, and there by now.
    let judge = Judge::new(&plan.rootfs, &externals)?;
    options.cgroup_roots = cgroup_roots(session.pid())?;

    log::debug(format_args!("criu options: {options:?}"));
    let console = io.console_socket.take();
    let privileges = criu.no_new_privileges();
    if plan.process.no_new_privileges && privileges == NoNewPrivileges::Lost {
        log::remark(
            "restore: this criu does not restore no_new_privs, which config.json asks for: criu 3.19 does",
        );
    }
    let bounds = Bounds::new(plan, processes::links(Path::new("/proc/self"))?, namespaces.links, privileges);
    let mut way = Way {
        judge: &judge,
        bounds,
        criu: session.pid(),
        others: BTreeSet::new(),
        judged: false,
        cgroup,
        console,
        shown: io.shown,
        shown_master: None,
        handed,
        steps,
        child: None,
    };
    let request = message::request(Kind::Restore, &options, folders);
    let restored = session.converse(&request, &mut |response, fds| way.go_on(response, fds));
    let (child, judged) = (way.child.take(), way.judged);
    let done = restored.and_then(|answer| {
        session.finish()?;
        match (answer.kind(), child) {
            (Kind::Restore, Some(child)) if judged => Ok(child),
            (Kind::Restore, Some(_)) => Err(CriuError::Unseen),
            (other, _) => Err(CriuError::Unexpected(other)),
        }
    });
    done.map_err(|error| error.with_log(work.as_ref().unwrap_or(&images), LOG_FILE))
}

fn options(
    request: &RestoreRequest,
    process: &ProcessPlan,
    externals: &[External],
    place: &Path,
) -> CriuOptions {
    let binds = externals.iter().map(|external| {
        // Sources are text of config.json.
        (External::key(&external.target), external.source.display().to_string())
    });
    CriuOptions {
        shared: request.shared,
        log_file: LOG_FILE,
        root: place.to_owned(),
        mounts: binds.chain([(MASK.0.to_owned(), MASK.1.to_owned())]).collect(),
        evasive_devices: true,
        sibling: true,
        lsm_profile: request.lsm_profile.clone().or_else(|| lsm_profile(process)),
        lsm_mount_context: request.lsm_mount_context.clone(),
        ..CriuOptions::default()
    }
}

/// The configured profile of every process, in criu's words: not the one that the images say.
fn lsm_profile(process: &ProcessPlan) -> Option<String> {
    let named = |kind: &str, name: &Option<String>| Some(format!("{kind}:{}", name.as_ref()?));
    named("apparmor", &process.apparmor_profile).or_else(|| named("selinux", &process.selinux_label))
}

/// The namespaces that the container joins.
struct Namespaces {
    /// Those that criu gets as descriptors.
    files: Vec<(NamespaceType, OwnedFd)>,
    /// Those that it opens.
    joined: Vec<JoinedNamespace>,
    /// How procfs shows them all.
    links: Links,
}

impl Namespaces {
    fn open(plan: &NamespacePlan) -> Result<Self, CriuError> {
        let (mut files, mut joined, mut links) = (Vec::new(), Vec::new(), Links::new());
        for join in &plan.join {
            let opened = path::open_host(&join.path, path::PATH).and_then(stat::status);
            let inode = opened.map_err(step("looking at a namespace"))?.inode;
            links.insert(join.kind, format!("{}:[{inode}]", join.kind.proc_name()));
            match join.kind {
                NamespaceType::Network | NamespaceType::Pid => {
                    let file = path::open_host(&join.path, path::READ | path::NON_BLOCKING)
                        .map_err(step("opening a namespace"))?;
                    files.push((join.kind, file));
                }
                kind => joined.push(JoinedNamespace { kind: kind.proc_name(), path: join.path.clone() }),
            }
        }
        Ok(Self { files, joined, links })
    }

    /// In the namespace that its processes were in when they were saved, criu's rules hold their packets back until now; it
    /// takes them away at the end, but would first add them once more if it thought that the namespace was new, and one of
    /// the two would stay.
    fn network(&self, images: &Folder) -> Result<NetworkContents, CriuError> {
        let joined = self.files.iter().find(|(kind, _)| *kind == NamespaceType::Network);
        let Some((_, file)) = joined else { return Ok(NetworkContents::Empty) };
        let inode = stat::status(file).map_err(step("looking at a namespace"))?.inode;
        let same = images.is_of_network(&NetworkMark::of(inode)?);
        Ok(if same { NetworkContents::AsItIs } else { NetworkContents::Empty })
    }

    fn inherited(&self, first: i32) -> Vec<Inherited> {
        let named = |((kind, _), fd): (&(NamespaceType, OwnedFd), i32)| Inherited {
            key: namespace_key(*kind).to_owned(),
            fd,
        };
        self.files.iter().zip(first..).map(named).collect()
    }
}

/// The container's place in each hierarchy: where criu itself is.
fn cgroup_roots(pid: i32) -> Result<Vec<(String, String)>, CriuError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(CriuError::file("reading", &path))?;
    Ok(parse_cgroups(&text))
}

fn parse_cgroups(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .flat_map(|(controllers, path)| {
            controllers.split(',').map(|controller| (controller.to_owned(), path.to_owned()))
        })
        .collect()
}

/// The way of a restore, by its notifications.
struct Way<'a> {
    judge: &'a Judge,
    bounds: Bounds,
    /// criu's number.
    criu: i32,
    /// Who is in the cgroup and no process of the container: criu, and what a hook has left.
    others: BTreeSet<i32>,
    judged: bool,
    cgroup: &'a Cgroup,
    console: Option<OwnedFd>,
    shown: Option<Shown>,
    /// The master of the terminal that is shown on another one.
    shown_master: Option<OwnedFd>,
    handed: Handed,
    steps: &'a mut dyn RestoreSteps,
    child: Option<Child>,
}

impl Way<'_> {
    fn go_on(
        &mut self,
        at: &Response,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match at.script.as_str() {
            "setup-namespaces" => {
                let first = at.pid.ok_or("criu names no process")?;
                self.steps.namespaces_made(first)?;
                // Of the container's processes only the first is there.
                self.others = self.cgroup.pids().unwrap_or_default().into_iter().collect();
                self.others.remove(&first);
                Ok(())
            }
            "orphan-pts-master" => {
                let master = fds.into_iter().next().ok_or("criu sent no terminal")?;
                let console =
                    self.console.take().ok_or("the container has a terminal, and nobody takes it")?;
                socket::send(&console, b"orphan-pts-master", &[master.as_fd()])?;
                self.shown_master = self.shown.and(Some(master));
                Ok(())
            }
            "post-restore" => {
                let pid = at.pid.ok_or("criu names no process")?;
                let child = Child { pid, pidfd: process::pidfd_open(pid)? };
                self.judge.judge(pid)?;
                // Not when the master comes: criu gives the terminal its saved size and settings only after that.
                if let (Some(shown), Some(master)) = (self.shown, self.shown_master.take()) {
                    shown.prepare(master.as_fd())?;
                }
                self.handed.discard_output();
                self.steps.restored(&child, self.cgroup)?;
                self.child = Some(child);
                Ok(())
            }
            // Only now have they the rights that the images give them; they are stopped.
            "pre-resume" => {
                let first = self.child.as_ref().ok_or("criu has restored no process")?.pid;
                processes::judge(
                    (first, self.criu),
                    (self.cgroup, &self.others),
                    (&self.bounds, self.judge),
                )?;
                self.judged = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_its_root() {
        let roots = parse_cgroups("3:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n");
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            roots,
            [pair("cpu", "/a"), pair("cpuacct", "/a"), pair("name=systemd", "/b:c"), pair("", "/d")]
        );
    }
}
