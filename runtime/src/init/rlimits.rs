//! The limits of a process (setrlimit(2)), by whichever side has the right to set them.

use ketch_sys::process::Pid;
use ketch_sys::{Errno, SyscallError, resource};

use super::InitError;
use crate::plan::process::{ProcessPlan, RlimitPlan};

/// Who sets the rlimits, once nothing but the program's own needs is left to be done under them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RlimitsBy {
    /// The process itself, while its parent remembers it.
    Child,
    /// The parent, as the user namespace that the process is in has no right to raise them.
    Parent,
}

impl RlimitsBy {
    pub(super) fn of(user_namespace: bool) -> Self {
        if user_namespace { Self::Parent } else { Self::Child }
    }

    /// Those that the parent has to set.
    pub(super) fn parents(self, process: &ProcessPlan) -> &[RlimitPlan] {
        match self {
            Self::Child => &[],
            Self::Parent => &process.rlimits,
        }
    }
}

/// prlimit(2).
pub(super) const THIS_PROCESS: Pid = 0;

const PROCESSES: &str = "RLIMIT_NPROC";

/// As [`set_rlimits`] of a process that is yet to make a sibling, as the user that it becomes. The limit on that user's
/// processes would count it, too, so it is only raised, which takes a right. It is given to be lowered by the sibling.
pub(super) fn set_to_inherit(limits: &[RlimitPlan]) -> Result<Option<RlimitPlan>, InitError> {
    let (processes, others): (Vec<_>, Vec<_>) =
        limits.iter().cloned().partition(|limit| limit.kind == PROCESSES);
    set_rlimits(THIS_PROCESS, &others)?;
    let Some(limit) = processes.into_iter().next() else { return Ok(None) };
    let number = resource::rlimit_number(PROCESSES).unwrap_or_default();
    let failed = |source| InitError::Rlimit { kind: PROCESSES.to_owned(), source };
    if resource::rlimit(number).map_err(failed)?.1 < limit.hard {
        resource::set_rlimit(THIS_PROCESS, number, limit.hard, limit.hard).map_err(failed)?;
    }
    Ok(Some(limit))
}

pub(super) fn set_rlimits(pid: Pid, limits: &[RlimitPlan]) -> Result<(), InitError> {
    for limit in limits {
        let failed = |source| InitError::Rlimit { kind: limit.kind.clone(), source };
        let number = resource::rlimit_number(&limit.kind)
            .ok_or_else(|| failed(SyscallError::new("prlimit", "", Errno::EINVAL)))?;
        resource::set_rlimit(pid, number, limit.soft, limit.hard).map_err(failed)?;
    }
    Ok(())
}
