//! Scheduler, I/O priority, personality and memory policy of the calling process.

use ketch_sys::scheduling::{self, SchedulerAttributes};
use ketch_sys::{Errno, SyscallError};
use thiserror::Error;

use crate::plan::process::ProcessPlan;

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

/// Applies what the plan asks for.
///
/// # Errors
/// The first setting that the kernel refuses.
pub fn apply(plan: &ProcessPlan) -> Result<(), SchedulingError> {
    if let Some(scheduler) = &plan.scheduler {
        let attributes = SchedulerAttributes {
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        };
        scheduling::set_scheduler(&attributes).map_err(SchedulingError::Scheduler)?;
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
