//! One process of a container, as plain data: numbers instead of names, masks instead of lists.
//!
//! Built from the `process` object of a configuration (create) or of `exec`; carried out by `init::process` in the
//! child. Nothing here looks at the host.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::capability::{CapabilityPlan, plan_capabilities};
use super::landlock::LandlockPlan;
use super::{Caller, PlanError};
use crate::spec;

/// What a process of a container is to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// The environment as `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute working directory inside the container.
    pub cwd: String,
    /// The terminal to allocate, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<spec::ConsoleSize>,
    /// Ids as seen inside the container.
    pub user: UserPlan,
    /// The five sets; `None` leaves them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityPlan>,
    /// Limits to set from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<RlimitPlan>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// `/proc/<pid>/oom_score_adj`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// sched_setattr(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerPlan>,
    /// ioprio_set(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriorityPlan>,
    /// personality(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// set_mempolicy(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// CPU masks of an `exec` process.
    #[serde(default, skip_serializing_if = "AffinityPlan::is_empty")]
    pub affinity: AffinityPlan,
    /// Landlock rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockPlan>,
    /// AppArmor profile for the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// SELinux label for the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
}

/// User and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    /// Where the supplementary groups come from.
    #[serde(default, skip_serializing_if = "Supplementary::is_planned")]
    pub supplementary: Supplementary,
    /// File mode creation mask, where the configuration names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
}

/// Where a process's supplementary groups come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Supplementary {
    /// They are those of the plan.
    #[default]
    Planned,
    /// They stay those of the runtime's user, who keeps what they give access to.
    Callers,
}

impl Supplementary {
    fn is_planned(&self) -> bool {
        *self == Self::Planned
    }
}

/// One prlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// The limit's name (`RLIMIT_NOFILE`).
    pub kind: String,
    /// The limit in force.
    pub soft: u64,
    /// Its ceiling.
    pub hard: u64,
}

/// sched_setattr(2); times in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerPlan {
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` mask.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// SCHED_DEADLINE runtime.
    pub runtime: u64,
    /// SCHED_DEADLINE deadline.
    pub deadline: u64,
    /// SCHED_DEADLINE period.
    pub period: u64,
}

/// ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriorityPlan {
    /// `IOPRIO_CLASS_*` number.
    pub class: u32,
    /// 0 (highest) to 7.
    pub priority: u32,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicyPlan {
    /// Mode with its flags.
    pub mode: u32,
    /// Bit n of word n/64 for each NUMA node n.
    pub nodes: Vec<u64>,
}

/// CPU masks: bit n of byte n/8 for each CPU n; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffinityPlan {
    /// Before the container's cgroup is joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initial: Vec<u8>,
    /// After it.
    #[serde(rename = "final", default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<u8>,
}

impl AffinityPlan {
    fn is_empty(&self) -> bool {
        self.initial.is_empty() && self.last.is_empty()
    }
}

/// A planned process and what is worth a warning about it.
#[derive(Debug)]
pub struct Planned {
    /// The process.
    pub process: ProcessPlan,
    /// Texts for the log.
    pub warnings: Vec<String>,
}

impl ProcessPlan {
    /// The plan of `process`.
    ///
    /// # Errors
    /// A value that names nothing that Linux has: a limit, a scheduling policy, an I/O class, a CPU list.
    pub fn plan(process: &spec::Process) -> Result<Planned, PlanError> {
        let mut warnings = Vec::new();
        let capabilities =
            process.capabilities.as_ref().map(|capabilities| plan_capabilities(capabilities, &mut warnings));
        let plan = Self {
            args: process.args.clone(),
            env: last_of_each_name(&process.env),
            cwd: process.cwd.clone(),
            terminal: process.terminal.then(|| process.console_size.unwrap_or_default()),
            user: UserPlan {
                uid: process.user.uid,
                gid: process.user.gid,
                additional_gids: process.user.additional_gids.clone(),
                supplementary: Supplementary::Planned,
                umask: process.user.umask,
            },
            capabilities,
            rlimits: process
                .rlimits
                .iter()
                .map(|limit| RlimitPlan { kind: limit.kind.clone(), soft: limit.soft, hard: limit.hard })
                .collect(),
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            scheduler: process.scheduler.as_ref().map(plan_scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(plan_io_priority).transpose()?,
            personality: None,
            memory_policy: None,
            affinity: process.exec_cpu_affinity.as_ref().map(plan_affinity).transpose()?.unwrap_or_default(),
            landlock: None,
            apparmor_profile: named(&process.apparmor_profile),
            selinux_label: named(&process.selinux_label),
        };
        Ok(Planned { process: plan, warnings })
    }

    /// The same, run by `caller`.
    ///
    /// # Errors
    /// Supplementary groups, which a user can't give a process.
    pub fn for_caller(mut self, caller: Caller) -> Result<Self, PlanError> {
        if caller == Caller::User {
            if !self.user.additional_gids.is_empty() {
                return Err(PlanError::AdditionalGroups);
            }
            self.user.supplementary = Supplementary::Callers;
        }
        Ok(self)
    }

    /// Adds what the Linux part of the configuration says about every process of the container.
    ///
    /// # Errors
    /// An unknown personality domain or memory policy.
    pub fn with_container(mut self, linux: &spec::Linux) -> Result<Self, PlanError> {
        self.personality = linux.personality.as_ref().map(plan_personality).transpose()?;
        self.memory_policy = linux.memory_policy.as_ref().map(plan_memory_policy).transpose()?;
        Ok(self)
    }

    /// Whether its working directory, or a path of its Landlock rules, is of the process itself, so that no other process can
    /// look for it.
    #[must_use]
    pub fn names_own_procfs(&self) -> bool {
        let of_itself = |path: &str| {
            ["/proc/self", "/proc/thread-self"].iter().any(|own| Path::new(path).starts_with(own))
        };
        let rules = self.landlock.iter().flat_map(|plan| &plan.paths);
        of_itself(&self.cwd) || rules.map(|rule| rule.path.as_str()).any(of_itself)
    }

    /// Whether the kernel grants what is asked for by the limits of the cgroup: real-time and deadline scheduling by
    /// `cpu.rt_runtime_us` and the cpuset's CPUs, a memory policy by the cpuset's nodes.
    #[must_use]
    pub fn depends_on_limits(&self) -> bool {
        self.scheduler.is_some() || self.memory_policy.is_some()
    }
}

fn named(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The environment with one entry for each name: the last one wins, as in runc's `prepareEnv`.
fn last_of_each_name(env: &[String]) -> Vec<String> {
    let name =
        |entry: &str| entry.split_once('=').map_or_else(|| entry.to_owned(), |(name, _)| name.to_owned());
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|entry| seen.insert(name(entry))).cloned().collect();
    kept.reverse();
    kept
}

/// `SCHED_*` of linux/sched.h.
fn plan_scheduler(scheduler: &spec::Scheduler) -> Result<SchedulerPlan, PlanError> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        _ => {
            return Err(PlanError::Unknown {
                field: "process.scheduler.policy",
                value: scheduler.policy.clone(),
            });
        }
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            _ => return Err(PlanError::Unknown { field: "process.scheduler.flags", value: flag.clone() }),
        };
    }
    Ok(SchedulerPlan {
        policy,
        flags,
        nice: scheduler.nice,
        priority: u32::try_from(scheduler.priority).unwrap_or(0),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    })
}

/// `IOPRIO_CLASS_*` of linux/ioprio.h.
fn plan_io_priority(priority: &spec::IoPriority) -> Result<IoPriorityPlan, PlanError> {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        _ => {
            return Err(PlanError::Unknown {
                field: "process.ioPriority.class",
                value: priority.class.clone(),
            });
        }
    };
    let level = u32::try_from(priority.priority).ok().filter(|level| *level <= 7);
    let priority = level.ok_or_else(|| PlanError::Unknown {
        field: "process.ioPriority.priority",
        value: priority.priority.to_string(),
    })?;
    Ok(IoPriorityPlan { class, priority })
}

/// personality(2): `PER_LINUX` and `PER_LINUX32` of linux/personality.h.
fn plan_personality(personality: &spec::Personality) -> Result<u32, PlanError> {
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(PlanError::Unknown { field: "linux.personality.domain", value: other.to_owned() }),
    }
}

/// `MPOL_*` of linux/mempolicy.h.
fn plan_memory_policy(policy: &spec::MemoryPolicy) -> Result<MemoryPolicyPlan, PlanError> {
    let mut mode = match policy.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        _ => return Err(PlanError::Unknown { field: "linux.memoryPolicy.mode", value: policy.mode.clone() }),
    };
    for flag in &policy.flags {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            _ => return Err(PlanError::Unknown { field: "linux.memoryPolicy.flags", value: flag.clone() }),
        };
    }
    let bytes = if policy.nodes.is_empty() {
        Vec::new()
    } else {
        list_mask(&policy.nodes).ok_or_else(|| PlanError::Unknown {
            field: "linux.memoryPolicy.nodes",
            value: policy.nodes.clone(),
        })?
    };
    let nodes = bytes
        .chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)))
        .collect();
    Ok(MemoryPolicyPlan { mode, nodes })
}

fn plan_affinity(affinity: &spec::CpuAffinity) -> Result<AffinityPlan, PlanError> {
    let mask = |field: &'static str, list: &str| {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        list_mask(list).ok_or_else(|| PlanError::Unknown { field, value: list.to_owned() })
    };
    Ok(AffinityPlan {
        initial: mask("process.execCPUAffinity.initial", &affinity.initial)?,
        last: mask("process.execCPUAffinity.final", &affinity.final_)?,
    })
}

/// The mask of a list such as `0-3,7`: bit n of byte n/8. The kernel's largest build has 8192 CPUs; no list may ask
/// for more memory than that.
fn list_mask(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        for number in first..=last {
            mask[number / 8] |= 1_u8 << (number % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(list_mask("0-3,7"), Some(vec![0b1000_1111]));
        assert_eq!(list_mask("9"), Some(vec![0, 2]));
        assert_eq!(list_mask("3-1"), None);
        assert_eq!(list_mask("0-99999999"), None);
        assert_eq!(list_mask(""), None);
        assert_eq!(list_mask("a"), None);
    }

    #[test]
    fn own_paths_are_known_by_their_names() {
        let of = |cwd: &str| ProcessPlan { cwd: cwd.into(), ..ProcessPlan::default() };
        assert!(of("/proc/self/fd/3").names_own_procfs() && of("/proc/thread-self").names_own_procfs());
        assert!(!of("/proc/selfish").names_own_procfs() && !of("/proc/1").names_own_procfs());
    }

    #[test]
    fn the_last_entry_of_a_name_wins() {
        let env = ["A=1", "B=2", "A=3"].map(String::from);
        assert_eq!(last_of_each_name(&env), ["B=2", "A=3"]);
    }

    #[test]
    fn unknown_names_are_named() {
        let process = spec::Process {
            io_priority: Some(spec::IoPriority { class: "IOPRIO_CLASS_X".into(), priority: 0 }),
            ..Default::default()
        };
        let error = ProcessPlan::plan(&process).unwrap_err().to_string();
        assert!(error.contains("process.ioPriority.class") && error.contains("IOPRIO_CLASS_X"), "{error}");
    }
}
