//! Resources: limits, reservations, generic ones.

use std::collections::BTreeSet;

use ketch_cluster::control::texts;
use ketch_cluster::objects::Given;
use ketch_cluster::objects::resources::{GenericResource, Limits, ResourceRequirements, Resources};
use ketch_engine_api::swarm::{node, task as api};

use crate::{Refusal, given};

/// With what of it was given.
///
/// # Errors
/// A negative amount.
pub(crate) fn read(
    requirements: Option<api::ResourceRequirements>,
    noted: &mut BTreeSet<Given>,
) -> Result<ResourceRequirements, Refusal> {
    given::note(noted, Given::Resources, requirements.as_ref());
    let requirements = requirements.unwrap_or_default();
    given::note(noted, Given::Limits, requirements.limits.as_ref());
    given::note(noted, Given::Reservations, requirements.reservations.as_ref());
    Ok(ResourceRequirements {
        limits: limits_of(&requirements.limits.unwrap_or_default())?,
        reservations: reservations_of(requirements.reservations.unwrap_or_default())?,
        swap_bytes: requirements.swap_bytes,
        memory_swappiness: requirements.memory_swappiness,
    })
}

fn limits_of(limit: &api::Limit) -> Result<Limits, Refusal> {
    Ok(Limits {
        nano_cpus: cpus_of(limit.nano_cpus)?,
        memory_bytes: memory_of(limit.memory_bytes)?,
        // A negative number of processes is no limit, as to the kernel's users.
        pids: u64::try_from(limit.pids).unwrap_or_default(),
    })
}

fn reservations_of(reservations: node::Resources) -> Result<Resources, Refusal> {
    let generic = reservations.generic_resources.into_iter().flatten();
    Ok(Resources {
        nano_cpus: cpus_of(reservations.nano_cpus)?,
        memory_bytes: memory_of(reservations.memory_bytes)?,
        generic: generic.map(generic_of).collect::<Result<_, _>>()?,
    })
}

fn cpus_of(nano_cpus: i64) -> Result<u64, Refusal> {
    u64::try_from(nano_cpus).map_err(|_| texts::cpu_below_minimum(&negative_cpus(nano_cpus)))
}

/// A negative number of CPUs as Go prints it: `-5e-09`, `-0.5`, `-2`.
fn negative_cpus(nano_cpus: i64) -> String {
    let cpus = nano_cpus as f64 / 1e9;
    if cpus.abs() >= 1e-4 {
        return cpus.to_string();
    }
    let text = format!("{cpus:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

fn memory_of(bytes: i64) -> Result<u64, Refusal> {
    u64::try_from(bytes).map_err(|_| texts::memory_below_minimum(bytes.into()))
}

fn generic_of(resource: api::GenericResource) -> Result<GenericResource, Refusal> {
    match (resource.discrete_resource_spec, resource.named_resource_spec) {
        (Some(it), _) => match u64::try_from(it.value) {
            Ok(amount) => Ok(GenericResource::Count { kind: it.kind, amount }),
            Err(_) => Err(texts::generic_not_a_count(&it.kind)),
        },
        (None, Some(it)) => Ok(GenericResource::Named { kind: it.kind, values: BTreeSet::from([it.value]) }),
        (None, None) => Err(texts::generic_not_a_count("")),
    }
}

/// None when none were given, and none are asked for.
pub(crate) fn shown(
    requirements: &ResourceRequirements,
    noted: &BTreeSet<Given>,
) -> Option<api::ResourceRequirements> {
    let shown = api::ResourceRequirements {
        limits: given::part(noted, Given::Limits, limits_shown(requirements.limits)),
        reservations: given::part(noted, Given::Reservations, resources_shown(&requirements.reservations)),
        swap_bytes: requirements.swap_bytes,
        memory_swappiness: requirements.memory_swappiness,
    };
    given::part(noted, Given::Resources, shown)
}

fn limits_shown(limits: Limits) -> api::Limit {
    api::Limit {
        nano_cpus: amount(limits.nano_cpus),
        memory_bytes: amount(limits.memory_bytes),
        pids: amount(limits.pids),
    }
}

pub(crate) fn resources_shown(resources: &Resources) -> node::Resources {
    node::Resources {
        nano_cpus: amount(resources.nano_cpus),
        memory_bytes: amount(resources.memory_bytes),
        generic_resources: generics_shown(&resources.generic),
    }
}

fn amount(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// None for none: an empty list is none to a comparison with what says nothing.
pub(crate) fn generics_shown(generic: &[GenericResource]) -> Option<Vec<api::GenericResource>> {
    let shown: Vec<_> = generic.iter().flat_map(generic_shown).collect();
    Some(shown).filter(|shown| !shown.is_empty())
}

/// One for each instance that has a name.
fn generic_shown(resource: &GenericResource) -> Vec<api::GenericResource> {
    match resource {
        GenericResource::Count { kind, amount: value } => vec![api::GenericResource {
            discrete_resource_spec: Some(api::DiscreteResource { kind: kind.clone(), value: amount(*value) }),
            named_resource_spec: None,
        }],
        GenericResource::Named { kind, values } => {
            let named = |value: &String| api::GenericResource {
                named_resource_spec: Some(api::NamedResource { kind: kind.clone(), value: value.clone() }),
                discrete_resource_spec: None,
            };
            values.iter().map(named).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_cpus_are_printed_as_go_does() {
        for (nano_cpus, text) in
            [(-5, "-5e-09"), (-12_000, "-1.2e-05"), (-500_000_000, "-0.5"), (-2_000_000_000, "-2")]
        {
            assert_eq!(negative_cpus(nano_cpus), text);
        }
    }
}
