//! What is to be done to the root file system, as plain data.
//!
//! Owns the decisions: which mounts in which order with which flags, which device nodes, links, masks and read-only
//! paths, and how the root is entered. It makes no system call and opens nothing: `rootfs` carries it out in the
//! container's first process. Built by `Plan::new`.

mod dev;
mod paths;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mount_flags::{MountFlags, Propagation, PropagationKind, TreeAttributes};
use crate::spec::mount_options::{self, Recursion};
use crate::spec::{IdMapping, Linux, Mount, NamespaceType, Spec};

pub use dev::{DevPlan, DeviceKind, DeviceNode};
pub use paths::clean;

use dev::device_nodes;
use paths::strip_root;

/// Everything that `rootfs` carries out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// The root file system on the host: absolute, without `.` and `..`.
    pub path: PathBuf,
    /// How the root becomes `/`.
    pub entry: RootEntry,
    /// `rootfsPropagation`, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// Whether `/` ends up read-only.
    pub readonly: bool,
    /// Whether the container has a user namespace, so that device nodes are bound instead of made.
    pub user_namespace: bool,
    /// Whether the container has a cgroup namespace of its own.
    pub cgroup_namespace: bool,
    /// SELinux label for the mounts that take one; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    /// Mounts, in order.
    pub mounts: Vec<MountStep>,
    /// What `/dev` is filled with; `None` when the bundle binds a `/dev` of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<DevPlan>,
    /// Paths to hide, cleaned and without duplicates.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
}

/// How the root becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootEntry {
    /// pivot_root(2), in a mount namespace of the container.
    PivotRoot,
    /// `MS_MOVE` and chroot(2): `--no-pivot`, for hosts whose root is a ramfs.
    MoveMount,
    /// chroot(2) alone: the container has no mount namespace of its own.
    Chroot,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountStep {
    /// What the bundle calls the source; for binds an absolute path of the host.
    pub source: String,
    /// The destination as the bundle has it, for messages.
    pub destination: String,
    /// The destination below the root: absolute, cleaned, without the root's own path.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Flags to set.
    pub flags: MountFlags,
    /// Flags that the bundle wants cleared.
    #[serde(default, skip_serializing_if = "MountFlags::is_empty")]
    pub cleared: MountFlags,
    /// Attributes for the mount and everything below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeAttributes>,
    /// Propagation changes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub propagation: Vec<Propagation>,
    /// Options for the file system, joined by commas.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Whether a tmpfs starts with a copy of what it covers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
    /// Owners seen through other mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_map: Option<IdmapRequest>,
}

impl MountStep {
    /// Whether the mount is a bind.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.kind == MountKind::Bind
    }

    /// Whether the mount keeps the network namespace that it is made in: sysfs, whose `class/net` shows it, and file
    /// systems that may have servers. Those of every container, which have nothing to do with it, are known.
    #[must_use]
    pub fn belongs_to_network(&self) -> bool {
        match &self.kind {
            MountKind::Sysfs => true,
            MountKind::Filesystem(name) => name != "devpts",
            MountKind::Bind | MountKind::Proc | MountKind::Mqueue | MountKind::Tmpfs | MountKind::Cgroup => {
                false
            }
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host; the options `bind` and `rbind` decide, not the type.
    Bind,
    /// procfs.
    Proc,
    /// sysfs.
    Sysfs,
    /// POSIX message queues.
    Mqueue,
    /// tmpfs.
    Tmpfs,
    /// The container's view of the cgroups, whichever version the host has.
    Cgroup,
    /// Any other file system, by its name.
    Filesystem(String),
}

/// The owners of a mount's files, seen through other mappings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdmapRequest {
    /// Where the mappings come from.
    pub mappings: IdmapSource,
    /// Whether submounts are mapped as well.
    pub recursive: bool,
}

/// Where the mappings of an id-mapped mount come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdmapSource {
    /// Given, or those of the container's new user namespace.
    Mappings {
        /// User ids.
        uids: Vec<IdMapping>,
        /// Group ids.
        gids: Vec<IdMapping>,
    },
    /// Those of the user namespace at this path.
    Namespace(PathBuf),
}

/// What the bundle alone does not tell.
#[derive(Clone, Copy, Debug)]
pub struct RootfsOptions<'a> {
    /// The bundle: an absolute path. Relative paths of the configuration are below it.
    pub bundle: &'a Path,
    /// `PivotRoot` unless `--no-pivot` asked for `MoveMount`.
    pub entry: RootEntry,
}

/// Why a configuration cannot be carried out on a root file system.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RootfsPlanError {
    /// The bundle names no root.
    #[error("root must be specified")]
    NoRoot,
    /// The propagation of the root is none of the kernel's.
    #[error("rootfsPropagation={0} is not supported")]
    Propagation(String),
    /// A private root under `--no-pivot` would uncover the host's mounts.
    #[error("rootfsPropagation of [r]private is not safe without pivot_root")]
    PrivateWithoutPivot,
    /// A C string cannot hold it.
    #[error("mount field contains null byte")]
    NulByte,
    /// A device is of no kind that Linux has.
    #[error("invalid device type {0:?}")]
    DeviceType(String),
    /// A device has a number that no device has.
    #[error("device {path:?} has an invalid number {major}:{minor}")]
    DeviceNumber {
        /// Its path.
        path: String,
        /// Its major number.
        major: i64,
        /// Its minor number.
        minor: i64,
    },
    /// A mount's options contradict each other.
    #[error("invalid mount {destination:?}: {reason}")]
    Mount {
        /// Its destination.
        destination: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Masks and read-only paths would be made in the host's mount namespace.
    #[error("unable to restrict sys entries without a private MNT namespace")]
    RestrictedWithoutNamespace,
}

/// Plans the root file system of `spec`.
///
/// # Errors
/// [`RootfsPlanError`] for a configuration that contradicts itself.
pub fn plan(spec: &Spec, options: &RootfsOptions<'_>) -> Result<RootfsPlan, RootfsPlanError> {
    let root = spec.root.as_ref().ok_or(RootfsPlanError::NoRoot)?;
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    let has = |kind| linux.namespace(kind).is_some();
    let path = clean(&options.bundle.join(&root.path));

    let entry = if has(NamespaceType::Mount) { options.entry } else { RootEntry::Chroot };
    let propagation = match linux.rootfs_propagation.as_str() {
        "" => None,
        name => Some(
            mount_options::propagation(name)
                .and_then(Propagation::from_flags)
                .ok_or_else(|| RootfsPlanError::Propagation(name.to_owned()))?,
        ),
    };
    if options.entry == RootEntry::MoveMount
        && propagation.is_some_and(|propagation| propagation.kind == PropagationKind::Private)
    {
        return Err(RootfsPlanError::PrivateWithoutPivot);
    }
    if entry == RootEntry::Chroot && !(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty()) {
        return Err(RootfsPlanError::RestrictedWithoutNamespace);
    }

    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        mounts.push(mount_step(mount, linux, &path, options.bundle)?);
    }
    let own_dev = mounts.iter().any(|mount| mount.is_bind() && mount.target == Path::new("/dev"));
    let dev = if own_dev { None } else { Some(DevPlan { nodes: device_nodes(&linux.devices)? }) };

    let mut masked_paths: Vec<PathBuf> = Vec::with_capacity(linux.masked_paths.len());
    for path in &linux.masked_paths {
        let path = clean(&Path::new("/").join(path));
        if !masked_paths.contains(&path) {
            masked_paths.push(path);
        }
    }

    Ok(RootfsPlan {
        path,
        entry,
        propagation,
        readonly: root.readonly,
        user_namespace: has(NamespaceType::User),
        cgroup_namespace: has(NamespaceType::Cgroup),
        mount_label: linux.mount_label.clone(),
        mounts,
        dev,
        masked_paths,
        readonly_paths: linux.readonly_paths.iter().map(PathBuf::from).collect(),
    })
}

fn mount_step(
    mount: &Mount,
    linux: &Linux,
    root: &Path,
    bundle: &Path,
) -> Result<MountStep, RootfsPlanError> {
    let options = mount.parse_options();
    let invalid = |reason| RootfsPlanError::Mount { destination: mount.destination.clone(), reason };
    if [&mount.source, &mount.destination, &mount.kind].into_iter().any(|field| field.contains('\0')) {
        return Err(RootfsPlanError::NulByte);
    }

    let is_bind = options.is_bind();
    let mut source = mount.source.clone();
    let kind = if is_bind {
        // The bundle comes from the command line, so a lossy conversion could only break a source that is not UTF-8
        // through the bundle's own path.
        source = clean_source(bundle, &mount.source);
        MountKind::Bind
    } else {
        match mount.kind.as_str() {
            "proc" => MountKind::Proc,
            "sysfs" => MountKind::Sysfs,
            "mqueue" => MountKind::Mqueue,
            "tmpfs" => MountKind::Tmpfs,
            "cgroup" => MountKind::Cgroup,
            other => MountKind::Filesystem(other.to_owned()),
        }
    };
    if is_bind && !options.data.is_empty() {
        return Err(invalid("bind mounts cannot have any filesystem-specific options applied"));
    }

    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let id_map = if mapped || options.id_mapped.is_some() {
        if !is_bind {
            return Err(invalid("id-mapped mounts are only supported for bind-mounts"));
        }
        let recursive = options.id_mapped == Some(Recursion::Recursive);
        let mappings = id_mappings(mount, linux).map_err(invalid)?;
        Some(IdmapRequest { mappings, recursive })
    } else {
        None
    };

    Ok(MountStep {
        source,
        destination: mount.destination.clone(),
        target: strip_root(root, Path::new(&mount.destination)),
        kind,
        flags: MountFlags(options.set),
        cleared: MountFlags(options.cleared),
        tree: Some(TreeAttributes { set: options.recursive_set, clear: options.recursive_cleared })
            .filter(|tree| *tree != TreeAttributes::default()),
        propagation: options.propagation.into_iter().filter_map(Propagation::from_flags).collect(),
        data: options.data,
        copy_up: options.copy_up,
        id_map,
    })
}

/// The mappings of an id-mapped mount: its own, or else the container's.
fn id_mappings(mount: &Mount, linux: &Linux) -> Result<IdmapSource, &'static str> {
    let both = |uids: &[IdMapping], gids: &[IdMapping]| {
        if uids.is_empty() || gids.is_empty() {
            return Err("id-mapped mounts must have both uid and gid mappings specified");
        }
        Ok(IdmapSource::Mappings { uids: uids.to_vec(), gids: gids.to_vec() })
    };
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return both(&mount.uid_mappings, &mount.gid_mappings);
    }
    match linux.namespace(NamespaceType::User) {
        Some(namespace) if !namespace.path.is_empty() => {
            Ok(IdmapSource::Namespace(PathBuf::from(&namespace.path)))
        }
        Some(_) => both(&linux.uid_mappings, &linux.gid_mappings),
        None => both(&[], &[]),
    }
}

/// A bind source: as the bundle has it when absolute, else below the bundle.
fn clean_source(bundle: &Path, source: &str) -> String {
    if Path::new(source).is_absolute() {
        return source.to_owned();
    }
    clean(&bundle.join(source)).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        Spec::from_slice(json.as_bytes()).unwrap()
    }

    fn planned(json: &str) -> Result<RootfsPlan, RootfsPlanError> {
        plan(&spec(json), &RootfsOptions { bundle: Path::new("/b/./c/.."), entry: RootEntry::PivotRoot })
    }

    #[test]
    fn the_options_decide_on_a_bind_and_the_type_does_not() {
        let plan = planned(
            r#"{"root":{"path":"rootfs"},"mounts":[
                {"destination":"/x","type":"proc","source":"src","options":["rbind","ro"]},
                {"destination":"/y","type":"bind","source":"src"},
                {"destination":"/b/rootfs/z","type":"tmpfs","source":"tmpfs","options":["mode=1777","tmpcopyup"]}],
               "linux":{"namespaces":[{"type":"mount"}]}}"#,
        )
        .unwrap();
        assert_eq!(plan.path, Path::new("/b/rootfs"));
        assert_eq!(plan.entry, RootEntry::PivotRoot);
        assert_eq!(plan.mounts[0].kind, MountKind::Bind);
        assert_eq!(plan.mounts[0].source, "/b/src");
        assert_eq!(plan.mounts[1].kind, MountKind::Filesystem(String::from("bind")));
        assert_eq!(plan.mounts[2].target, Path::new("/z"));
        assert!(plan.mounts[2].copy_up);
        assert_eq!(plan.mounts[2].data, "mode=1777");
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<RootfsPlan>(&json).unwrap(), plan);
    }

    #[test]
    fn devices_of_the_bundle_replace_default_ones() {
        let plan = planned(
            r#"{"root":{"path":"/r"},"linux":{"devices":[
                {"path":"/dev/tty","type":"c","major":5,"minor":0,"fileMode":8624,"uid":7},
                {"path":"/dev//ptmx","type":"c","major":5,"minor":2},
                {"path":"","type":"c","major":10,"minor":1},
                {"path":"/dev/pipe","type":"p"}]}}"#,
        )
        .unwrap();
        let nodes = plan.dev.unwrap().nodes;
        assert_eq!(nodes.len(), 7);
        let tty = nodes.iter().find(|node| node.path == Path::new("/dev/tty")).unwrap();
        assert_eq!((tty.mode, tty.uid, tty.gid), (0o660, 7, 0));
        assert_eq!(nodes.last().unwrap().kind, DeviceKind::Fifo);
        assert_eq!(plan.entry, RootEntry::Chroot);
        let bound = planned(
            r#"{"root":{"path":"/r"},"mounts":[{"destination":"/dev/","source":"/dev","options":["bind"]}]}"#,
        )
        .unwrap();
        assert_eq!(bound.dev, None);
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |json| planned(json).unwrap_err().to_string();
        assert_eq!(
            refused(
                r#"{"root":{"path":"r"},"mounts":[{"destination":"/x","source":"/s","options":["bind","mode=1"]}]}"#
            ),
            "invalid mount \"/x\": bind mounts cannot have any filesystem-specific options applied"
        );
        assert_eq!(
            refused(
                r#"{"root":{"path":"r"},"mounts":[{"destination":"/x","source":"/s","options":["bind","idmap"]}]}"#
            ),
            "invalid mount \"/x\": id-mapped mounts must have both uid and gid mappings specified"
        );
        assert_eq!(
            refused(
                r#"{"root":{"path":"r"},"mounts":[{"destination":"/x","type":"tmpfs","options":["idmap"]}]}"#
            ),
            "invalid mount \"/x\": id-mapped mounts are only supported for bind-mounts"
        );
        assert_eq!(
            refused(r#"{"root":{"path":"r"},"linux":{"rootfsPropagation":"ro"}}"#),
            "rootfsPropagation=ro is not supported"
        );
        assert_eq!(
            refused(r#"{"root":{"path":"r"},"linux":{"devices":[{"path":"/dev/x","type":"z"}]}}"#),
            "invalid device type \"z\""
        );
        assert_eq!(
            refused(r#"{"root":{"path":"r"},"linux":{"maskedPaths":["/x"]}}"#),
            "unable to restrict sys entries without a private MNT namespace"
        );
        assert_eq!(planned("{}").unwrap_err(), RootfsPlanError::NoRoot);
        let spec = spec(r#"{"root":{"path":"r"},"linux":{"rootfsPropagation":"rprivate"}}"#);
        let options = RootfsOptions { bundle: Path::new("/b"), entry: RootEntry::MoveMount };
        assert_eq!(plan(&spec, &options).unwrap_err(), RootfsPlanError::PrivateWithoutPivot);
    }

    #[test]
    fn masks_are_cleaned_and_unique() {
        let plan = planned(
            r#"{"root":{"path":"r"},"linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["/a","/a/","b"]}}"#,
        )
        .unwrap();
        assert_eq!(plan.masked_paths, [Path::new("/a"), Path::new("/b")]);
    }
}
