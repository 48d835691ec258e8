//! The checks between `config.json` and a plan, one named function each, in runc's order.
//!
//! What runc refuses is refused, with its text; what it only warns about is in [`RELAXED`]. Checks that need the number
//! behind a name (capabilities, seccomp, cgroup limits) are part of the plan that carries them out.
//!
//! | check | runtime-spec | refuses |
//! |---|---|---|
//! | `process` | config.md#process | no process, cwd or args; a relative cwd; a label without SELinux |
//! | `root_given` | config.md#root | no root |
//! | `mount_fields` | config.md#mounts | zero bytes |
//! | `devices` | config-linux.md#devices | unknown device types |
//! | `cgroups_path` | config-linux.md#cgroups-path | a path without systemd's form under `--systemd-cgroup` |
//! | `rootfs_propagation` | config-linux.md#rootfs-mount-propagation | unknown values; private without pivot_root |
//! | `namespace_types` | config-linux.md#namespaces | unknown and duplicate kinds |
//! | `user_mappings` | config-linux.md#user-namespace-mappings | a user namespace without ids or without root |
//! | `memory_policy` | config-linux.md#memory-policy | unknown modes and flags; nodes that don't fit the mode |
//! | `personality` | config-linux.md#personality | unknown domains |
//! | `cpu_affinity` | config.md#linux-process | lists that don't parse |
//! | `rootfs` | config.md#root | a root that does not exist or is behind a symbolic link |
//! | `net_devices` | config-linux.md#network-devices | no network namespace; rootless; impossible names |
//! | `uts` | config.md#hostname | a host or domain name without a UTS namespace |
//! | `restricted_paths` | config-linux.md#masked-paths | masked or read-only paths without a mount namespace |
//! | `namespaces` | config-linux.md#namespaces | kinds that the kernel lacks; offsets without a time namespace of its own |
//! | `sysctl` | config-linux.md#sysctl | parameters of namespaces that the container does not have |
//! | `intel_rdt` | config-linux.md#intelrdt | no resctrl; impossible names; schemas the machine lacks |
//! | `rootless` | config-linux.md#user-namespace-mappings | rootless without ids; mount options with unmapped ids |
//! | `mounts` | config.md#mounts | bind mounts with filesystem options; id mappings that can't be made |
//! | `scheduler` | config.md#linux-process | values that don't fit the policy |
//! | `io_priority` | config.md#linux-process | unknown classes; priorities beyond 7 |
//! | `rlimits` | config.md#posix-process | unknown limits |

mod kernel;
mod linux;
mod mounts;
mod process;

pub(super) use process::process_alone;

use super::facts::SpecFacts;
use super::{Linux, MountOptions, NamespaceType, Spec, SpecError, ValidationContext};

/// What a check looks at.
pub(super) struct Subject<'a> {
    pub(super) spec: &'a Spec,
    pub(super) linux: &'a Linux,
    /// The sorted options of each mount.
    pub(super) options: &'a [MountOptions],
    pub(super) facts: &'a SpecFacts,
    pub(super) context: &'a ValidationContext,
}

impl Subject<'_> {
    fn has(&self, kind: NamespaceType) -> bool {
        self.linux.namespace(kind).is_some()
    }

    fn joins(&self, kind: NamespaceType) -> Option<&str> {
        self.linux.namespace(kind)?.join_path()
    }
}

/// A check that refuses.
pub(super) type Check = fn(&Subject<'_>) -> Result<(), SpecError>;

/// A check that only warns.
pub(super) type Relaxed = fn(&Subject<'_>, &mut Vec<String>);

/// The checks in the order in which they run. runc's conversion comes first, then its validator.
pub(super) const CHECKS: &[Check] = &[
    process::process,
    mounts::root_given,
    mounts::mount_fields,
    linux::devices,
    linux::cgroups_path,
    mounts::rootfs_propagation,
    linux::namespace_types,
    linux::user_mappings,
    kernel::memory_policy,
    kernel::personality,
    process::cpu_affinity,
    mounts::rootfs,
    linux::net_devices,
    linux::uts,
    mounts::restricted_paths,
    linux::namespaces,
    kernel::sysctl,
    kernel::intel_rdt,
    linux::rootless,
    mounts::mounts,
    process::scheduler,
    process::io_priority,
    process::rlimits,
];

/// What runc accepts with a warning.
pub(super) const RELAXED: &[Relaxed] =
    &[mounts::relative_destinations, linux::joined_mappings_given, kernel::personality_flags];

#[cfg(test)]
mod tests;
