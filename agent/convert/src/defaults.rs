//! What a service runs with where its spec says nothing: `insertDefaults=true`.

use ketch_cluster::objects::service::UpdateConfig;
use ketch_cluster::objects::task::RestartPolicy;
use ketch_engine_api::swarm::container::ContainerSpec;
use ketch_engine_api::swarm::{service as api, task};

use crate::service::update_shown;
use crate::span;

/// Nanoseconds between a container's stop signal and its end.
const STOP_GRACE_PERIOD: i64 = 10_000_000_000;

pub(crate) fn filled_in(mut spec: api::ServiceSpec) -> api::ServiceSpec {
    if let Some(container) = &mut spec.task_template.container_spec {
        fill_container(container);
    }
    fill_restart(spec.task_template.restart_policy.get_or_insert_default());
    spec.task_template.placement.get_or_insert_default();
    spec.task_template.resources.get_or_insert_default();
    fill_update(&mut spec.update_config);
    fill_update(&mut spec.rollback_config);
    spec
}

fn fill_container(container: &mut ContainerSpec) {
    container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
    container.dns_config.get_or_insert_default();
}

fn fill_restart(policy: &mut task::RestartPolicy) {
    let default = RestartPolicy::default();
    if policy.condition.is_empty() {
        "any".clone_into(&mut policy.condition);
    }
    policy.delay.get_or_insert(span::shown(default.delay));
    policy.max_attempts.get_or_insert(default.max_attempts);
}

fn fill_update(config: &mut Option<api::UpdateConfig>) {
    let default = update_shown(&UpdateConfig::default());
    let config = config.get_or_insert_with(|| default.clone());
    if config.monitor == 0 {
        config.monitor = default.monitor;
    }
}
