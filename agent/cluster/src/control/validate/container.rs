//! What a service's tasks run: image, mounts, health check, templates, secrets and configs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::objects::container::{ConfigTarget, HealthCheck};
use crate::objects::node::Platform;
use crate::objects::{ContainerSpec, ServiceSpec, TaskSpec};
use crate::store::ObjectKind;
use crate::template::{Context, expand_container};
use crate::view::View;

use super::super::error::ControlError;
use super::super::texts;
use super::image;

/// The least of a health check's times that is not "the default".
const MIN_HEALTH_TIME: Duration = Duration::from_millis(1);

/// Whether the container is good by itself, as it would be once its templates are expanded.
pub(super) fn of_itself(container: &ContainerSpec, service: &ServiceSpec) -> Result<(), ControlError> {
    let expanded =
        expand_container(container, &example(service)).map_err(|reason| texts::template_invalid(&reason))?;
    if expanded.image.is_empty() {
        return Err(texts::image_missing());
    }
    if !image::is_reference(&expanded.image) {
        return Err(texts::image_invalid(&expanded.image));
    }
    let mut targets = BTreeSet::new();
    for mount in &expanded.mounts {
        if !targets.insert(&mount.target) {
            return Err(texts::mount_point_duplicate(&mount.target));
        }
    }
    expanded.health_check.as_ref().map_or(Ok(()), health_check)
}

/// A task that could be the service's, to expand templates with. The labels are the service's own: a template may read
/// those, and no others.
fn example(service: &ServiceSpec) -> Context {
    Context {
        service_id: "serviceid".to_owned(),
        service_name: service.name.clone(),
        service_labels: service.labels.clone(),
        node_id: "nodeid".to_owned(),
        node_hostname: "nodeHostname".to_owned(),
        node_platform: Platform { architecture: "architecture".to_owned(), os: "os".to_owned() },
        task_id: "taskid".to_owned(),
        task_name: "taskname".to_owned(),
        task_slot: "1".to_owned(),
    }
}

fn health_check(check: &HealthCheck) -> Result<(), ControlError> {
    for (field, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if !time.is_zero() && time < MIN_HEALTH_TIME {
            return Err(texts::health_below_minimum(field));
        }
    }
    Ok(())
}

/// Whether each reference is complete, and no two show in the same place.
pub(super) fn references(container: &ContainerSpec) -> Result<(), ControlError> {
    let mut secrets = Targets::new(ObjectKind::Secret);
    for reference in &container.secrets {
        secrets.add(&reference.name, Some(&reference.file.name))?;
    }
    let mut configs = Targets::new(ObjectKind::Config);
    for reference in &container.configs {
        let file = match &reference.target {
            ConfigTarget::File(file) => Some(file.name.as_str()),
            ConfigTarget::Runtime => None,
        };
        configs.add(&reference.name, file)?;
    }
    Ok(())
}

/// Files by name, with the name of what shows there.
struct Targets<'a> {
    kind: ObjectKind,
    files: BTreeMap<&'a str, &'a str>,
}

impl<'a> Targets<'a> {
    fn new(kind: ObjectKind) -> Self {
        Self { kind, files: BTreeMap::new() }
    }

    fn add(&mut self, name: &'a str, file: Option<&'a str>) -> Result<(), ControlError> {
        if name.is_empty() {
            return Err(texts::reference_malformed(self.kind));
        }
        let Some(file) = file else { return Ok(()) };
        if file.is_empty() {
            return Err(texts::reference_without_file_name(self.kind));
        }
        match self.files.insert(file, name) {
            Some(first) => Err(texts::references_conflict(self.kind, first, name, file)),
            None => Ok(()),
        }
    }
}

/// Whether everything that is referenced is in the cluster, by the name that the reference says.
pub(super) fn references_exist(view: &View<'_>, task: &TaskSpec) -> Result<(), ControlError> {
    let Some(container) = task.container() else { return Ok(()) };
    let secrets = container.secrets.iter().filter(|reference| {
        let secret = view.secret(reference.secret).filter(|secret| !secret.internal);
        secret.is_none_or(|secret| secret.spec.name != reference.name)
    });
    none_missing(ObjectKind::Secret, secrets.map(|reference| reference.name.as_str()))?;
    let configs = container.configs.iter().filter(|reference| {
        view.config(reference.config).is_none_or(|config| config.spec.name != reference.name)
    });
    none_missing(ObjectKind::Config, configs.map(|reference| reference.name.as_str()))
}

fn none_missing<'a>(kind: ObjectKind, missing: impl Iterator<Item = &'a str>) -> Result<(), ControlError> {
    match missing.collect::<Vec<_>>()[..] {
        [] => Ok(()),
        [name] => Err(texts::reference_not_found(kind, name)),
        ref names => Err(texts::references_not_found(kind, &names.join(", "))),
    }
}
