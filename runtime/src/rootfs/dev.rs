//! `/dev`: device nodes, and the links that every container has. All of it by [`RootDir`], so that an image whose
//! `/dev` is a symlink gets its nodes inside its own root (CVE-2026-41579).

use std::path::Path;

use ketch_sys::mount::{self, Extent};
use ketch_sys::path::{self, NodeKind};
use ketch_sys::{Errno, SyscallError, stat};

use super::entries::{Entries, NewNode};
use super::root_dir::{LastLink, Missing, RootDir};
use super::{RootfsError, error};
use crate::plan::rootfs::{DevPlan, DeviceKind, DeviceNode, RootfsPlan};

/// Links of `/dev`, by what they point to and their names.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Makes the nodes and links of `/dev`.
pub(super) fn fill(root: &RootDir, dev: &DevPlan, plan: &RootfsPlan) -> Result<(), error::RootfsError> {
    path::without_umask(|| fill_with_exact_modes(root, dev, plan))
}

fn fill_with_exact_modes(root: &RootDir, dev: &DevPlan, plan: &RootfsPlan) -> Result<(), RootfsError> {
    let mut entries = Entries::new(root);
    for node in &dev.nodes {
        make_node(root, &mut entries, node, plan).map_err(|source| RootfsError::Dev {
            step: "error creating device nodes: create device inode",
            path: node.path.display().to_string(),
            source,
        })?;
    }
    link_ptmx(&mut entries).map_err(|source| RootfsError::Dev {
        step: "error setting up ptmx",
        path: String::new(),
        source,
    })?;
    let failed =
        |source| RootfsError::Dev { step: "error setting up /dev symlinks", path: String::new(), source };
    // A kernel may have no /proc/kcore; the container's procfs is the same kernel's.
    let core = Path::new("/proc/kcore").exists().then_some(("/proc/kcore", "/dev/core"));
    for (target, link) in LINKS.into_iter().chain(core) {
        match entries.make_symlink(Path::new(target), Path::new(link)) {
            Err(error) if error.errno != Errno::EEXIST => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// `/dev/ptmx` is the multiplexer of the container's own devpts, whatever the image has there.
fn link_ptmx(entries: &mut Entries<'_>) -> Result<(), SyscallError> {
    let ptmx = Path::new("/dev/ptmx");
    match entries.unlink(ptmx) {
        Err(error) if error.errno != Errno::ENOENT => return Err(error),
        _ => {}
    }
    entries.make_symlink(Path::new("pts/ptmx"), ptmx)
}

fn make_node(
    root: &RootDir,
    entries: &mut Entries<'_>,
    node: &DeviceNode,
    plan: &RootfsPlan,
) -> Result<(), SyscallError> {
    // A user namespace may not make devices, only bind those of the host.
    if plan.user_namespace {
        return bind_node(root, node);
    }
    let new = NewNode {
        path: &node.path,
        kind: node_kind(node.kind),
        device: device_number(node),
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
    };
    match entries.make_node(&new) {
        Err(error) if error.errno == Errno::EEXIST => Ok(()),
        // The runtime itself may be in a user namespace.
        Err(error) if error.call == "mknodat" && error.errno == Errno::EPERM => bind_node(root, node),
        other => other,
    }
}

fn node_kind(kind: DeviceKind) -> NodeKind {
    match kind {
        DeviceKind::Character => NodeKind::Character,
        DeviceKind::Block => NodeKind::Block,
        DeviceKind::Fifo => NodeKind::Fifo,
    }
}

fn device_number(node: &DeviceNode) -> u64 {
    if node.kind == DeviceKind::Fifo { 0 } else { stat::device_number(node.major, node.minor) }
}

/// Binds the host's node of the same path, which must be the device that is asked for.
fn bind_node(root: &RootDir, node: &DeviceNode) -> Result<(), SyscallError> {
    let tree = mount::clone_host_tree(&node.path, Extent::Single)?;
    let status = stat::status(&tree)?;
    if status.file_type() != node_kind(node.kind).file_type() || status.special_device != device_number(node)
    {
        return Err(SyscallError::new("fstat", node.path.display().to_string(), Errno::ENODEV));
    }
    let target = root.resolve_or_create(&node.path, Missing::File, LastLink::Refuse)?;
    mount::attach(&tree, &target.fd)
}
