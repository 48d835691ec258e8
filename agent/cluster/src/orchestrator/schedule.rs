//! When a scheduled job runs anew: which of its due times makes an iteration, and which passes.
//!
//! A due time is decided on once: the iteration that it makes and the moment up to which all is decided are written with one
//! action, so that no other leader decides again. Nothing else is remembered. `label/schedule.rs` knows the moments.

use std::time::Duration;

use super::jobs;
use super::service_view::ServiceView;
use crate::label::schedule::{self, Missed, Overlap, Schedule};
use crate::objects::service::{JobStatus, Passed, PassedBecause, ScheduleStatus};
use crate::objects::{Service, Task};
use crate::time::Timestamp;

/// A due time that is found later than that was missed: an election takes seconds.
const ON_TIME: Duration = Duration::from_secs(60);

/// A scheduled job is looked at so often at least: a clock that jumps moves no wait.
const LOOK: Duration = Duration::from_secs(60);

/// What was decided further ahead than that, a wrong clock has decided: nobody waits for it.
const MOST_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// Of a job at one moment.
pub(super) enum Decision {
    /// It has no schedule.
    None,
    /// Nothing is due before that.
    Wait(Timestamp),
    /// The job with its next iteration, or with a due time that has passed without one.
    Write(Box<Service>),
}

pub(super) fn decide(service: &ServiceView<'_>) -> Decision {
    // What can't be read, `control` has refused; here it brings no run.
    let Ok(Some(schedule)) = schedule::parse(&service.service.spec.labels) else { return Decision::None };
    let Some(status) = status(service.service) else { return Decision::None };
    let (now, decided) = (service.now, status.decided_until);
    if decided.since(now) > MOST_AHEAD {
        return write(service, ScheduleStatus { decided_until: now, ..status }, None);
    }
    match schedule.latest(decided, now) {
        None => {
            let next = schedule.next(decided.max(now));
            Decision::Wait(next.map_or(now.after(LOOK), |next| next.min(now.after(LOOK))))
        }
        Some(due) => {
            let why = passes(service, &schedule, due);
            let ran = status.ran || why.is_none();
            let passed = why.map(|why| Passed { due, why }).or(status.passed);
            write(service, ScheduleStatus { decided_until: due, ran, passed }, why.is_none().then_some(now))
        }
    }
}

/// Whether the job has had its first run, or needs none to be let.
pub(super) fn has_begun(service: &Service) -> bool {
    status(service).is_none_or(|status| status.ran)
}

/// How long it makes no run since the due times until then were decided on by a leader's clock that was ahead, if it is so.
pub(crate) fn ahead_by(service: &Service, now: Timestamp) -> Option<Duration> {
    let ahead = status(service)?.decided_until.since(now);
    (ahead > ON_TIME).then_some(ahead)
}

fn status(service: &Service) -> Option<ScheduleStatus> {
    service.job.and_then(|job| job.schedule)
}

/// Why a due time makes no run, if it makes none.
fn passes(service: &ServiceView<'_>, schedule: &Schedule, due: Timestamp) -> Option<PassedBecause> {
    if service.now.since(due) > ON_TIME && schedule.missed == Missed::Skip {
        return Some(PassedBecause::Missed);
    }
    let overlaps = || has_begun(service.service) && !jobs::is_over(service);
    (schedule.overlap == Overlap::Forbid && overlaps()).then_some(PassedBecause::Overlaps)
}

fn write(service: &ServiceView<'_>, status: ScheduleStatus, run_at: Option<Timestamp>) -> Decision {
    let mut changed = service.service.clone();
    changed.meta.updated_at = service.now;
    changed.job = changed.job.map(|job| JobStatus {
        iteration: job.iteration + u64::from(run_at.is_some()),
        last_execution: run_at.unwrap_or(job.last_execution),
        schedule: Some(status),
    });
    Decision::Write(Box::new(changed))
}

/// Whether a task of an earlier iteration goes on: runs may overlap, and it can stay where it is.
pub(super) fn is_let_go_on(service: &ServiceView<'_>, task: &Task) -> bool {
    let schedule = schedule::parse(&service.service.spec.labels).ok().flatten();
    schedule.is_some_and(|it| it.overlap == Overlap::Allow) && service.stays(task)
}

#[cfg(test)]
mod tests;
