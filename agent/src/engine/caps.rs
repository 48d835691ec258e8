//! Capabilities: Docker's default set, and what is added to and taken from it. Pure.

use crate::error::{Error, Result};

/// All, by number.
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has that asks for nothing.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The full names of a request's list, `ALL` among them.
///
/// # Errors
/// A capability that there is not: dockerd's text.
pub fn normalize(given: &[String]) -> Result<Vec<String>> {
    given
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if ALL.contains(&full.as_str()) {
                return Ok(full);
            }
            Err(Error::invalid(format!("unknown capability: {full:?}")))
        })
        .collect()
}

/// Those of a mask, as /proc/self/status has it.
#[must_use]
pub fn of_mask(mask: u64) -> Vec<&'static str> {
    ALL.iter().enumerate().filter(|(number, _)| mask >> number & 1 == 1).map(|(_, name)| *name).collect()
}

/// The set of a container; `known` are those that the daemon has itself, all that it can give.
///
/// # Errors
/// A capability that there is not.
pub fn set(
    add: &[String],
    drop: &[String],
    privileged: bool,
    known: &[&'static str],
) -> Result<Vec<&'static str>> {
    let (add, drop) = (normalize(add)?, normalize(drop)?);
    if privileged {
        return Ok(known.to_vec());
    }
    let has = |list: &[String], name: &str| list.iter().any(|given| given == name);
    // As Docker: what is added besides ALL says nothing; what is dropped besides ALL says nothing, either.
    if has(&add, "ALL") {
        return Ok(known.iter().copied().filter(|name| !has(&drop, name)).collect());
    }
    let defaults = DEFAULT.iter().copied().filter(|name| !has(&drop, "ALL") && !has(&drop, name));
    let added = ALL.iter().copied().filter(|name| has(&add, name));
    let mut set: Vec<_> = defaults.filter(|name| !has(&add, name)).collect();
    set.extend(added);
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let own = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        set(&own(add), &own(drop), false, &ALL).unwrap()
    }

    #[test]
    fn sets() {
        assert_eq!(given(&[], &[]), DEFAULT);
        assert_eq!(given(&["net_admin", "CAP_SYS_TIME"], &["ALL"]), ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(given(&["ALL"], &["CHOWN"]).len(), 40);
        assert_eq!(given(&[], &["mknod"]).len(), 13);
        assert_eq!(
            set(&[], &[], true, &of_mask(0x7)).unwrap(),
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
        );
        assert_eq!(
            set(&["x".into()], &[], false, &ALL).unwrap_err().message,
            "unknown capability: \"CAP_X\""
        );
    }
}
