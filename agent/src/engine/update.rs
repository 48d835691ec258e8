//! What can be changed of a container that is there: its limits, its restart policy, its name.

use std::sync::Arc;

use ketch_engine_api::host_config::{Resources, UpdateBody};
use serde_json::Value;

use super::container::Container;
use super::deliver::to_change;
use super::{name, resources, restart, validate};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

/// Refuses what can't be meant, whatever it is for.
///
/// # Errors
/// dockerd's texts.
pub fn check(daemon: &Daemon, body: &UpdateBody) -> Result<()> {
    validate::resources(&body.resources, &daemon.engine.host)?;
    restart::check(&body.restart_policy, false)
}

/// Changes limits and policy, which were checked; what the request leaves at zero stays. What the kernel can't hold is taken away,
/// and told.
///
/// # Errors
/// Limits that can't be meant, or that the kernel refuses: all is as it was.
pub async fn update(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    mut body: UpdateBody,
) -> Result<Vec<String>> {
    let warnings = super::create::unsupported(&mut body.resources, &crate::system::cgroups());
    let cannot = |error: Error| {
        Error::new(error.kind, format!("Cannot update container {}: {}", container.id, error.message))
    };
    let _changing = to_change(container).await?;
    let before = container.read(|record| record.host_config.clone());
    if container.read(|record| record.state.removing || record.state.dead) {
        return Err(cannot(Error::conflict("container is marked for removal and cannot be \"update\"")));
    }
    let mut after = before.clone();
    if !body.restart_policy.name.is_empty() {
        if before.auto_remove && !matches!(body.restart_policy.name.as_str(), "" | "no") {
            return Err(cannot(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            )));
        }
        after.restart_policy = body.restart_policy;
    }
    merge(&mut after.resources, &body.resources).map_err(cannot)?;
    let task = container.task();
    if let Some(task) = task.filter(|_| after.resources != before.resources) {
        let limits = Value::from(resources::limits(&after.resources)?);
        let bytes =
            serde_json::to_vec(&limits).map_err(|error| Error::internal("encoding limits", &error))?;
        task.update(bytes).await.map_err(|error| cannot(Error::new(Kind::Internal, error.to_string())))?;
    }
    container.change(|record| record.host_config = after);
    container.save(daemon).await?;
    container.publish(daemon, "update");
    Ok(warnings)
}

fn merge(own: &mut Resources, asked: &Resources) -> Result<()> {
    let set = |own: &mut i64, asked: i64| {
        if asked != 0 {
            *own = asked;
        }
    };
    if asked.nano_cpus > 0 && (own.cpu_period > 0 || own.cpu_quota > 0) {
        return Err(Error::conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ));
    }
    if (asked.cpu_period > 0 || asked.cpu_quota > 0) && own.nano_cpus > 0 {
        return Err(Error::conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ));
    }
    if asked.blkio_weight != 0 {
        own.blkio_weight = asked.blkio_weight;
    }
    set(&mut own.cpu_shares, asked.cpu_shares);
    set(&mut own.nano_cpus, asked.nano_cpus);
    set(&mut own.cpu_period, asked.cpu_period);
    set(&mut own.cpu_quota, asked.cpu_quota);
    set(&mut own.cpu_realtime_period, asked.cpu_realtime_period);
    set(&mut own.cpu_realtime_runtime, asked.cpu_realtime_runtime);
    if asked.memory != 0 {
        // Docker's order: a limit above the swap limit that is there needs a new one of that, too.
        if own.memory_swap > 0 && asked.memory > own.memory_swap && asked.memory_swap == 0 {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        own.memory = asked.memory;
    }
    set(&mut own.memory_swap, asked.memory_swap);
    set(&mut own.memory_reservation, asked.memory_reservation);
    for (own, asked) in
        [(&mut own.cpuset_cpus, &asked.cpuset_cpus), (&mut own.cpuset_mems, &asked.cpuset_mems)]
    {
        if !asked.is_empty() {
            own.clone_from(asked);
        }
    }
    match asked.pids_limit {
        // 0 and below: no bound any more.
        Some(limit) if limit <= 0 => own.pids_limit = Some(-1),
        Some(limit) => own.pids_limit = Some(limit),
        None => {}
    }
    Ok(())
}

/// Gives a container another name.
///
/// # Errors
/// It can't be one, or another has it.
pub async fn rename(daemon: &Arc<Daemon>, container: &Arc<Container>, new: &str) -> Result<()> {
    let new = new.strip_prefix('/').unwrap_or(new);
    if new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    if name::check(new).is_err() {
        return Err(Error::invalid(format!(
            "Error when allocating new name: Invalid container name (/{new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let _changing = to_change(container).await?;
    let old = container.name();
    if old == new {
        return Err(Error::invalid("Renaming a container with the same name as its current name"));
    }
    daemon.engine.take_name(new, &container.id).map_err(|error| {
        Error::new(error.kind, format!("Error when allocating new name: {}", error.message))
    })?;
    container.change(|record| new.clone_into(&mut record.name));
    if let Err(error) = container.save(daemon).await {
        container.change(|record| old.clone_into(&mut record.name));
        daemon.engine.leave_name(new, &container.id);
        return Err(error);
    }
    daemon.engine.leave_name(&old, &container.id);
    let (networks, id, own) = (daemon.networks.clone(), container.id.clone(), new.to_owned());
    blocking(move || networks.rename(&id, &own)).await?;
    container.publish_with(daemon, "rename", &[("oldName", format!("/{old}"))]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_change_nothing() {
        let mut own = Resources { memory: 5, cpu_shares: 7, cpuset_cpus: "0".into(), ..Resources::default() };
        let before = own.clone();
        merge(&mut own, &Resources::default()).unwrap();
        assert_eq!(own, before);
        merge(&mut own, &Resources { memory: 9, pids_limit: Some(0), ..Resources::default() }).unwrap();
        assert_eq!((own.memory, own.pids_limit), (9, Some(-1)));
        let asked = Resources { memory: 100, ..Resources::default() };
        assert!(merge(&mut Resources { memory_swap: 50, ..Resources::default() }, &asked).is_err());
    }
}
