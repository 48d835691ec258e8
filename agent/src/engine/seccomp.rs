//! The seccomp profile of a container: Docker's published default rules, as far as its capabilities go. Pure.
//!
//! The rules for the default capabilities are those of `oci-bundles/docker-default`; what more capabilities allow is here.

use serde_json::{Value, json};

use crate::error::{Error, Result};

const DEFAULT: &str = include_str!("../../../oci-bundles/docker-default/seccomp-28.5.json");

/// What a capability allows besides.
const BY_CAPABILITY: [(&str, &[&str]); 12] = [
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
];

/// The default profile for these capabilities.
///
/// # Errors
/// The profile in the program is none.
pub fn default(capabilities: &[&str]) -> Result<Value> {
    let has = |name: &str| capabilities.contains(&name);
    let mut profile: Value = serde_json::from_str(DEFAULT)
        .map_err(|error| Error::internal("reading the default seccomp profile", &error))?;
    let Some(rules) = profile.get_mut("syscalls").and_then(Value::as_array_mut) else { return Ok(profile) };
    let only = |rule: &Value, name: &str| rule["names"] == json!([name]);
    rules.retain(|rule| {
        let of_namespaces = only(rule, "clone") || only(rule, "clone3");
        !(of_namespaces && has("CAP_SYS_ADMIN") || only(rule, "chroot") && !has("CAP_SYS_CHROOT"))
    });
    for (_, names) in BY_CAPABILITY.iter().filter(|(capability, _)| has(capability)) {
        rules.push(json!({ "names": names, "action": "SCMP_ACT_ALLOW" }));
    }
    if has("CAP_PERFMON") {
        rules.push(json!({ "names": ["perf_event_open"], "action": "SCMP_ACT_ALLOW" }));
    }
    Ok(profile)
}

/// A profile that a client has sent, in Docker's form: its conditions on capabilities and architectures are resolved, and
/// what remains is the runtime specification's.
///
/// # Errors
/// It is no JSON of this form: dockerd's text.
pub fn custom(text: &str, capabilities: &[&str]) -> Result<Value> {
    let failed = |why: &str| Error::invalid(format!("Decoding seccomp profile failed: {why}"));
    let mut profile: Value = serde_json::from_str(text).map_err(|error| failed(&error.to_string()))?;
    let object = profile.as_object_mut().ok_or_else(|| failed("it is no object"))?;
    let either = |one: &str, other: &str| {
        Error::invalid(format!(
            "both '{one}' and '{other}' are specified in the seccomp profile, use either '{one}' or '{other}'"
        ))
    };
    let has_any = |value: Option<&Value>| value.and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    if has_any(object.get("architectures")) && has_any(object.get("archMap")) {
        return Err(either("architectures", "archMap"));
    }
    if let Some(map) = object.remove("archMap") {
        let own =
            map.as_array().and_then(|all| all.iter().find(|one| one["architecture"] == "SCMP_ARCH_X86_64"));
        if let Some(own) = own {
            let mut all = vec![own["architecture"].clone()];
            all.extend(own["subArchitectures"].as_array().cloned().unwrap_or_default());
            let _none = object.insert("architectures".to_owned(), all.into());
        }
    }
    let rules = match object.get_mut("syscalls") {
        Some(Value::Array(rules)) => std::mem::take(rules),
        _ => Vec::new(),
    };
    let mut kept = Vec::with_capacity(rules.len());
    for mut rule in rules {
        let Some(fields) = rule.as_object_mut() else { return Err(failed("a rule is no object")) };
        let (includes, excludes) = (fields.remove("includes"), fields.remove("excludes"));
        let _words = fields.remove("comment");
        if let Some(name) =
            fields.remove("name").filter(|name| name.as_str().is_some_and(|name| !name.is_empty()))
        {
            if has_any(fields.get("names")) {
                return Err(either("name", "names"));
            }
            let _none = fields.insert("names".to_owned(), json!([name]));
        }
        let strings = |value: Option<&Value>| -> Vec<String> {
            let all = value.and_then(Value::as_array).into_iter().flatten();
            all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let field = |of: &Option<Value>, name: &str| strings(of.as_ref().and_then(|of| of.get(name)));
        let own = |arch: &String| arch == "amd64";
        let has = |name: &String| capabilities.contains(&name.as_str());
        let wanted = field(&includes, "arches");
        let applies = (wanted.is_empty() || wanted.iter().any(own))
            && field(&includes, "caps").iter().all(has)
            && !field(&excludes, "arches").iter().any(own)
            && !field(&excludes, "caps").iter().any(has);
        if applies {
            kept.push(rule);
        }
    }
    let _none = object.insert("syscalls".to_owned(), kept.into());
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::caps;

    fn allows(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule.get("args").is_none_or(|args| args.as_array().unwrap().is_empty())
                && rule["names"].as_array().unwrap().iter().any(|one| one == name)
        })
    }

    #[test]
    fn capabilities_allow_more() {
        let plain = default(&caps::DEFAULT).unwrap();
        assert!(allows(&plain, "read") && allows(&plain, "chroot") && !allows(&plain, "mount"));
        let admin = default(&["CAP_SYS_ADMIN"]).unwrap();
        assert!(allows(&admin, "mount") && allows(&admin, "clone3") && !allows(&admin, "chroot"));
    }

    #[test]
    fn a_clients_profile_is_resolved() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN"]}},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}},{"name":"c","action":"SCMP_ACT_ALLOW","includes":{"arches":["arm"]}}]}"#;
        let profile = custom(text, &["CAP_CHOWN"]).unwrap();
        assert!(allows(&profile, "a") && !allows(&profile, "b") && !allows(&profile, "c"));
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert!(custom("x", &[]).unwrap_err().message.starts_with("Decoding seccomp profile failed"));
    }
}
