//! `process`: what is executed, and under which identity, rights and limits.

use serde::{Deserialize, Serialize};

use super::json::{is_default, null_is_default, object, object_or_default, objects};

/// A process of the container: the first one, or one that `exec` adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether a pseudo-terminal is attached.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub terminal: bool,
    /// Size of that terminal.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// User and groups.
    #[serde(deserialize_with = "object_or_default")]
    pub user: User,
    /// The program and its arguments.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The environment, as `NAME=value`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Working directory, absolute inside the container.
    #[serde(deserialize_with = "null_is_default")]
    pub cwd: String,
    /// Capability sets.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub rlimits: Vec<Rlimit>,
    /// Whether execve may never give more privileges.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// AppArmor profile; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub apparmor_profile: String,
    /// `/proc/self/oom_score_adj`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// SELinux label; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub selinux_label: String,
    /// I/O scheduling class and priority.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU affinity of `exec` processes.
    #[serde(
        rename = "execCPUAffinity",
        deserialize_with = "object",
        skip_serializing_if = "Option::is_none"
    )]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    #[serde(deserialize_with = "null_is_default")]
    pub height: u64,
    /// Columns.
    #[serde(deserialize_with = "null_is_default")]
    pub width: u64,
}

/// User, groups and umask, all as seen inside the container's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    #[serde(deserialize_with = "null_is_default")]
    pub uid: u32,
    /// Group id.
    #[serde(deserialize_with = "null_is_default")]
    pub gid: u32,
    /// File mode creation mask; runc's 0022 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub additional_gids: Vec<u32>,
    /// Name of the user; not used on Linux.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub username: String,
}

/// The five capability sets, by names such as `CAP_NET_BIND_SERVICE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Upper bound over every execve.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub bounding: Vec<String>,
    /// What the kernel checks.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub effective: Vec<String>,
    /// What execve keeps of file capabilities.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub inheritable: Vec<String>,
    /// Upper bound of the effective set.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub permitted: Vec<String>,
    /// What execve of an unprivileged program keeps.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub ambient: Vec<String>,
}

/// One resource limit, see setrlimit(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// Name, as `RLIMIT_NOFILE`.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Ceiling of the soft limit, in the unit of the limit.
    #[serde(deserialize_with = "null_is_default")]
    pub hard: u64,
    /// Limit in force, in the unit of the limit.
    #[serde(deserialize_with = "null_is_default")]
    pub soft: u64,
}

/// Scheduling policy, see sched_setattr(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// Policy, as `SCHED_BATCH`.
    #[serde(deserialize_with = "null_is_default")]
    pub policy: String,
    /// Nice value, for SCHED_OTHER and SCHED_BATCH.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub nice: i32,
    /// Static priority, for SCHED_FIFO and SCHED_RR.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Flags, as `SCHED_FLAG_RESET_ON_FORK`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
    /// SCHED_DEADLINE: run time in nanoseconds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub runtime: u64,
    /// SCHED_DEADLINE: deadline in nanoseconds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub deadline: u64,
    /// SCHED_DEADLINE: period in nanoseconds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub period: u64,
}

/// I/O priority, see ioprio_set(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// Class, as `IOPRIO_CLASS_BE`.
    #[serde(deserialize_with = "null_is_default")]
    pub class: String,
    /// Priority inside the class, 0 (highest) to 7.
    #[serde(deserialize_with = "null_is_default")]
    pub priority: i64,
}

/// CPU affinity of `exec` processes, as lists such as `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Affinity before the container's cgroup is joined.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub initial: String,
    /// Affinity after it.
    #[serde(rename = "final", deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub final_: String,
}
