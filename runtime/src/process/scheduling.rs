//! Scheduler, I/O priority, personality and memory policy of a process.

use ketch_sys::process::Pid;
use ketch_sys::scheduling::{self, DEADLINE, SchedulerAttributes};
use ketch_sys::{Errno, SyscallError};
use thiserror::Error;

use crate::plan::process::{ProcessPlan, SchedulerPlan};

/// A setting that the kernel refused.
#[derive(Debug, Error)]
pub enum SchedulingError {
    /// sched_setattr(2).
    #[error("error setting scheduler")]
    Scheduler(#[source] SyscallError),
    /// sched_setattr(2) of a process that a cpuset keeps from some CPUs: a deadline can't be promised then.
    #[error("process scheduler can't be used together with AllowedCPUs")]
    SchedulerInCpuset,
    /// ioprio_set(2).
    #[error("failed to set io priority")]
    IoPriority(#[source] SyscallError),
    /// personality(2).
    #[error("failed to set personality")]
    Personality(#[source] SyscallError),
    /// set_mempolicy(2).
    #[error("failed to set memory policy")]
    MemoryPolicy(#[source] SyscallError),
}

impl SchedulingError {
    /// The same error for a container whose CPUs are restricted.
    #[must_use]
    pub fn in_cpuset(self) -> Self {
        match self {
            Self::Scheduler(error) if error.errno == Errno::EPERM => Self::SchedulerInCpuset,
            other => other,
        }
    }
}

/// Who the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    /// The calling process.
    Itself,
    /// A process that it will make, which inherits all but a deadline.
    Child,
}

/// Applies to the calling process what the plan asks for.
///
/// # Errors
/// The first setting that the kernel refuses.
pub fn apply(plan: &ProcessPlan, heir: Heir) -> Result<(), SchedulingError> {
    let scheduler = plan.scheduler.as_ref();
    if let Some(scheduler) = scheduler.filter(|plan| heir == Heir::Itself || plan.policy != DEADLINE) {
        set_scheduler(0, scheduler)?;
    }
    if let Some(io) = plan.io_priority {
        scheduling::set_io_priority(io.class, io.priority).map_err(SchedulingError::IoPriority)?;
    }
    if let Some(domain) = plan.personality {
        scheduling::set_personality(domain).map_err(SchedulingError::Personality)?;
    }
    if let Some(policy) = &plan.memory_policy {
        scheduling::set_memory_policy(policy.mode, &policy.nodes).map_err(SchedulingError::MemoryPolicy)?;
    }
    Ok(())
}

/// Gives a process the deadline that it could not inherit, if the plan has one.
///
/// # Errors
/// What the kernel refuses.
pub fn set_deadline(pid: Pid, plan: &ProcessPlan) -> Result<(), SchedulingError> {
    match &plan.scheduler {
        Some(scheduler) if scheduler.policy == DEADLINE => set_scheduler(pid, scheduler),
        _ => Ok(()),
    }
}

fn set_scheduler(pid: Pid, plan: &SchedulerPlan) -> Result<(), SchedulingError> {
    let attributes = SchedulerAttributes {
        policy: plan.policy,
        flags: plan.flags,
        nice: plan.nice,
        priority: plan.priority,
        runtime: plan.runtime,
        deadline: plan.deadline,
        period: plan.period,
    };
    scheduling::set_scheduler(pid, &attributes).map_err(SchedulingError::Scheduler)
}
