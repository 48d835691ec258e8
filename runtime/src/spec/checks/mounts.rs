//! Checks of `root`, `mounts` and the paths that are hidden or read-only.

use super::Subject;
use crate::spec::error::MountFault;
use crate::spec::facts::{RootfsFact, rootfs_path};
use crate::spec::mount_options::{flag, propagation};
use crate::spec::{Mount, MountOptions, NamespaceType, SpecError};

pub(super) fn root_given(subject: &Subject<'_>) -> Result<(), SpecError> {
    subject.spec.root.as_ref().map(|_| ()).ok_or(SpecError::NoRoot)
}

pub(super) fn rootfs(subject: &Subject<'_>) -> Result<(), SpecError> {
    match &subject.facts.rootfs {
        RootfsFact::Exists => Ok(()),
        RootfsFact::Symlink => Err(SpecError::RootfsSymlink),
        RootfsFact::Missing(reason) => {
            let root = subject.spec.root.as_ref().map_or("", |root| root.path.as_str());
            let path = rootfs_path(&subject.context.bundle, root);
            Err(SpecError::Rootfs { path, reason: reason.clone() })
        }
    }
}

pub(super) fn rootfs_propagation(subject: &Subject<'_>) -> Result<(), SpecError> {
    let value = &subject.linux.rootfs_propagation;
    if value.is_empty() {
        return Ok(());
    }
    let flags = propagation(value).ok_or_else(|| SpecError::RootfsPropagation { value: value.clone() })?;
    if subject.context.no_pivot && flags & flag::PRIVATE != 0 {
        return Err(SpecError::PrivateWithoutPivot);
    }
    Ok(())
}

pub(super) fn restricted_paths(subject: &Subject<'_>) -> Result<(), SpecError> {
    let restricted = !subject.linux.masked_paths.is_empty() || !subject.linux.readonly_paths.is_empty();
    if restricted && !subject.has(NamespaceType::Mount) {
        return Err(SpecError::NoMountNamespace);
    }
    Ok(())
}

pub(super) fn mount_fields(subject: &Subject<'_>) -> Result<(), SpecError> {
    let nul = |mount: &&Mount| {
        [&mount.source, &mount.destination, &mount.kind].into_iter().any(|field| field.contains('\0'))
    };
    match subject.spec.mounts.iter().find(nul) {
        Some(mount) => Err(fault(mount, MountFault::NulByte)),
        None => Ok(()),
    }
}

pub(super) fn mounts(subject: &Subject<'_>) -> Result<(), SpecError> {
    for (mount, options) in subject.spec.mounts.iter().zip(subject.options) {
        // The kernel ignores such options without a word, so they can't be meant.
        if options.is_bind() && !options.data.is_empty() {
            return Err(fault(mount, MountFault::BindWithData));
        }
        id_mapping(subject, mount, options).map_err(|reason| fault(mount, reason))?;
    }
    Ok(())
}

fn id_mapping(subject: &Subject<'_>, mount: &Mount, options: &MountOptions) -> Result<(), MountFault> {
    let given = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if !given && options.id_mapped.is_none() {
        return Ok(());
    }
    if !options.is_bind() {
        return Err(MountFault::IdMappedNotBind);
    }
    if subject.context.rootless {
        return Err(MountFault::IdMappedRootless);
    }
    if given {
        let whole = !mount.uid_mappings.is_empty() && !mount.gid_mappings.is_empty();
        return if whole { Ok(()) } else { Err(MountFault::IdMappedHalf) };
    }
    // Without mappings of its own the mount takes those of the container's user namespace.
    if subject.joins(NamespaceType::User).is_some() {
        return Ok(());
    }
    let container = subject.has(NamespaceType::User)
        && !subject.linux.uid_mappings.is_empty()
        && !subject.linux.gid_mappings.is_empty();
    if container { Ok(()) } else { Err(MountFault::IdMappedHalf) }
}

pub(super) fn relative_destinations(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    for mount in subject.spec.mounts.iter().filter(|mount| !mount.destination.starts_with('/')) {
        warnings.push(format!(
            "mount destination {} is not absolute. Support for non-absolute mount destinations will be removed in a \
             future release.",
            mount.destination
        ));
    }
}

fn fault(mount: &Mount, reason: MountFault) -> SpecError {
    SpecError::Mount { destination: mount.destination.clone(), reason }
}
