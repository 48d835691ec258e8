//! `ketch.schedule=<cron expression>` of a job, and what belongs to it: when it runs anew.
//!
//! - `ketch.schedule.zone=<IANA zone>`: whose clock the expression is of; UTC when not said.
//! - `ketch.schedule.missed=skip|run-once`: what becomes of due times that nobody was there for.
//! - `ketch.schedule.overlap=forbid|allow|replace`: what a due time means while the run before still goes on.
//! - `ketch.schedule.history=<n>`: of how many earlier runs the ended tasks are kept.
//!
//! It owns the grammar and the moments; which of them makes a run is the orchestrator's. No clock is read here, and the zones
//! are those of the database in the binary.

mod cron;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::Refusal;
use crate::objects::{Labels, ServiceSpec};
use crate::time::Timestamp;
use cron::Cron;

pub const LABEL: &str = "ketch.schedule";
pub const ZONE: &str = "ketch.schedule.zone";
pub const MISSED: &str = "ketch.schedule.missed";
pub const OVERLAP: &str = "ketch.schedule.overlap";
pub const HISTORY: &str = "ketch.schedule.history";

/// All that say when and how a job runs.
pub const ALL: [&str; 5] = [LABEL, HISTORY, MISSED, OVERLAP, ZONE];

/// Each is a task in every manager's memory, times what the job runs at once.
const MOST_HISTORY: u64 = 100;

#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    pub missed: Missed,
    pub overlap: Overlap,
    /// The cluster's history limit decides when there is none.
    pub history: Option<u64>,
}

/// What becomes of due times that have passed when there was no leader, or while its clock jumped over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missed {
    #[default]
    Skip,
    /// One run for all of them.
    RunOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The due time passes without a run.
    #[default]
    Forbid,
    /// The run before goes on beside the new one, but nothing of it is restarted.
    Allow,
    /// The run before is stopped, as `docker service update --force` does.
    Replace,
}

/// What the labels of a service ask for.
///
/// # Errors
/// The first one that can't be read, or that is there without the expression.
pub fn parse(labels: &Labels) -> Result<Option<Schedule>, Refusal> {
    let Some(text) = labels.get(LABEL) else {
        return match ALL.iter().find(|label| labels.contains_key(**label)) {
            Some(label) => Err(Refusal::new(label, format!("there is no {LABEL} beside it"))),
            None => Ok(None),
        };
    };
    Ok(Some(Schedule {
        cron: Cron::parse(text).map_err(|reason| Refusal::new(LABEL, reason))?,
        zone: zone(labels.get(ZONE).map_or("UTC", String::as_str))?,
        missed: word(labels, MISSED, &[("skip", Missed::Skip), ("run-once", Missed::RunOnce)])?,
        overlap: word(
            labels,
            OVERLAP,
            &[("allow", Overlap::Allow), ("forbid", Overlap::Forbid), ("replace", Overlap::Replace)],
        )?,
        history: history(labels)?,
    }))
}

/// Only what ends can run again.
pub(super) fn fits(spec: &ServiceSpec) -> Result<(), Refusal> {
    if spec.mode.is_job() || !spec.labels.contains_key(LABEL) {
        return Ok(());
    }
    Err(Refusal::new(LABEL, "only services of mode replicated-job or global-job have a schedule"))
}

fn zone(name: &str) -> Result<TimeZone, Refusal> {
    let known = TimeZoneDatabase::bundled().get(name);
    known.map_err(|_| {
        Refusal::new(ZONE, format!("{name:?} is no zone of the IANA database, such as Europe/Berlin"))
    })
}

fn word<T: Copy + Default>(labels: &Labels, label: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
    let Some(text) = labels.get(label) else { return Ok(T::default()) };
    let known = words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning);
    known.ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Refusal::new(label, format!("{text:?} is none of {}", words.join(", ")))
    })
}

/// Of how many earlier runs the tasks are kept, if the labels say so. It is asked for each slot: no zone is looked up for it.
#[must_use]
pub fn kept_runs(labels: &Labels) -> Option<u64> {
    labels.get(LABEL).and_then(|_| history(labels).unwrap_or_default())
}

fn history(labels: &Labels) -> Result<Option<u64>, Refusal> {
    let Some(text) = labels.get(HISTORY) else { return Ok(None) };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|count| is_number && *count <= MOST_HISTORY);
    count.map(Some).ok_or_else(|| {
        Refusal::new(HISTORY, format!("{text:?} is no number of runs from 0 to {MOST_HISTORY}"))
    })
}

impl Schedule {
    /// The first due time after that moment; none in the years that can be looked at.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_nanosecond(i128::from(after.0)).ok()?;
        let due = self.cron.next(after, &self.zone)?;
        u64::try_from(due.as_nanosecond()).ok().map(Timestamp)
    }

    /// The last due time after `after` that is not after `until`.
    #[must_use]
    pub fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let within = |after| self.next(after).filter(|due| *due <= until);
        let (mut latest, mut end) = (within(after)?, until);
        while let Some(next) = within(latest) {
            latest = next;
            // Years of minutes may have passed: halves are left out as long as something is due in the other one.
            let middle = Timestamp(latest.0 + end.0.saturating_sub(latest.0) / 2);
            match within(middle) {
                Some(due) => latest = due,
                None => end = middle,
            }
        }
        Some(latest)
    }
}

#[cfg(test)]
mod tests;
