//! `ketch.scale.min|max` and `ketch.scale.cpu|memory|requests|window`: between which bounds a replicated service is scaled, and by
//! which load of its tasks.
//!
//! - `min`, `max`: how many replicas, both needed.
//! - `cpu`, `memory`: percent of what each task reserves (else of its limit, else of one CPU) that its use should be at.
//! - `requests`: how many requests a second each task should have. Counted are TCP connections that are opened to the task's network
//!   interfaces, whichever way they come (virtual address, published port, its own address); what follows on one is not.
//! - `window`: for how long fewer must have been enough before there are fewer; 5 minutes when not said.

use std::time::Duration;

use super::{Refusal, is_in_host};
use crate::objects::resources::ResourceRequirements;
use crate::objects::{Labels, ServiceMode, ServiceSpec};
use crate::orchestrator::fence;
use crate::view::View;

pub const CPU: &str = "ketch.scale.cpu";
pub const MAX: &str = "ketch.scale.max";
pub const MEMORY: &str = "ketch.scale.memory";
pub const MIN: &str = "ketch.scale.min";
pub const REQUESTS: &str = "ketch.scale.requests";
pub const WINDOW: &str = "ketch.scale.window";

const ALL: [&str; 6] = [CPU, MAX, MEMORY, MIN, REQUESTS, WINDOW];

const DEFAULT_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The leader keeps a value for each look within it.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

const MOST_REPLICAS: u64 = 1_000_000;
const MOST_PERCENT: u64 = 1000;
const MOST_REQUESTS: u64 = 1_000_000;

/// What the labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// At least 1.
    pub min: u64,
    pub max: u64,
    /// Percent; at least one of the three is there.
    pub cpu: Option<u64>,
    /// Percent.
    pub memory: Option<u64>,
    /// Connections that are opened, a second and task.
    pub requests: Option<u64>,
    pub window: Duration,
}

/// What the labels of a service say.
///
/// # Errors
/// The first one that can't be read, is missing, or contradicts another one.
pub fn parse(labels: &Labels) -> Result<Option<Scale>, Refusal> {
    let Some(first) = ALL.iter().find(|label| labels.contains_key(**label)) else { return Ok(None) };
    let bound = |label| {
        number(labels, label, MOST_REPLICAS)?
            .ok_or_else(|| Refusal::new(first, format!("there is no {label} beside it")))
    };
    let scale = Scale {
        min: bound(MIN)?,
        max: bound(MAX)?,
        cpu: number(labels, CPU, MOST_PERCENT)?,
        memory: number(labels, MEMORY, MOST_PERCENT)?,
        requests: number(labels, REQUESTS, MOST_REQUESTS)?,
        window: window(labels)?,
    };
    if scale.max < scale.min {
        return Err(Refusal::new(MAX, format!("{} is less than {MIN}, which is {}", scale.max, scale.min)));
    }
    if scale.cpu.or(scale.memory).or(scale.requests).is_none() {
        return Err(Refusal::new(
            first,
            format!("there is none of {CPU}, {MEMORY} and {REQUESTS} beside it"),
        ));
    }
    Ok(Some(scale))
}

/// Whether there is something to scale, and to measure by.
pub(super) fn fits(view: &View<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
    let Some(scale) = parse(&spec.labels)? else { return Ok(()) };
    if !matches!(spec.mode, ServiceMode::Replicated { .. }) {
        return Err(Refusal::new(MIN, "only replicated services are scaled"));
    }
    if scale.memory.is_some() && memory_of(&spec.task.resources).is_none() {
        return Err(Refusal::new(
            MEMORY,
            "the service reserves no memory, and has no limit that it could be a part of",
        ));
    }
    if scale.requests.is_some() && is_in_host(view, spec) {
        return Err(Refusal::new(
            REQUESTS,
            "what comes to tasks that have the network of their nodes is not counted",
        ));
    }
    Ok(())
}

/// What a service goes back to: where its replicas follow its load before and after, those that it has now, within the bounds of then.
#[must_use]
pub fn rolled_back(now: &ServiceSpec, mut previous: ServiceSpec) -> ServiceSpec {
    let is_scaled = |spec: &ServiceSpec| parse(&spec.labels).ok().flatten();
    if let (Some(_), Some(bounds)) = (is_scaled(now), is_scaled(&previous))
        && let (ServiceMode::Replicated { replicas }, ServiceMode::Replicated { .. }) =
            (now.mode, previous.mode)
        && replicas > 0
    {
        previous.mode = ServiceMode::Replicated { replicas: replicas.clamp(bounds.min, bounds.max) };
    }
    previous
}

/// The replicas of a spec with these labels that says none, as the file of a stack that leaves them to the load: those that the service
/// has, within the bounds, and 0 where it was put to rest; of a new one the fewest that it may have. None without such labels.
#[must_use]
pub fn unsaid(labels: &Labels, now: Option<&ServiceSpec>) -> Option<u64> {
    let bounds = parse(labels).ok().flatten()?;
    let kept = now.and_then(|now| match now.mode {
        ServiceMode::Replicated { replicas: 0 } => parse(&now.labels).ok().flatten().map(|_| 0),
        ServiceMode::Replicated { replicas } => Some(replicas.clamp(bounds.min, bounds.max)),
        _ => None,
    });
    Some(kept.unwrap_or(bounds.min))
}

/// Billionths of a CPU of which `ketch.scale.cpu` is a part.
#[must_use]
pub fn cpus_of(resources: &ResourceRequirements) -> u64 {
    let known = [resources.reservations.nano_cpus, resources.limits.nano_cpus];
    known.into_iter().find(|cpus| *cpus > 0).unwrap_or(1_000_000_000)
}

/// Bytes of which `ketch.scale.memory` is a part.
#[must_use]
pub fn memory_of(resources: &ResourceRequirements) -> Option<u64> {
    let known = [resources.reservations.memory_bytes, resources.limits.memory_bytes];
    known.into_iter().find(|bytes| *bytes > 0)
}

fn number(labels: &Labels, label: &str, most: u64) -> Result<Option<u64>, Refusal> {
    let Some(text) = labels.get(label) else { return Ok(None) };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|value| is_number && (1..=most).contains(value));
    value.map(Some).ok_or_else(|| Refusal::new(label, format!("{text:?} is no number from 1 to {most}")))
}

fn window(labels: &Labels) -> Result<Duration, Refusal> {
    let Some(text) = labels.get(WINDOW) else { return Ok(DEFAULT_WINDOW) };
    let window = fence::duration(text).filter(|window| *window <= LONGEST_WINDOW);
    window.ok_or_else(|| {
        Refusal::new(WINDOW, format!("{text:?} is no duration up to 1h, such as 90s or 1m30s"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::store::Store;
    use crate::view::Observed;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (format!("ketch.scale.{key}"), (*value).to_owned())).collect()
    }

    fn told(pairs: &[(&str, &str)]) -> String {
        parse(&labels(pairs)).unwrap_err().to_string()
    }

    #[test]
    fn bounds_and_a_load_are_needed() {
        let read = parse(&labels(&[("min", "2"), ("max", "10"), ("cpu", "70"), ("window", "1m30s")]));
        let scale = Scale {
            min: 2,
            max: 10,
            cpu: Some(70),
            memory: None,
            requests: None,
            window: Duration::from_secs(90),
        };
        assert_eq!(read, Ok(Some(scale)));
        assert_eq!(parse(&Labels::new()), Ok(None));
        let bounds = [("min", "1"), ("max", "3")];
        assert_eq!(told(&[("cpu", "70")]), "label ketch.scale.cpu: there is no ketch.scale.min beside it");
        assert_eq!(
            told(&bounds),
            "label ketch.scale.max: there is none of ketch.scale.cpu, ketch.scale.memory and ketch.scale.requests beside it"
        );
        let window = parse(&labels(&[bounds[0], bounds[1], ("requests", "100")])).unwrap().unwrap().window;
        assert_eq!(window, Duration::from_secs(300));
    }

    #[test]
    fn a_rollback_keeps_the_replicas_that_the_load_asks_for() {
        let spec = |replicas, max| ServiceSpec {
            mode: ServiceMode::Replicated { replicas },
            labels: labels(&[("min", "2"), ("max", max), ("cpu", "70")]),
            ..fixture::replicated(1, replicas).spec
        };
        let plain = |replicas| ServiceSpec { labels: Labels::new(), ..spec(replicas, "50") };
        let mode = |now: &ServiceSpec, previous| rolled_back(now, previous).mode;
        let replicas = |replicas| ServiceMode::Replicated { replicas };
        assert_eq!(mode(&spec(40, "50"), spec(3, "50")), replicas(40));
        assert_eq!(mode(&spec(40, "50"), spec(3, "20")), replicas(20), "within its bounds");
        assert_eq!(mode(&spec(0, "50"), spec(3, "50")), replicas(3));
        assert_eq!(mode(&plain(40), spec(3, "50")), replicas(3));
        assert_eq!(mode(&spec(40, "50"), plain(3)), replicas(3));
    }

    #[test]
    fn a_spec_that_says_no_replicas_leaves_them_to_the_load() {
        let scaled = labels(&[("min", "3"), ("max", "50"), ("cpu", "70")]);
        let of = |labels: &Labels, replicas| {
            let spec = fixture::replicated(1, replicas).spec;
            ServiceSpec { labels: labels.clone(), ..spec }
        };
        let plain = Labels::new();
        assert_eq!(unsaid(&plain, None), None);
        assert_eq!(unsaid(&plain, Some(&of(&scaled, 40))), None, "Docker's default");
        assert_eq!(unsaid(&scaled, None), Some(3));
        assert_eq!(unsaid(&scaled, Some(&of(&scaled, 40))), Some(40));
        assert_eq!(unsaid(&scaled, Some(&of(&plain, 60))), Some(50), "within its bounds");
        assert_eq!(unsaid(&scaled, Some(&of(&scaled, 0))), Some(0), "it is at rest");
        assert_eq!(unsaid(&scaled, Some(&of(&plain, 0))), Some(3));
    }

    #[test]
    fn what_is_no_number_or_contradicts_itself_is_refused() {
        let with = |key, value| told(&[("min", "2"), ("max", "3"), ("cpu", "70"), (key, value)]);
        for (key, value, range) in [
            ("min", "0", "1 to 1000000"),
            ("max", "-1", "1 to 1000000"),
            ("cpu", "70%", "1 to 1000"),
            ("memory", "", "1 to 1000"),
            ("requests", "1e3", "1 to 1000000"),
        ] {
            assert_eq!(
                with(key, value),
                format!("label ketch.scale.{key}: {value:?} is no number from {range}")
            );
        }
        assert_eq!(with("max", "1"), "label ketch.scale.max: 1 is less than ketch.scale.min, which is 2");
        for window in ["5", "61m"] {
            let wanted =
                format!("label ketch.scale.window: {window:?} is no duration up to 1h, such as 90s or 1m30s");
            assert_eq!(with("window", window), wanted);
        }
    }

    #[test]
    fn only_replicated_services_whose_memory_has_a_measure() {
        let (store, observed) = (Store::default(), Observed::default());
        let fits = |spec: &ServiceSpec| fits(&View::new(&store, &observed), spec);
        let mut spec = fixture::replicated(1, 1).spec;
        spec.labels = labels(&[("min", "1"), ("max", "3"), ("cpu", "70")]);
        assert_eq!(fits(&spec), Ok(()));
        let global = ServiceSpec { mode: ServiceMode::Global, ..spec.clone() };
        assert_eq!(
            fits(&global).unwrap_err().to_string(),
            "label ketch.scale.min: only replicated services are scaled"
        );
        spec.labels = labels(&[("min", "1"), ("max", "3"), ("memory", "70")]);
        assert!(fits(&spec).is_err());
        std::sync::Arc::make_mut(&mut spec.task).resources.limits.memory_bytes = 1 << 30;
        assert_eq!(fits(&spec), Ok(()));
        assert_eq!(
            (cpus_of(&spec.task.resources), memory_of(&spec.task.resources)),
            (1_000_000_000, Some(1 << 30))
        );
    }
}
