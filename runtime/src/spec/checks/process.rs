//! Checks of `process`.

use ketch_sys::resource::rlimit_number;

use super::Subject;
use crate::spec::{Process, SpecError, id_list};

pub(super) fn process(subject: &Subject<'_>) -> Result<(), SpecError> {
    let process = subject.spec.process.as_ref().ok_or(SpecError::NoProcess)?;
    basics(process, process.selinux_label.is_empty() || subject.facts.selinux)
}

/// Everything that concerns a process by itself; for `exec`, which has no configuration around it.
pub(in crate::spec) fn process_alone(process: &Process, selinux: bool) -> Result<(), SpecError> {
    basics(process, selinux)?;
    affinity_of(process)?;
    rlimits_of(process)
}

fn basics(process: &Process, selinux: bool) -> Result<(), SpecError> {
    if process.cwd.is_empty() {
        return Err(SpecError::NoCwd);
    }
    if !process.cwd.starts_with('/') {
        return Err(SpecError::RelativeCwd);
    }
    if process.args.is_empty() {
        return Err(SpecError::NoArgs);
    }
    if !selinux {
        return Err(SpecError::NoSelinux);
    }
    let nul = |text: &String| text.contains('\0');
    if nul(&process.cwd) {
        return Err(SpecError::NulByte { field: "process.cwd" });
    }
    if process.args.iter().any(nul) {
        return Err(SpecError::NulByte { field: "process.args" });
    }
    Ok(())
}

pub(super) fn cpu_affinity(subject: &Subject<'_>) -> Result<(), SpecError> {
    subject.spec.process.as_ref().map_or(Ok(()), affinity_of)
}

fn affinity_of(process: &Process) -> Result<(), SpecError> {
    let Some(affinity) = &process.exec_cpu_affinity else { return Ok(()) };
    for (field, list) in [("Initial", &affinity.initial), ("Final", &affinity.final_)] {
        id_list::parse(list).map_err(|reason| SpecError::CpuAffinity { field, reason })?;
    }
    Ok(())
}

pub(super) fn rlimits(subject: &Subject<'_>) -> Result<(), SpecError> {
    subject.spec.process.as_ref().map_or(Ok(()), rlimits_of)
}

fn rlimits_of(process: &Process) -> Result<(), SpecError> {
    match process.rlimits.iter().find(|limit| rlimit_number(&limit.kind).is_none()) {
        Some(limit) => Err(SpecError::Rlimit { kind: limit.kind.clone() }),
        None => Ok(()),
    }
}

pub(super) fn scheduler(subject: &Subject<'_>) -> Result<(), SpecError> {
    const POLICIES: [&str; 7] =
        ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
    const FLAGS: [&str; 7] = [
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "SCHED_FLAG_UTIL_CLAMP_MAX",
    ];
    let Some(scheduler) = subject.spec.process.as_ref().and_then(|process| process.scheduler.as_ref()) else {
        return Ok(());
    };
    let policy = scheduler.policy.as_str();
    if policy.is_empty() {
        return Err(SpecError::NoSchedulerPolicy);
    }
    if matches!(policy, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&scheduler.nice) {
        return Err(SpecError::SchedulerNice { nice: scheduler.nice, policy: policy.to_owned() });
    }
    if scheduler.priority != 0 && !matches!(policy, "SCHED_FIFO" | "SCHED_RR") {
        return Err(SpecError::SchedulerPriority);
    }
    let deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
    if deadline && policy != "SCHED_DEADLINE" {
        return Err(SpecError::SchedulerDeadline);
    }
    if !POLICIES.contains(&policy) {
        return Err(SpecError::SchedulerPolicy { policy: policy.to_owned() });
    }
    match scheduler.flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        Some(flag) => Err(SpecError::SchedulerFlag { flag: flag.clone() }),
        None => Ok(()),
    }
}

pub(super) fn io_priority(subject: &Subject<'_>) -> Result<(), SpecError> {
    let Some(io) = subject.spec.process.as_ref().and_then(|process| process.io_priority.as_ref()) else {
        return Ok(());
    };
    if !(0..=7).contains(&io.priority) {
        return Err(SpecError::IoPriority { priority: io.priority });
    }
    match io.class.as_str() {
        "IOPRIO_CLASS_RT" | "IOPRIO_CLASS_BE" | "IOPRIO_CLASS_IDLE" => Ok(()),
        other => Err(SpecError::IoPriorityClass { class: other.to_owned() }),
    }
}
