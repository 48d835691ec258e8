//! What `ketch events` tells: samples of a container's use, that it ran out of memory, and that a pressure threshold of
//! its limits was exceeded.
//!
//! Owns the order of events in time and their JSON, which containerd's and Docker's older code reads from runc. Called by
//! `cli`; the numbers are `cgroup`'s.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ketch_sys::SyscallError;
use ketch_sys::poll;
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
    /// What there is to say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<EventData<'a>>,
}

/// What there is to say of an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum EventData<'a> {
    /// The sample, for [`EventKind::Stats`].
    Stats(Box<Stats>),
    /// The threshold, for [`EventKind::Pressure`].
    Pressure {
        /// The file of the cgroup.
        file: &'a str,
        /// As it is in the configuration.
        threshold: &'a str,
    },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A sample was taken.
    Stats,
    /// The container ran out of memory.
    Oom,
    /// It waited for longer than a threshold of `unified` allows.
    Pressure,
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
    /// A pressure threshold cannot be put in force.
    #[error("watch the container's pressure")]
    Pressure(#[source] CgroupError),
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
    Ok(Event { kind: EventKind::Stats, id: container.id(), data: Some(EventData::Stats(Box::new(stats))) })
}

/// Tells every event until the container has ended: a sample after each `interval`, each time memory ran out, and each time
/// that the kernel says that a threshold of its limits was exceeded.
///
/// # Errors
/// Its memory or pressure cannot be watched, or `tell` fails.
pub fn follow(
    container: &Container,
    interval: Duration,
    mut tell: impl FnMut(&Event<'_>) -> std::io::Result<()>,
) -> Result<(), EventsError> {
    let cgroup = container.cgroup();
    let mut watch = cgroup.watch_oom().map_err(EventsError::Watch)?;
    let resources = container.state().config.resources.as_ref();
    let thresholds = resources.map(|resources| cgroup.watch_pressure(resources)).transpose();
    let thresholds = thresholds.map_err(EventsError::Pressure)?.unwrap_or_default();
    let mut next = Instant::now() + interval;
    loop {
        let armed: Vec<_> = thresholds.iter().map(AsFd::as_fd).collect();
        let (changed, exceeded) =
            poll::wait_until_told(watch.as_fd(), &armed, next).map_err(EventsError::Wait)?;
        // First whether the container has ended: the thresholds of a cgroup that is gone are ready, too.
        if changed {
            match watch.take().map_err(EventsError::Watch)? {
                OomEvent::Nothing => {}
                OomEvent::OutOfMemory => {
                    let event = Event { kind: EventKind::Oom, id: container.id(), data: None };
                    tell(&event).map_err(EventsError::Tell)?;
                }
                OomEvent::Ended => return Ok(()),
            }
        }
        for (threshold, _) in thresholds.iter().zip(exceeded).filter(|(_, exceeded)| *exceeded) {
            let data = EventData::Pressure { file: &threshold.file, threshold: &threshold.threshold };
            let event = Event { kind: EventKind::Pressure, id: container.id(), data: Some(data) };
            tell(&event).map_err(EventsError::Tell)?;
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
        let event = Event { kind: EventKind::Stats, id: "c", data: Some(EventData::Stats(Box::default())) };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"type":"stats","id":"c","data":{"cpu":"#), "{line}");
        let event = Event { kind: EventKind::Oom, id: "c", data: None };
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"type":"oom","id":"c"}"#);
        let data = EventData::Pressure { file: "cpu.pressure", threshold: "some 150000 2000000" };
        let event = Event { kind: EventKind::Pressure, id: "c", data: Some(data) };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"type":"pressure","id":"c","data":{"file":"cpu.pressure","threshold":"some 150000 2000000"}}"#
        );
    }
}
