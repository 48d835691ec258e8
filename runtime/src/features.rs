//! What this runtime can do, as the runtime-spec's `features.md` tells it.
//!
//! Owns the document that `ketch features` prints: dockerd, containerd and podman read it to decide what they may ask
//! for (containerd wants `rro` among the mount options for recursive read-only mounts, and
//! `mountExtensions.idmap.enabled` for user namespaces). Names come from the tables that the parser itself uses, so
//! that nothing is claimed that is not read. Looks at no host state, but is told the kernel's seccomp flags: what else a host
//! lacks is found when asked for.

use serde_json::{Value, json};

use crate::plan::cgroup::systemd;
use crate::plan::criu;
use crate::plan::landlock;
use crate::seccomp::{self, FilterFlags};
use crate::spec::{NamespaceType, mount_options};

/// The oldest runtime-spec whose configurations are taken.
const SPEC_MIN: &str = "1.0.0";

/// The hooks, in the order in which they run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_POLICY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// What identifies the build, and the kernel beneath it.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// The newest runtime-spec that is implemented.
    pub spec: &'a str,
    /// The runc release whose behaviour this is.
    pub runc_version: &'a str,
    /// The commit that was built.
    pub commit: &'a str,
    /// The seccomp flags that the running kernel takes: the one thing here that a host decides.
    pub seccomp_flags: FilterFlags,
}

/// The document.
pub fn document(build: &Build<'_>) -> Value {
    let mut mount_options: Vec<&str> = mount_options::known_mount_options().collect();
    mount_options.sort_unstable();
    mount_options.dedup();
    json!({
        "ociVersionMin": SPEC_MIN,
        "ociVersionMax": build.spec,
        "hooks": HOOKS,
        "mountOptions": mount_options,
        "linux": {
            "namespaces": NamespaceType::ALL.map(NamespaceType::name),
            "capabilities": capabilities(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::KNOWN_ACTIONS,
                "operators": seccomp::KNOWN_OPERATORS,
                "archs": seccomp::KNOWN_ARCHS,
                "knownFlags": seccomp::KNOWN_FLAGS,
                "supportedFlags": seccomp::supported_flags(build.seccomp_flags).collect::<Vec<_>>(),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": MEMORY_POLICY_MODES, "flags": MEMORY_POLICY_FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            landlock::ANNOTATION: "",
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "org.opencontainers.runc.commit": build.commit,
            "org.opencontainers.runc.version": build.runc_version,
        },
        // What ends with a dot is a prefix.
        "potentiallyUnsafeConfigAnnotations": ["bundle", systemd::ANNOTATION_PREFIX, criu::CONFIG_ANNOTATION],
    })
}

/// Every capability by its number.
fn capabilities() -> Vec<String> {
    let mut known: Vec<caps::Capability> = caps::all().into_iter().collect();
    known.sort_unstable_by_key(caps::Capability::index);
    known.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        super::document(&Build {
            spec: "1.3.0",
            runc_version: "1.5.0",
            commit: "0123abc",
            seccomp_flags: FilterFlags::LOG,
        })
    }

    /// containerd's CRI asks for these two before it uses recursive read-only mounts and user namespaces.
    #[test]
    fn containerd_finds_what_it_asks_for() {
        let document = document();
        let options = document["mountOptions"].as_array().unwrap();
        assert!(options.iter().any(|option| option == "rro"));
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    }

    #[test]
    fn lists_are_sorted_and_without_repeats() {
        let document = document();
        for list in ["mountOptions", "/linux/namespaces", "/linux/seccomp/actions", "/linux/seccomp/archs"] {
            let list = if list.starts_with('/') { document.pointer(list) } else { document.get(list) };
            let names: Vec<&str> =
                list.unwrap().as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        }
    }

    #[test]
    fn capabilities_follow_the_kernels_numbers() {
        let names = capabilities();
        assert_eq!(names[0], "CAP_CHOWN");
        assert_eq!(names[40], "CAP_CHECKPOINT_RESTORE");
    }
}
