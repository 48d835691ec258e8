//! Configs: like secrets, but shown whole.

use ketch_cluster::objects::{Config, ConfigSpec};
use ketch_engine_api::swarm::payload as api;

use crate::{Refusal, bytes, given, moment};

/// # Errors
/// Data that is not base64.
pub fn spec_of(spec: api::ConfigSpec) -> Result<ConfigSpec, Refusal> {
    Ok(ConfigSpec {
        name: spec.name,
        labels: spec.labels.unwrap_or_default(),
        data: bytes::of("Data", &spec.data)?,
        templating: spec.templating.map(given::driver_of),
    })
}

#[must_use]
pub fn shown(config: &Config) -> api::Config {
    let spec = &config.spec;
    api::Config {
        id: config.id.to_string(),
        meta: moment::meta(&config.meta),
        spec: api::ConfigSpec {
            name: spec.name.clone(),
            labels: Some(spec.labels.clone()),
            data: bytes::shown(&spec.data),
            templating: spec.templating.as_ref().map(given::driver_shown),
        },
    }
}
