//! A pod's namespaces without a process in them: the runtime creates a container that is never started, its namespaces are
//! bound to files of the bundle, and it is deleted. The files keep them until they are unmounted. A user namespace comes
//! first: the others are made in it, and belong to it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use ketch_runtime_client::{Create, Runtime, Stdio, read_pid_file};
use rustix::fs::Mode;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde::{Deserialize, Serialize};

use crate::container::{CLEANUP, STATE_ROOT};
use crate::error::ShimError;
use crate::pod::Pod;
use crate::server::Limits;
use crate::service::Shim;
use crate::users::{self, Mappings};
use crate::{log, socket};

/// The folder of the kept namespaces in the bundle.
const FOLDER: &str = "namespaces";
/// The bundle of the container that makes them.
const MAKER: &str = "namespaces-maker";

/// Where a pod's namespaces are kept; absent ones are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces(BTreeMap<String, String>);

impl Namespaces {
    /// Kinds, in the words of the runtime-spec, and their files.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(kind, path)| (kind.as_str(), path.as_str()))
    }

    /// The file of a kind.
    pub(crate) fn path(&self, kind: &str) -> Option<&str> {
        self.0.get(kind).map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn of(kind: &str, path: &str) -> Self {
        Self([(kind.to_owned(), path.to_owned())].into())
    }

    fn keep(&mut self, bundle: &Path, kind: &str, namespace: &Path) -> Result<(), ShimError> {
        let path = bundle.join(FOLDER).join(kind);
        std::fs::write(&path, "").map_err(ShimError::file("make", &path))?;
        mount_bind(namespace, &path)
            .map_err(|error| ShimError::file("keep the namespace at", &path)(error.into()))?;
        self.0.insert(kind.to_owned(), path.to_string_lossy().into_owned());
        Ok(())
    }
}

/// Makes a pod's namespaces, and keeps them.
///
/// # Errors
/// The runtime fails, or a namespace can't be bound. Nothing is left then.
pub(crate) async fn make(
    shim: &Shim,
    runtime: &Runtime,
    bundle: &Path,
    id: &str,
    pod: &Pod,
    limits: Limits,
) -> Result<Namespaces, ShimError> {
    let folder = bundle.join(FOLDER);
    make_folder(&folder)?;
    let made = make_all(shim, runtime, bundle, id, pod, limits).await;
    made.inspect_err(|_| unmake(bundle))
}

async fn make_all(
    shim: &Shim,
    runtime: &Runtime,
    bundle: &Path,
    id: &str,
    pod: &Pod,
    limits: Limits,
) -> Result<Namespaces, ShimError> {
    let mut kept = Namespaces::default();
    if let Some(mappings) = &pod.users {
        let users = user_namespace(shim, pod, mappings).await?;
        kept.keep(bundle, "user", format!("/proc/self/fd/{}", users.as_raw_fd()).as_ref())?;
    }
    let maker = bundle.join(MAKER);
    let root = if pod.users.is_some() { root_for_mapped(bundle) } else { maker.join("rootfs") };
    make_folder(&maker)?;
    make_root(&root, pod.users.as_ref().and_then(Mappings::root))?;
    let config = maker.join("config.json");
    let text = pod.maker(id, &root, kept.path("user")).to_string();
    std::fs::write(&config, text).map_err(ShimError::file("write", &config))?;
    let pid_file = maker.join("pid");
    let name = format!("{id}-namespaces");
    // Whatever systemd would name is not worth a unit for these few milliseconds.
    let runtime = Runtime { systemd_cgroup: false, ..runtime.clone() };
    let create = Create {
        bundle: &maker,
        pid_file: &pid_file,
        console_socket: None,
        no_pivot: false,
        no_new_keyring: true,
        stdio: Stdio::default(),
    };
    let created = runtime.create(shim.reaper.as_ref(), &name, create, limits.runtime()).await;
    let done = match created {
        Ok(()) => keep_of(&mut kept, bundle, &pid_file, pod),
        Err(error) => Err(ShimError::runtime("make the sandbox's namespaces")(error)),
    };
    let deleted = runtime.delete(shim.reaper.as_ref(), &name, true, CLEANUP).await;
    if let Err(error) = deleted
        && !error.is_no_container()
    {
        log::warn(&format!("delete {name}: {}", error.words()));
    }
    let _gone = (std::fs::remove_dir_all(&root), std::fs::remove_dir_all(&maker));
    done.map(|()| kept)
}

/// The one that a pod's network belongs to, if containerd has made that in one of its own, else a new one: whoever is root
/// in a pod must be it over the network, too.
async fn user_namespace(shim: &Shim, pod: &Pod, mappings: &Mappings) -> Result<OwnedFd, ShimError> {
    if !pod.netns_path.is_empty() {
        let path = Path::new(&pod.netns_path);
        let owner = users::owner_of(path).map_err(ShimError::file("find the user namespace of", path))?;
        if let Some(owner) = owner {
            return Ok(owner);
        }
    }
    users::make(mappings, &shim.reaper).await
}

/// The root folder of the container that makes a mapped pod's namespaces. It is looked for by the pod's root, whom containerd
/// does not let into the folder that has the bundles of sandboxes.
fn root_for_mapped(bundle: &Path) -> PathBuf {
    Path::new(STATE_ROOT).join(format!("pod-{}", socket::name_for(&bundle.to_string_lossy())))
}

fn make_folder(path: &Path) -> Result<(), ShimError> {
    std::fs::DirBuilder::new().recursive(true).create(path).map_err(ShimError::file("make", path))
}

/// A root folder with what runtimes look for when they create: a program, which is never started.
fn make_root(root: &Path, owner: Option<(u32, u32)>) -> Result<(), ShimError> {
    make_folder(root.parent().unwrap_or(root))?;
    std::fs::create_dir(root).map_err(ShimError::file("make", root))?;
    let program = root.join("none");
    std::fs::write(&program, "").map_err(ShimError::file("make", &program))?;
    rustix::fs::chmod(&program, Mode::from_raw_mode(0o755))
        .map_err(|error| ShimError::file("make", &program)(error.into()))?;
    if let Some((user, group)) = owner {
        // In there the runtime makes the places of mounts.
        chown(root, Some(user), Some(group)).map_err(ShimError::file("give away", root))?;
    }
    Ok(())
}

fn keep_of(kept: &mut Namespaces, bundle: &Path, pid_file: &Path, pod: &Pod) -> Result<(), ShimError> {
    let pid = read_pid_file(pid_file).map_err(ShimError::runtime("make the sandbox's namespaces"))?;
    for (kind, name, wanted) in
        [("network", "net", pod.own_network), ("uts", "uts", pod.own_network), ("ipc", "ipc", pod.own_ipc)]
    {
        if !wanted {
            continue;
        }
        if kind == "network" && !pod.netns_path.is_empty() {
            kept.0.insert(kind.to_owned(), pod.netns_path.clone());
        } else {
            kept.keep(bundle, kind, format!("/proc/{pid}/ns/{name}").as_ref())?;
        }
    }
    Ok(())
}

/// Lets a pod's namespaces go. Those that a container still has live as long as it does.
pub(crate) fn unmake(bundle: &Path) {
    let folder = bundle.join(FOLDER);
    for file in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let _not_mounted = unmount(file.path(), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        let _gone = std::fs::remove_file(file.path());
    }
    let _gone = std::fs::remove_dir(&folder);
    // Of a shim that was killed while it made them.
    for maker in [bundle.join(MAKER), root_for_mapped(bundle)] {
        let _gone = std::fs::remove_dir_all(maker);
    }
}
