//! Configs: created, relabelled, removed once nobody uses them, listed.

use std::sync::Arc;

use crate::fault::Fault;
use crate::id::{ConfigId, NewBits};
use crate::objects::{Config, ConfigSpec, Meta};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::{SpecUpdate, payload, texts, validate};

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
    payload::is_good(&spec.name, &spec.data, spec.templating.as_ref())?;
    if !(1..DATA_LIMIT).contains(&spec.data.len()) {
        return Err(texts::data_size(ObjectKind::Config, DATA_LIMIT));
    }
    validate::fits_object(ObjectKind::Config, &spec)?;
    if view.by_name(ObjectKind::Config, &spec.name).is_some() {
        return Err(texts::payload_exists(ObjectKind::Config, &spec.name));
    }
    let config = Config { id: ConfigId::new(bits), meta: Meta::new(now), spec };
    Ok((config.id, vec![StoreAction::Create(config.into())]))
}

/// Writes the labels. The spec may leave out what else it has.
///
/// # Errors
/// When anything but labels would change, or the version is not the config's.
pub fn update_config(
    view: &View<'_>,
    id: ConfigId,
    update: SpecUpdate<ConfigSpec>,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let SpecUpdate { version, spec } = update;
    let old = found(view, id)?;
    let kept = old.spec.name == spec.name
        && payload::is_kept(&old.spec.data, &spec.data, &Vec::new())
        && payload::is_kept(&old.spec.templating, &spec.templating, &None);
    if !kept {
        return Err(texts::only_labels());
    }
    if old.meta.version != version && !Fault::StaleVersion.is_made() {
        return Err(texts::out_of_sequence());
    }
    let mut config = Config::clone(old);
    config.spec.labels = spec.labels;
    config.meta.updated_at = now;
    validate::fits_object(ObjectKind::Config, &config)?;
    Ok(vec![StoreAction::Update(config.into())])
}

/// # Errors
/// When a service uses it.
pub fn remove_config(view: &View<'_>, id: ConfigId) -> Result<Vec<StoreAction>, ControlError> {
    let config = found(view, id)?;
    payload::is_unused(view, (ObjectKind::Config, &config.spec.name), |spec| {
        let container = spec.task.container();
        container.is_some_and(|container| container.configs.iter().any(|reference| reference.config == id))
    })?;
    Ok(vec![StoreAction::Remove(id.into())])
}

fn found<'v>(view: &'v View<'_>, id: ConfigId) -> Result<&'v Arc<Config>, ControlError> {
    view.config(id).ok_or_else(|| texts::gone(&id.into()))
}

/// The configs that match `names`, `name`, `id` and `label`.
///
/// # Errors
/// When there is another key.
pub fn list_configs(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Config>>, ControlError> {
    filters.accept(&["names", "name", "id", "label"])?;
    let matches = |config: &&Arc<Config>| {
        payload::is_listed(filters, (&config.spec.name, &config.id.to_string()), &config.spec.labels)
    };
    Ok(view.configs().filter(matches).cloned().collect())
}

#[cfg(test)]
mod tests;
