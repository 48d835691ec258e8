//! What `ketch events` tells: samples of a container's use, and that it ran out of memory.
//!
//! Owns the order of events in time and their JSON, which containerd's and Docker's older code reads from runc. Called by
//! `cli`; the numbers are `cgroup`'s.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ketch_sys::{SyscallError, process};
use serde::Serialize;

use crate::cgroup::stats::Stats;
use crate::cgroup::{CgroupError, OomEvent};
use crate::container::{Container, ContainerError};
use crate::error::chain;
use crate::log;

/// One line of `events`.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// To which container.
    pub id: &'a str,
    /// The sample, for [`EventKind::Stats`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Stats>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A sample was taken.
    Stats,
    /// The container ran out of memory.
    Oom,
}

/// Events cannot be followed any more.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// What the container uses cannot be read.
    #[error(transparent)]
    Sample(ContainerError),
    /// The memory cannot be watched.
    #[error("watch the container's memory")]
    Watch(#[source] CgroupError),
    /// Waiting failed.
    #[error("wait for events")]
    Wait(#[source] SyscallError),
    /// Whoever is told cannot be told any more.
    #[error("write the event")]
    Tell(#[source] std::io::Error),
}

/// One sample.
///
/// # Errors
/// The cgroup cannot be read.
pub fn sample(container: &Container) -> Result<Event<'_>, EventsError> {
    let stats = container.stats().map_err(EventsError::Sample)?;
    Ok(Event { kind: EventKind::Stats, id: container.id(), data: Some(stats) })
}

/// Tells every event until the container has ended: a sample after each `interval`, and each time memory ran out.
///
/// # Errors
/// Its memory cannot be watched, or `tell` fails.
pub fn follow(
    container: &Container,
    interval: Duration,
    mut tell: impl FnMut(&Event<'_>) -> std::io::Result<()>,
) -> Result<(), EventsError> {
    let cgroup = container.cgroup();
    let mut watch = cgroup.watch_oom().map_err(EventsError::Watch)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let ready = process::poll_readable(&[watch.as_fd()], Some(left)).map_err(EventsError::Wait)?;
        if ready == [true] {
            match watch.take().map_err(EventsError::Watch)? {
                OomEvent::Nothing => {}
                OomEvent::OutOfMemory => {
                    let event = Event { kind: EventKind::Oom, id: container.id(), data: None };
                    tell(&event).map_err(EventsError::Tell)?;
                }
                OomEvent::Ended => return Ok(()),
            }
        }
        if Instant::now() >= next {
            next += interval;
            match sample(container) {
                Ok(event) => tell(&event).map_err(EventsError::Tell)?,
                // As in runc, one sample that failed is not the end: the next may not.
                Err(error) => log::error(chain(&error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_as_runcs_do() {
        let event = Event { kind: EventKind::Stats, id: "c", data: Some(Stats::default()) };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"type":"stats","id":"c","data":{"cpu":"#), "{line}");
        let event = Event { kind: EventKind::Oom, id: "c", data: None };
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"type":"oom","id":"c"}"#);
    }
}
