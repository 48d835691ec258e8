//! Configs: created, relabelled, removed once nobody uses them, listed.

use std::sync::Arc;

use crate::fault::Fault;
use crate::id::{ConfigId, NewBits};
use crate::objects::{Config, ConfigSpec, Meta, ServiceSpec};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::{SpecUpdate, payload, rotation, texts, validate};

/// A config has fewer bytes.
const DATA_LIMIT: usize = 1000 << 10;

/// # Errors
/// When its name, size or template is not good, or the name is taken.
pub fn create_config(
    view: &View<'_>,
    spec: ConfigSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<(ConfigId, Vec<StoreAction>), ControlError> {
    is_good(&spec)?;
    if view.by_name(ObjectKind::Config, &spec.name).is_some() {
        return Err(texts::payload_exists(ObjectKind::Config, &spec.name));
    }
    let (id, actions) = made(view, spec, now, bits);
    Ok((id, rotation::fits(ObjectKind::Config, actions)?))
}

fn is_good(spec: &ConfigSpec) -> Result<(), ControlError> {
    payload::is_good(&spec.name, &spec.data, spec.templating.as_ref())?;
    if !(1..DATA_LIMIT).contains(&spec.data.len()) {
        return Err(texts::data_size(ObjectKind::Config, DATA_LIMIT));
    }
    validate::fits_object(ObjectKind::Config, spec)
}

/// A new config; and the services that ask for it are updated to it, if they name one that was called so.
fn made(
    view: &View<'_>,
    spec: ConfigSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> (ConfigId, Vec<StoreAction>) {
    let id = ConfigId::new(bits);
    let rolled = rotation::rolled(view, now, |container| {
        let mut old: Vec<_> = container.configs.iter_mut().filter(|it| it.name == spec.name).collect();
        old.iter_mut().for_each(|reference| reference.config = id);
        !old.is_empty()
    });
    let config = Config { id, meta: Meta::new(now), spec, superseded: false };
    (id, std::iter::once(StoreAction::Create(config.into())).chain(rolled).collect())
}

/// Writes the labels; and other data, if a service that uses it asks for that: then another config, whose id is drawn from
/// `bits`, takes its place. The spec may leave out what else it has.
///
/// # Errors
/// When anything else would change, or the version is not the config's.
pub fn update_config(
    view: &View<'_>,
    id: ConfigId,
    update: SpecUpdate<ConfigSpec>,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<Vec<StoreAction>, ControlError> {
    let SpecUpdate { version, spec } = update;
    let old = found(view, id)?;
    let rest_is_kept =
        old.spec.name == spec.name && payload::is_kept(&old.spec.templating, &spec.templating, &None);
    let data_is_kept = payload::is_kept(&old.spec.data, &spec.data, &Vec::new());
    if !rest_is_kept
        || !(data_is_kept || rotation::is_asked_for(view, |spec| has_one_called(spec, &old.spec.name)))
    {
        return Err(texts::only_labels());
    }
    if old.meta.version != version && !Fault::StaleVersion.is_made() {
        return Err(texts::out_of_sequence());
    }
    if !data_is_kept {
        let new = ConfigSpec { labels: spec.labels, data: spec.data, ..old.spec.clone() };
        is_good(&new)?;
        let (_, actions) = made(view, new, now, bits);
        let first = StoreAction::Update(superseded(old, now).into());
        return rotation::fits(ObjectKind::Config, std::iter::once(first).chain(actions).collect());
    }
    let mut config = Config::clone(old);
    config.spec.labels = spec.labels;
    config.meta.updated_at = now;
    validate::fits_object(ObjectKind::Config, &config)?;
    Ok(vec![StoreAction::Update(config.into())])
}

fn superseded(old: &Config, now: Timestamp) -> Config {
    let meta = Meta { updated_at: now, ..old.meta };
    Config { meta, superseded: true, ..old.clone() }
}

fn has_one_called(spec: &ServiceSpec, name: &str) -> bool {
    let container = spec.task.container();
    container.is_some_and(|container| container.configs.iter().any(|reference| reference.name == name))
}

fn uses(spec: &ServiceSpec, id: ConfigId) -> bool {
    let container = spec.task.container();
    container.is_some_and(|container| container.configs.iter().any(|reference| reference.config == id))
}

/// Of one that only services use which ask for the next one, the name is free, and they keep it until that comes.
///
/// # Errors
/// When another service uses it.
pub fn remove_config(
    view: &View<'_>,
    id: ConfigId,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let config = found(view, id)?;
    if rotation::is_asked_for_by_all(view, |spec| uses(spec, id)) {
        return Ok(vec![StoreAction::Update(superseded(config, now).into())]);
    }
    payload::is_unused(view, (ObjectKind::Config, &config.spec.name), |spec| uses(spec, id))?;
    Ok(vec![StoreAction::Remove(id.into())])
}

fn found<'v>(view: &'v View<'_>, id: ConfigId) -> Result<&'v Arc<Config>, ControlError> {
    view.config(id).filter(|config| !config.superseded).ok_or_else(|| texts::gone(&id.into()))
}

/// The configs that match `names`, `name`, `id` and `label`.
///
/// # Errors
/// When there is another key.
pub fn list_configs(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Config>>, ControlError> {
    filters.accept(&["names", "name", "id", "label"])?;
    let matches = |config: &&Arc<Config>| {
        let id = config.id.to_string();
        !config.superseded && payload::is_listed(filters, (&config.spec.name, &id), &config.spec.labels)
    };
    Ok(view.configs().filter(matches).cloned().collect())
}

#[cfg(test)]
mod tests;
