//! Which specs of services are good, whatever else is in the cluster or given what is.
//!
//! The order of the checks is that of SwarmKit's, so that of several faults the client is told the same one.

mod container;
mod endpoint;
mod image;

pub(super) use endpoint::needs_ingress;

use crate::constraint::Constraints;
use crate::id::ServiceId;
use crate::label;
use crate::objects::resources::ResourceRequirements;
use crate::objects::task::Placement;
use crate::objects::{GenericResource, ServiceMode, ServiceSpec, UpdateConfig};
use crate::store::ObjectKind;
use crate::view::View;

use super::error::ControlError;
use super::size::{MAX_OBJECT_BYTES, MAX_SERVICE_SPEC_BYTES, size_of};
use super::texts;

/// The least CPU that can be asked for.
const MIN_NANO_CPUS: u64 = 1_000_000;
const MIN_MEMORY_BYTES: u64 = 4 << 20;

/// Most tasks of a service, at once or of one run: all that the largest cluster is meant to hold. Each missing one becomes a
/// task in the memory of every manager, so that a number without bound would end one leader after the other.
const MAX_TASKS: u64 = 1_000_000;

/// Most constraints of a service, and most preferences: each is looked at for every node in a pass of the scheduler.
const MAX_PLACEMENT_RULES: usize = 100;

/// Whether a service may have this spec. `updated` is the service that has it now, if there is one.
pub(super) fn service(
    view: &View<'_>,
    spec: &ServiceSpec,
    updated: Option<ServiceId>,
) -> Result<(), ControlError> {
    dns_label(&spec.name)?;
    // Before its parts are parsed and expanded, which costs what they take.
    fits(ObjectKind::Service, spec, MAX_SERVICE_SPEC_BYTES)?;
    let labels = label::checked(&spec.labels).map_err(|refusal| texts::label_refused(&refusal))?;
    task(spec)?;
    mode(spec.mode)?;
    update_configs(spec)?;
    if let Some(endpoint) = &spec.endpoint {
        endpoint::of_itself(endpoint)?;
    }
    endpoint::networks(view, &spec.task)?;
    endpoint::no_port_clash(view, spec, updated)?;
    endpoint::none_of_the_cluster(view, spec, updated)?;
    endpoint::ingress_is_there(view, spec)?;
    let before = updated.and_then(|id| view.service(id)).map(|service| &service.spec);
    labels.fit(view, spec, before).map_err(|refusal| texts::label_refused(&refusal))?;
    container::references_exist(view, &spec.task)
}

/// The name of a service or network: a label of the DNS.
pub(super) fn dns_label(name: &str) -> Result<(), ControlError> {
    if name.is_empty() {
        return Err(texts::name_missing());
    }
    let edges = [name.bytes().next(), name.bytes().last()];
    let edges_fit = edges.iter().flatten().all(u8::is_ascii_alphanumeric);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !edges_fit || !name.bytes().all(fits) {
        return Err(texts::name_no_dns_label());
    }
    if name.len() > 63 { Err(texts::name_too_long()) } else { Ok(()) }
}

/// The name of a secret or config.
pub(super) fn payload_name(name: &str) -> Result<(), ControlError> {
    if name.is_empty() {
        return Err(texts::payload_name_missing());
    }
    let edges = [name.bytes().next(), name.bytes().last()];
    let edges_fit = edges.iter().flatten().all(u8::is_ascii_alphanumeric);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > 64 || !edges_fit || !name.bytes().all(fits) {
        return Err(texts::payload_name_invalid());
    }
    Ok(())
}

/// Whether a spec or object leaves room in a transaction.
pub(super) fn fits_object(kind: ObjectKind, object: &impl serde::Serialize) -> Result<(), ControlError> {
    fits(kind, object, MAX_OBJECT_BYTES)
}

fn fits(kind: ObjectKind, value: &impl serde::Serialize, limit: usize) -> Result<(), ControlError> {
    match size_of(value) {
        Some(size) if size > limit => Err(texts::too_large(kind, size, limit)),
        _ => Ok(()),
    }
}

fn task(spec: &ServiceSpec) -> Result<(), ControlError> {
    let task = &spec.task;
    resources(&task.resources)?;
    placement(&task.placement)?;
    let container = task.container().ok_or_else(texts::runtime_not_supported)?;
    container::references(container)?;
    container::of_itself(container, spec)
}

fn placement(placement: &Placement) -> Result<(), ControlError> {
    let (constraints, preferences) = (placement.constraints.len(), placement.spread.len());
    if constraints > MAX_PLACEMENT_RULES {
        return Err(texts::constraints_too_many(MAX_PLACEMENT_RULES, constraints));
    }
    if preferences > MAX_PLACEMENT_RULES {
        return Err(texts::preferences_too_many(MAX_PLACEMENT_RULES, preferences));
    }
    Constraints::parse(&placement.constraints).map_err(|reason| texts::constraint_invalid(&reason))?;
    Ok(())
}

fn resources(resources: &ResourceRequirements) -> Result<(), ControlError> {
    let (limits, reservations) = (&resources.limits, &resources.reservations);
    for (nano_cpus, memory_bytes) in
        [(limits.nano_cpus, limits.memory_bytes), (reservations.nano_cpus, reservations.memory_bytes)]
    {
        if nano_cpus != 0 && nano_cpus < MIN_NANO_CPUS {
            return Err(texts::cpu_below_minimum(&cpus_below_minimum(nano_cpus)));
        }
        if memory_bytes != 0 && memory_bytes < MIN_MEMORY_BYTES {
            return Err(texts::memory_below_minimum(memory_bytes.into()));
        }
    }
    let named = |it: &&GenericResource| matches!(it, GenericResource::Named { .. });
    if let Some(named) = reservations.generic.iter().find(named) {
        return Err(texts::generic_not_a_count(named.kind()));
    }
    if resources.swap_bytes.is_some_and(|bytes| bytes != 0) && limits.memory_bytes == 0 {
        return Err(texts::swap_without_limit());
    }
    match resources.memory_swappiness {
        Some(value) if !(0..=100).contains(&value) => Err(texts::swappiness_out_of_range(value)),
        _ => Ok(()),
    }
}

/// A number of CPUs below a thousandth, as Go prints it: `0.0005`, `1.5e-05`.
fn cpus_below_minimum(nano_cpus: u64) -> String {
    if nano_cpus >= 100_000 {
        return format!("0.{nano_cpus:09}").trim_end_matches('0').to_owned();
    }
    let digits = nano_cpus.to_string();
    let exponent = 10 - digits.len();
    let (first, rest) = digits.split_at(1);
    match rest.trim_end_matches('0') {
        "" => format!("{first}e-{exponent:02}"),
        rest => format!("{first}.{rest}e-{exponent:02}"),
    }
}

fn mode(mode: ServiceMode) -> Result<(), ControlError> {
    match mode {
        ServiceMode::Replicated { replicas } => {
            count(replicas, texts::replicas_negative, texts::replicas_beyond_cluster)
        }
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
            count(max_concurrent, texts::max_concurrent_negative, texts::max_concurrent_beyond_cluster)?;
            count(
                total_completions,
                texts::total_completions_negative,
                texts::total_completions_beyond_cluster,
            )
        }
        ServiceMode::Global | ServiceMode::GlobalJob => Ok(()),
    }
}

/// Whether it is a number of tasks that a cluster can have. One above `i64` only a negative one of a client can have become.
fn count(
    count: u64,
    negative: fn() -> ControlError,
    too_many: fn(u64) -> ControlError,
) -> Result<(), ControlError> {
    if i64::try_from(count).is_err() {
        return Err(negative());
    }
    if count > MAX_TASKS { Err(too_many(MAX_TASKS)) } else { Ok(()) }
}

fn update_configs(spec: &ServiceSpec) -> Result<(), ControlError> {
    if spec.mode.is_job() {
        return if spec.update.is_some() { Err(texts::job_with_update_config()) } else { Ok(()) };
    }
    let bad_ratio = |config: &&UpdateConfig| !(0.0..=1.0).contains(&config.max_failure_ratio);
    match spec.update.iter().chain(&spec.rollback).find(bad_ratio) {
        Some(_) => Err(texts::failure_ratio_out_of_range()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
