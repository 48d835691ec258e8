//! Checks of kernel parameters, memory policy, personality and resctrl.

use super::Subject;
use crate::spec::{NamespaceType, SpecError, id_list};

/// The parameters of an IPC namespace, besides `fs.mqueue.`.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// /proc/sys is namespaced in parts only: a container may set what belongs to its own namespaces.
pub(super) fn sysctl(subject: &Subject<'_>) -> Result<(), SpecError> {
    for key in subject.linux.sysctl.keys() {
        let key = dotted(key);
        if IPC_SYSCTLS.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
            if !subject.has(NamespaceType::Ipc) {
                return Err(SpecError::SysctlIpc { key });
            }
        } else if key.starts_with("net.") {
            net_sysctl(subject, key)?;
        } else if key == "kernel.domainname" && subject.has(NamespaceType::Uts) {
            // Namespaced, whatever field sets it.
        } else if key == "kernel.hostname" && subject.has(NamespaceType::Uts) {
            return Err(SpecError::SysctlHostname { key });
        } else if key.starts_with("user.") {
            // Outside of a user namespace of its own the container would change limits of the whole machine.
            if !subject.has(NamespaceType::User) {
                return Err(SpecError::SysctlUser { key });
            }
        } else {
            return Err(SpecError::SysctlGlobal { key });
        }
    }
    Ok(())
}

fn net_sysctl(subject: &Subject<'_>, key: String) -> Result<(), SpecError> {
    match &subject.facts.joins_own_network {
        _ if !subject.has(NamespaceType::Network) => Err(SpecError::SysctlNet { key }),
        Ok(false) => Ok(()),
        Ok(true) => Err(SpecError::SysctlNet { key }),
        Err(reason) => {
            let path = subject.joins(NamespaceType::Network).unwrap_or_default().to_owned();
            Err(SpecError::NetNamespacePath { path, reason: reason.clone() })
        }
    }
}

/// sysctl.d(5): a name whose first separator is a slash swaps slashes and dots.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key.as_bytes()[first] == b'/' => key
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

pub(super) fn memory_policy(subject: &Subject<'_>) -> Result<(), SpecError> {
    let Some(policy) = &subject.linux.memory_policy else { return Ok(()) };
    const FLAGS: [&str; 3] = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES", "MPOL_F_NUMA_BALANCING"];
    const MODES: [&str; 7] = [
        "MPOL_DEFAULT",
        "MPOL_PREFERRED",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_LOCAL",
        "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE",
    ];
    let mode = policy.mode.as_str();
    if !MODES.contains(&mode) {
        return Err(SpecError::MemoryPolicyMode { mode: mode.to_owned() });
    }
    let nodes = id_list::parse(&policy.nodes)
        .map_err(|reason| SpecError::MemoryPolicyNodes { nodes: policy.nodes.clone(), reason })?;
    if let Some(flag) = policy.flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        return Err(SpecError::MemoryPolicyFlag { flag: flag.clone() });
    }
    let count = id_list::count(&nodes);
    match mode {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if count != 0 => Err(SpecError::MemoryPolicyWithNodes { count }),
        // The kernel takes an empty MPOL_PREFERRED for MPOL_LOCAL.
        "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED" => Ok(()),
        _ if count == 0 => Err(SpecError::MemoryPolicyWithoutNodes),
        _ => Ok(()),
    }
}

pub(super) fn personality(subject: &Subject<'_>) -> Result<(), SpecError> {
    match &subject.linux.personality {
        Some(personality) if !matches!(personality.domain.as_str(), "LINUX" | "LINUX32") => {
            Err(SpecError::PersonalityDomain { domain: personality.domain.clone() })
        }
        _ => Ok(()),
    }
}

pub(super) fn personality_flags(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    if let Some(personality) = subject.linux.personality.as_ref().filter(|given| !given.flags.is_empty()) {
        warnings.push(format!(
            "ignoring unsupported personality flags: [{}] because personality flag has not supported at this time",
            personality.flags.join(" ")
        ));
    }
}

pub(super) fn intel_rdt(subject: &Subject<'_>) -> Result<(), SpecError> {
    let Some(rdt) = &subject.linux.intel_rdt else { return Ok(()) };
    let facts = &subject.facts.intel_rdt;
    if facts.mountpoint.is_none() {
        return Err(SpecError::NoIntelRdt);
    }
    // "/" alone means the root group.
    let clos_id = rdt.clos_id.as_str();
    if clos_id == "." || clos_id == ".." || (clos_id.len() > 1 && clos_id.contains('/')) {
        return Err(SpecError::IntelRdtClosId { clos_id: clos_id.to_owned() });
    }
    if !facts.cache_allocation && !rdt.l3_cache_schema.is_empty() {
        return Err(SpecError::IntelRdtSchema { field: "l3CacheSchema", feature: "CAT" });
    }
    if !facts.memory_bandwidth_allocation && !rdt.mem_bw_schema.is_empty() {
        return Err(SpecError::IntelRdtSchema { field: "memBwSchema", feature: "MBA" });
    }
    Ok(())
}
