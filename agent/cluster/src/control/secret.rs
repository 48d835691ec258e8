//! Secrets: created, relabelled, removed once nobody uses them, listed.

use std::sync::Arc;

use crate::id::{NewBits, SecretId};
use crate::objects::{Labels, Meta, Secret, SecretSpec, ServiceSpec};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::{SpecUpdate, payload, rotation, texts, validate};

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
    is_good(&spec)?;
    if view.by_name(ObjectKind::Secret, &spec.name).is_some() {
        return Err(texts::payload_exists(ObjectKind::Secret, &spec.name));
    }
    let (id, actions) = made(view, spec, now, bits);
    Ok((id, rotation::fits(ObjectKind::Secret, actions)?))
}

fn is_good(spec: &SecretSpec) -> Result<(), ControlError> {
    payload::is_good(&spec.name, &spec.data, spec.templating.as_ref())?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => Err(texts::driver_without_name()),
        None if !(1..DATA_LIMIT).contains(&spec.data.len()) => {
            Err(texts::data_size(ObjectKind::Secret, DATA_LIMIT))
        }
        _ => validate::fits_object(ObjectKind::Secret, spec),
    }
}

/// A new secret; and the services that ask for it are updated to it, if they name one that was called so.
fn made(
    view: &View<'_>,
    spec: SecretSpec,
    now: Timestamp,
    bits: NewBits<'_>,
) -> (SecretId, Vec<StoreAction>) {
    let id = SecretId::new(bits);
    let rolled = rotation::rolled(view, now, |container| {
        let mut old: Vec<_> = container.secrets.iter_mut().filter(|it| it.name == spec.name).collect();
        old.iter_mut().for_each(|reference| reference.secret = id);
        !old.is_empty()
    });
    let secret = Secret { id, meta: Meta::new(now), spec, internal: false, superseded: false };
    (id, std::iter::once(StoreAction::Create(secret.into())).chain(rolled).collect())
}

/// Writes the labels; and other data, if a service that uses it asks for that: then another secret, whose id is drawn from
/// `bits`, takes its place. The spec may leave out what else it has.
///
/// # Errors
/// When anything else would change, or the version is not the secret's.
pub fn update_secret(
    view: &View<'_>,
    id: SecretId,
    update: SpecUpdate<SecretSpec>,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<Vec<StoreAction>, ControlError> {
    let SpecUpdate { version, spec } = update;
    let old = found(view, id)?;
    let rest_is_kept = old.spec.name == spec.name
        && payload::is_kept(&old.spec.templating, &spec.templating, &None)
        && payload::is_kept(&old.spec.driver, &spec.driver, &None);
    let data_is_kept = payload::is_kept(&old.spec.data, &spec.data, &Vec::new());
    if !rest_is_kept
        || !(data_is_kept || rotation::is_asked_for(view, |spec| has_one_called(spec, &old.spec.name)))
    {
        return Err(texts::only_labels());
    }
    if old.meta.version != version {
        return Err(texts::out_of_sequence());
    }
    if !data_is_kept {
        let new = SecretSpec { labels: spec.labels, data: spec.data, ..old.spec.clone() };
        is_good(&new)?;
        let (_, actions) = made(view, new, now, bits);
        let first = StoreAction::Update(superseded(old, now).into());
        return rotation::fits(ObjectKind::Secret, std::iter::once(first).chain(actions).collect());
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

fn superseded(old: &Secret, now: Timestamp) -> Secret {
    let meta = Meta { updated_at: now, ..old.meta };
    Secret { meta, superseded: true, ..old.clone() }
}

fn has_one_called(spec: &ServiceSpec, name: &str) -> bool {
    let container = spec.task.container();
    container.is_some_and(|container| container.secrets.iter().any(|reference| reference.name == name))
}

fn uses(spec: &ServiceSpec, id: SecretId) -> bool {
    let container = spec.task.container();
    container.is_some_and(|container| container.secrets.iter().any(|reference| reference.secret == id))
}

/// Of one that only services use which ask for the next one, the name is free, and they keep it until that comes.
///
/// # Errors
/// When another service uses it.
pub fn remove_secret(
    view: &View<'_>,
    id: SecretId,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let secret = found(view, id)?;
    if rotation::is_asked_for_by_all(view, |spec| uses(spec, id)) {
        return Ok(vec![StoreAction::Update(superseded(secret, now).into())]);
    }
    payload::is_unused(view, (ObjectKind::Secret, &secret.spec.name), |spec| uses(spec, id))?;
    Ok(vec![StoreAction::Remove(id.into())])
}

fn found<'v>(view: &'v View<'_>, id: SecretId) -> Result<&'v Arc<Secret>, ControlError> {
    view.secret(id)
        .filter(|secret| !secret.internal && !secret.superseded)
        .ok_or_else(|| texts::gone(&id.into()))
}

/// The secrets that match `names`, `name`, `id` and `label`. The caller shows no data.
///
/// # Errors
/// When there is another key.
pub fn list_secrets(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Secret>>, ControlError> {
    filters.accept(&["names", "name", "id", "label"])?;
    let matches = |secret: &&Arc<Secret>| {
        let id = secret.id.to_string();
        !secret.internal
            && !secret.superseded
            && payload::is_listed(filters, (&secret.spec.name, &id), &secret.spec.labels)
    };
    Ok(view.secrets().filter(matches).cloned().collect())
}

#[cfg(test)]
mod tests;
