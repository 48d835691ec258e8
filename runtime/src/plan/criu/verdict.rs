//! Whether the mounts of a restored container are those that its configuration allows.
//!
//! criu binds by paths, and follows whatever symlinks a root file system has by then; and the images say which flags a
//! mount gets. So the outcome is looked at, mount by mount, before any restored process has run: what shows a part of the
//! host that config.json does not name, or less protected than it says, ends the restore (CVE-2026-119101,
//! CVE-2026-115520, CVE-2026-119614).

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::mount_table::{MountLine, Place};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::{MountKind, RootfsPlan};

/// What a container may be shown of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Its root.
    pub root: Option<Place>,
    /// Sources of its binds, each with the flags that its mounts must have.
    pub places: Vec<(Place, MountFlags)>,
    /// File systems without a device that it mounts itself, by name: where it shares a namespace with the host, it
    /// shares these.
    pub kinds: Vec<&'static str>,
}

/// A mount that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// The root is another.
    #[error("the root of the restored container is {0:?} of another file system than configured")]
    Root(PathBuf),
    /// Something of the host.
    #[error(
        "the restored container would be shown {root:?} of the host's {kind} at {point:?}, which config.json does not allow"
    )]
    Foreign {
        /// Where.
        point: PathBuf,
        /// The file system.
        kind: String,
        /// The part of it.
        root: PathBuf,
    },
    /// Something allowed, but with more rights.
    #[error("the restored container would be shown {point:?} without {missing}, which config.json asks for")]
    Unprotected {
        /// Where.
        point: PathBuf,
        /// The flags that it lacks.
        missing: MountFlags,
    },
}

/// The kinds of [`Allowed`] for a configuration.
#[must_use]
pub fn kinds(rootfs: &RootfsPlan) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for step in &rootfs.mounts {
        match &step.kind {
            MountKind::Proc => kinds.push("proc"),
            MountKind::Sysfs => kinds.push("sysfs"),
            MountKind::Mqueue => kinds.push("mqueue"),
            MountKind::Cgroup => kinds.extend(["cgroup", "cgroup2"]),
            MountKind::Filesystem(name) => {
                let known = ["devpts", "securityfs", "binfmt_misc", "debugfs", "tracefs", "bpf", "hugetlbfs"];
                kinds.extend(known.into_iter().filter(|kind| kind == name));
            }
            MountKind::Bind | MountKind::Tmpfs => {}
        }
    }
    kinds
}

/// Judges the table of the restored container by the table of the host.
///
/// # Errors
/// The first mount that must not be.
pub fn judge(container: &[MountLine], host: &[MountLine], allowed: &Allowed) -> Result<(), Violation> {
    for mount in container.iter().filter(|mount| mount.point == Path::new("/")) {
        match &allowed.root {
            Some(root) if root.device == mount.device && root.path == mount.root => {}
            _ => return Err(Violation::Root(mount.root.clone())),
        }
    }
    judge_inner(container, host, allowed)
}

/// The same of a mount namespace that a process of the container has made, whose root is any that it had.
///
/// # Errors
/// As [`judge`].
pub fn judge_inner(container: &[MountLine], host: &[MountLine], allowed: &Allowed) -> Result<(), Violation> {
    for mount in container {
        let lacking: Vec<MountFlags> = allowed
            .places
            .iter()
            .filter(|(place, _)| place.contains(mount))
            .map(|(_, wanted)| wanted.without(mount.flags))
            .collect();
        if lacking.iter().any(MountFlags::is_empty) {
            continue;
        }
        if let Some(missing) = lacking.first() {
            return Err(Violation::Unprotected { point: mount.point.clone(), missing: *missing });
        }
        let own = allowed.root.as_ref().is_some_and(|root| root.contains(mount));
        let shared = allowed.kinds.contains(&mount.kind.as_str());
        if own || shared || !host.iter().any(|other| other.device == mount.device) {
            continue;
        }
        return Err(Violation::Foreign {
            point: mount.point.clone(),
            kind: mount.kind.clone(),
            root: mount.root.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mount_table::parse;
    use super::*;

    const HOST: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:20 / /run rw - tmpfs tmpfs rw\n\
        3 1 0:21 / /proc rw - proc proc rw\n4 1 0:5 / /dev rw - devtmpfs dev rw\n5 1 0:22 / /sys rw - sysfs sysfs rw\n";

    fn allowed() -> Allowed {
        let place = |device: &str, path: &str| Place { device: device.into(), path: path.into() };
        Allowed {
            root: Some(place("8:1", "/srv/rootfs")),
            places: vec![
                (place("8:1", "/etc/resolv.conf"), MountFlags::READ_ONLY),
                (place("8:1", "/vol"), MountFlags::NONE),
                (place("0:5", "/null"), MountFlags::NONE),
            ],
            kinds: vec!["proc", "sysfs"],
        }
    }

    fn judged(lines: &str) -> Result<(), Violation> {
        let table = format!("9 1 8:1 /srv/rootfs / rw - ext4 /dev/sda1 rw\n{lines}");
        judge(&parse(table.as_bytes()), &parse(HOST), &allowed())
    }

    #[test]
    fn what_is_configured_is_allowed() {
        let lines = "10 9 0:40 / /proc rw - proc proc rw\n11 9 0:22 / /sys ro - sysfs sysfs rw\n\
            12 9 0:41 / /dev rw - tmpfs tmpfs rw\n13 9 8:1 /etc/resolv.conf /etc/resolv.conf ro - ext4 /dev/sda1 rw\n\
            14 9 8:1 /vol/sub /data rw - ext4 /dev/sda1 rw\n15 10 0:5 /null /proc/kcore rw - devtmpfs dev rw\n\
            16 9 8:1 /srv/rootfs/etc /etc ro - ext4 /dev/sda1 rw\n";
        assert_eq!(judged(lines), Ok(()));
    }

    #[test]
    fn what_is_the_hosts_is_not() {
        for line in [
            "10 9 8:1 /etc /etc ro - ext4 /dev/sda1 rw\n",
            "10 9 8:1 / /data rw - ext4 /dev/sda1 rw\n",
            "10 9 8:1 /srv/rootfs2 /data rw - ext4 /dev/sda1 rw\n",
            "10 9 8:1 /vol2 /data rw - ext4 /dev/sda1 rw\n",
            "10 9 0:20 / /run rw - tmpfs tmpfs rw\n",
            "10 9 0:5 /mem /dev/mem rw - devtmpfs dev rw\n",
        ] {
            assert!(matches!(judged(line), Err(Violation::Foreign { .. })), "{line}");
        }
    }

    #[test]
    fn what_is_allowed_keeps_its_flags_and_the_root_its_place() {
        let error = judged("10 9 8:1 /etc/resolv.conf /x rw - ext4 /dev/sda1 rw\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the restored container would be shown \"/x\" without MS_RDONLY, which config.json asks for"
        );
        let table = parse(b"9 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        assert!(matches!(judge(&table, &parse(HOST), &allowed()), Err(Violation::Root(_))));
        assert!(matches!(judge_inner(&table, &parse(HOST), &allowed()), Err(Violation::Foreign { .. })));
        let inner = parse(b"9 1 8:1 /srv/rootfs/chroot / rw - ext4 /dev/sda1 rw\n");
        assert_eq!(judge_inner(&inner, &parse(HOST), &allowed()), Ok(()));
    }
}
