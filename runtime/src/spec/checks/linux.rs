//! Checks of namespaces, ids, devices and cgroup names.

use super::Subject;
use crate::spec::user_namespace::IdMappings;
use crate::spec::{IdMapping, NamespaceType, SpecError};

pub(super) fn devices(subject: &Subject<'_>) -> Result<(), SpecError> {
    match subject.linux.devices.iter().find(|device| !matches!(device.kind.as_str(), "p" | "u" | "c" | "b")) {
        Some(device) => Err(SpecError::DeviceType { kind: device.kind.clone() }),
        None => Ok(()),
    }
}

pub(super) fn cgroups_path(subject: &Subject<'_>) -> Result<(), SpecError> {
    let path = &subject.linux.cgroups_path;
    if subject.context.systemd_cgroup && !path.is_empty() && path.split(':').count() != 3 {
        return Err(SpecError::SystemdCgroupsPath { path: path.clone() });
    }
    Ok(())
}

pub(super) fn namespace_types(subject: &Subject<'_>) -> Result<(), SpecError> {
    let mut seen = Vec::new();
    for namespace in &subject.linux.namespaces {
        let kind = namespace
            .namespace_type()
            .ok_or_else(|| SpecError::NamespaceType { kind: namespace.kind.clone() })?;
        if seen.contains(&kind) {
            return Err(SpecError::DuplicateNamespace { kind });
        }
        seen.push(kind);
    }
    Ok(())
}

/// The container's root must exist outside, as devices and the cgroup are given to it.
pub(super) fn user_mappings(subject: &Subject<'_>) -> Result<(), SpecError> {
    if !subject.has(NamespaceType::User) {
        return Ok(());
    }
    let given =
        IdMappings { uid: subject.linux.uid_mappings.clone(), gid: subject.linux.gid_mappings.clone() };
    let effective = match &subject.facts.joined_mappings {
        Some(Ok(joined)) => {
            let none_given = given.uid.is_empty() && given.gid.is_empty();
            if !none_given && !same(&given, joined) {
                return Err(SpecError::MappingsDiffer);
            }
            joined
        }
        Some(Err(reason)) => {
            let path = subject.joins(NamespaceType::User).unwrap_or_default().to_owned();
            return Err(SpecError::JoinedMappings { path, reason: reason.clone() });
        }
        None => &given,
    };
    for (kind, mappings) in [("uid", &effective.uid), ("gid", &effective.gid)] {
        if mappings.is_empty() {
            return Err(SpecError::NoMappings { kind });
        }
        if IdMapping::host_id_of(mappings, 0).is_none() {
            return Err(SpecError::Unmapped { kind, id: 0 });
        }
    }
    Ok(())
}

/// The kernel prints mappings in its own order.
fn same(a: &IdMappings, b: &IdMappings) -> bool {
    let sorted = |mappings: &[IdMapping]| {
        let mut mappings = mappings.to_vec();
        mappings.sort_by_key(|mapping| (mapping.container_id, mapping.host_id, mapping.size));
        mappings
    };
    sorted(&a.uid) == sorted(&b.uid) && sorted(&a.gid) == sorted(&b.gid)
}

pub(super) fn joined_mappings_given(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    let given = !subject.linux.uid_mappings.is_empty() || !subject.linux.gid_mappings.is_empty();
    if subject.joins(NamespaceType::User).is_some() && given {
        warnings.push(
            "config.json has both a userns path to join and a matching userns mapping specified -- you may only \
             provide one."
                .to_owned(),
        );
    }
}

pub(super) fn net_devices(subject: &Subject<'_>) -> Result<(), SpecError> {
    if subject.linux.net_devices.is_empty() {
        return Ok(());
    }
    if !subject.has(NamespaceType::Network) {
        return Err(SpecError::NetDevicesWithoutNamespace);
    }
    if subject.context.rootless || subject.context.rootless_cgroups {
        return Err(SpecError::NetDevicesRootless);
    }
    for (name, device) in &subject.linux.net_devices {
        let renamed = (!device.name.is_empty()).then_some(&device.name);
        for name in std::iter::once(name).chain(renamed) {
            if !is_device_name(name) {
                return Err(SpecError::NetDeviceName { name: name.clone() });
            }
        }
    }
    Ok(())
}

/// The kernel's `dev_valid_name`: the name is a file name in sysfs, and its C string has to fit IFNAMSIZ.
fn is_device_name(name: &str) -> bool {
    const IFNAMSIZ: usize = 16;
    let allowed = |byte: u8| !matches!(byte, b'/' | b':' | 0 | 0x0b) && !byte.is_ascii_whitespace();
    !name.is_empty() && name.len() < IFNAMSIZ && name != "." && name != ".." && name.bytes().all(allowed)
}

pub(super) fn uts(subject: &Subject<'_>) -> Result<(), SpecError> {
    for (field, value) in [("hostname", &subject.spec.hostname), ("domainname", &subject.spec.domainname)] {
        if !value.is_empty() && !subject.has(NamespaceType::Uts) {
            return Err(SpecError::NoUtsNamespace { field });
        }
    }
    Ok(())
}

pub(super) fn namespaces(subject: &Subject<'_>) -> Result<(), SpecError> {
    let linux = subject.linux;
    if let Some(&kind) = subject.facts.missing_namespaces.first() {
        return Err(SpecError::NamespaceNotInKernel { kind });
    }
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    match linux.namespace(NamespaceType::Time) {
        None => Err(SpecError::TimeOffsetsWithoutNamespace),
        Some(namespace) if namespace.join_path().is_some() => Err(SpecError::TimeOffsetsWithPath),
        Some(_) => Ok(()),
    }
}

pub(super) fn rootless(subject: &Subject<'_>) -> Result<(), SpecError> {
    if !subject.context.rootless {
        return Ok(());
    }
    if !subject.has(NamespaceType::User) {
        return Err(SpecError::RootlessWithoutUserNamespace);
    }
    let linux = subject.linux;
    if subject.joins(NamespaceType::User).is_none() {
        for (kind, mappings) in [("UID", &linux.uid_mappings), ("GID", &linux.gid_mappings)] {
            if mappings.is_empty() {
                return Err(SpecError::RootlessWithoutMappings { kind });
            }
        }
    }
    let (uid, gid) = match &subject.facts.joined_mappings {
        Some(Ok(joined)) => (&joined.uid, &joined.gid),
        _ => (&linux.uid_mappings, &linux.gid_mappings),
    };
    for option in subject.options.iter().flat_map(|options| options.data.split(',')) {
        for (kind, prefix, mappings) in [("uid", "uid=", uid), ("gid", "gid=", gid)] {
            let id = option.strip_prefix(prefix).and_then(|id| id.parse().ok());
            if let Some(id) = id.filter(|id| IdMapping::host_id_of(mappings, *id).is_none()) {
                return Err(SpecError::RootlessMountId { option: option.to_owned(), kind, id });
            }
        }
    }
    Ok(())
}
