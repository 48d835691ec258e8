//! Secrets. Nothing here shows a secret's data.

use ketch_cluster::objects::{Secret, SecretSpec};
use ketch_engine_api::swarm::payload as api;

use crate::{Refusal, bytes, given, moment};

/// # Errors
/// Data that is not base64.
pub fn spec_of(spec: api::SecretSpec) -> Result<SecretSpec, Refusal> {
    Ok(SecretSpec {
        name: spec.name,
        labels: spec.labels.unwrap_or_default(),
        data: bytes::of("Data", &spec.data)?,
        templating: spec.templating.map(given::driver_of),
        driver: spec.driver.map(given::driver_of),
    })
}

/// Without the data.
#[must_use]
pub fn shown(secret: &Secret) -> api::Secret {
    let spec = &secret.spec;
    api::Secret {
        id: secret.id.to_string(),
        meta: moment::meta(&secret.meta),
        spec: api::SecretSpec {
            name: spec.name.clone(),
            labels: Some(spec.labels.clone()),
            data: String::new(),
            driver: spec.driver.as_ref().map(given::driver_shown),
            templating: spec.templating.as_ref().map(given::driver_shown),
        },
    }
}
