//! Secrets: created, relabelled, removed once nobody uses them, listed.

use std::sync::Arc;

use crate::id::{NewBits, SecretId};
use crate::objects::{Labels, Meta, Secret, SecretSpec};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::{SpecUpdate, payload, texts, validate};

/// A secret has fewer bytes.
const DATA_LIMIT: usize = 500 << 10;

/// # Errors
/// When its name, size or template is not good, or the name is taken.
pub fn create_secret(
    view: &View<'_>,
    spec: SecretSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<(SecretId, Vec<StoreAction>), ControlError> {
    payload::is_good(&spec.name, &spec.data, spec.templating.as_ref())?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => return Err(texts::driver_without_name()),
        None if !(1..DATA_LIMIT).contains(&spec.data.len()) => {
            return Err(texts::data_size(ObjectKind::Secret, DATA_LIMIT));
        }
        _ => validate::fits_object(ObjectKind::Secret, &spec)?,
    }
    if view.by_name(ObjectKind::Secret, &spec.name).is_some() {
        return Err(texts::payload_exists(ObjectKind::Secret, &spec.name));
    }
    let secret = Secret { id: SecretId::new(bits), meta: Meta::new(now), spec, internal: false };
    Ok((secret.id, vec![StoreAction::Create(secret.into())]))
}

/// Writes the labels. The spec may leave out what else it has.
///
/// # Errors
/// When anything but labels would change, or the version is not the secret's.
pub fn update_secret(
    view: &View<'_>,
    id: SecretId,
    update: SpecUpdate<SecretSpec>,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let SpecUpdate { version, spec } = update;
    let old = found(view, id)?;
    let kept = old.spec.name == spec.name
        && payload::is_kept(&old.spec.data, &spec.data, &Vec::new())
        && payload::is_kept(&old.spec.templating, &spec.templating, &None)
        && payload::is_kept(&old.spec.driver, &spec.driver, &None);
    if !kept {
        return Err(texts::only_labels());
    }
    if old.meta.version != version {
        return Err(texts::out_of_sequence());
    }
    let secret = relabelled(old, spec.labels, now);
    validate::fits_object(ObjectKind::Secret, &secret)?;
    Ok(vec![StoreAction::Update(secret.into())])
}

fn relabelled(old: &Secret, labels: Labels, now: Timestamp) -> Secret {
    let mut secret = old.clone();
    secret.spec.labels = labels;
    secret.meta.updated_at = now;
    secret
}

/// # Errors
/// When a service uses it.
pub fn remove_secret(view: &View<'_>, id: SecretId) -> Result<Vec<StoreAction>, ControlError> {
    let secret = found(view, id)?;
    payload::is_unused(view, (ObjectKind::Secret, &secret.spec.name), |spec| {
        let container = spec.task.container();
        container.is_some_and(|container| container.secrets.iter().any(|reference| reference.secret == id))
    })?;
    Ok(vec![StoreAction::Remove(id.into())])
}

fn found<'v>(view: &'v View<'_>, id: SecretId) -> Result<&'v Arc<Secret>, ControlError> {
    view.secret(id).filter(|secret| !secret.internal).ok_or_else(|| texts::gone(&id.into()))
}

/// The secrets that match `names`, `name`, `id` and `label`. The caller shows no data.
///
/// # Errors
/// When there is another key.
pub fn list_secrets(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Secret>>, ControlError> {
    filters.accept(&["names", "name", "id", "label"])?;
    let matches = |secret: &&Arc<Secret>| {
        let id = secret.id.to_string();
        !secret.internal && payload::is_listed(filters, (&secret.spec.name, &id), &secret.spec.labels)
    };
    Ok(view.secrets().filter(matches).cloned().collect())
}

#[cfg(test)]
mod tests;
