//! What of a container may be a template: variables, host name, texts of mounts; and the payloads of configs and secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::expand::Expansion;
use super::{Context, Functions, Template, TemplateError};
use crate::id::{ConfigId, SecretId};
use crate::objects::container::{ConfigTarget, Mount};
use crate::objects::{Config, ContainerSpec, Driver, Labels, Secret};

/// Which text can't be expanded. The words around the reason are SwarmKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("expanding env failed: expanding env {variable:?}: {reason}")]
    Env { variable: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding mount source {text:?}: {reason}")]
    MountSource { text: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding mount target {text:?}: {reason}")]
    MountTarget { text: String, reason: TemplateError },
    #[error(
        "expanding mounts failed: expanding volume labels: expanding map entry {key:?}={value:?}: {reason}"
    )]
    VolumeLabel { key: String, value: String, reason: TemplateError },
    #[error(
        "expanding mounts failed: expanding volume driver config: expanding map entry {key:?}={value:?}: {reason}"
    )]
    VolumeOption { key: String, value: String, reason: TemplateError },
    #[error("expanding hostname failed: {0}")]
    Hostname(TemplateError),
    #[error("{0}")]
    Payload(TemplateError),
    #[error("unrecognized template type")]
    UnknownTemplating,
    #[error("a payload that is a template must be text in UTF-8")]
    PayloadNotText,
}

/// The container with every template in it expanded.
///
/// # Errors
/// The first template that can't be.
pub fn expand_container(spec: &ContainerSpec, context: &Context) -> Result<ContainerSpec, ExpandError> {
    let mut expanded = spec.clone();
    for variable in &mut expanded.env {
        *variable = expand_variable(variable, context)?;
    }
    for mount in &mut expanded.mounts {
        expand_mount(mount, context)?;
    }
    expanded.hostname = expand(&spec.hostname, context).map_err(ExpandError::Hostname)?;
    Ok(expanded)
}

fn expand(text: &str, context: &Context) -> Result<String, TemplateError> {
    Template::parse(text, Functions::Spec)?.expand(context)
}

/// Names of variables are no templates, and neither is a variable without a value: the node's own is meant by it.
fn expand_variable(variable: &str, context: &Context) -> Result<String, ExpandError> {
    let Some((name, value)) = variable.split_once('=') else { return Ok(variable.to_owned()) };
    match expand(value, context) {
        Ok(value) => Ok(format!("{name}={value}")),
        Err(reason) => Err(ExpandError::Env { variable: variable.to_owned(), reason }),
    }
}

fn expand_mount(mount: &mut Mount, context: &Context) -> Result<(), ExpandError> {
    mount.source = expand(&mount.source, context)
        .map_err(|reason| ExpandError::MountSource { text: mount.source.clone(), reason })?;
    mount.target = expand(&mount.target, context)
        .map_err(|reason| ExpandError::MountTarget { text: mount.target.clone(), reason })?;
    expand_values(&mut mount.volume.labels, context)
        .map_err(|(key, value, reason)| ExpandError::VolumeLabel { key, value, reason })?;
    if let Some(driver) = &mut mount.volume.driver {
        expand_values(&mut driver.options, context)
            .map_err(|(key, value, reason)| ExpandError::VolumeOption { key, value, reason })?;
    }
    Ok(())
}

fn expand_values(map: &mut Labels, context: &Context) -> Result<(), (String, String, TemplateError)> {
    for (key, value) in map {
        *value = expand(value, context).map_err(|reason| (key.clone(), value.clone(), reason))?;
    }
    Ok(())
}

/// What the functions of a payload read: only what its task references.
#[derive(Debug, Clone, Copy)]
pub struct Dependencies<'a> {
    pub container: &'a ContainerSpec,
    pub secrets: &'a BTreeMap<SecretId, Arc<Secret>>,
    pub configs: &'a BTreeMap<ConfigId, Arc<Config>>,
}

impl<'a> Dependencies<'a> {
    /// A variable of the container; empty when it has none of that name.
    pub(super) fn env(&self, name: &str) -> Result<&'a str, String> {
        let pairs = self.container.env.iter().filter_map(|variable| variable.split_once('='));
        Ok(pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default())
    }

    pub(super) fn secret(&self, target: &str) -> Result<&'a str, String> {
        let named = |reference: &&crate::objects::container::SecretReference| reference.file.name == target;
        let reference = self.container.secrets.iter().find(named);
        let reference = reference.ok_or_else(|| format!("secret target {target} not found"))?;
        let secret = self.secrets.get(&reference.secret);
        let secret = secret.ok_or_else(|| format!("secret {} not found", reference.secret))?;
        std::str::from_utf8(&secret.spec.data).map_err(|_| format!("secret target {target} is not text"))
    }

    pub(super) fn config(&self, target: &str) -> Result<&'a str, String> {
        let named = |reference: &&crate::objects::container::ConfigReference| matches!(&reference.target, ConfigTarget::File(file) if file.name == target);
        let reference = self.container.configs.iter().find(named);
        let reference = reference.ok_or_else(|| format!("config target {target} not found"))?;
        let config = self.configs.get(&reference.config);
        let config = config.ok_or_else(|| format!("config {} not found", reference.config))?;
        std::str::from_utf8(&config.spec.data).map_err(|_| format!("config target {target} is not text"))
    }
}

/// An expanded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub data: Vec<u8>,
    /// Whether a secret is in it: then a config is kept as a secret is.
    pub has_secret: bool,
}

/// The payload of a secret or config, expanded when `templating` says that it is a template.
///
/// # Errors
/// When it can't be expanded, or the kind of template is none that is known.
pub fn expand_payload(
    data: &[u8],
    templating: Option<&Driver>,
    context: &Context,
    dependencies: &Dependencies<'_>,
) -> Result<Payload, ExpandError> {
    let Some(template) = payload_template(data, templating)? else {
        return Ok(Payload { data: data.to_vec(), has_secret: false });
    };
    let mut expansion = Expansion::new(&template.source, context, Some(dependencies));
    let text = expansion.text_of(&template.parts).map_err(ExpandError::Payload)?;
    Ok(Payload { data: text.into_bytes(), has_secret: expansion.used_secret })
}

/// The template that a payload is; none when it is plain.
///
/// # Errors
/// When it can't be parsed, or the kind of template is none that is known.
pub fn payload_template(data: &[u8], templating: Option<&Driver>) -> Result<Option<Template>, ExpandError> {
    let Some(templating) = templating else { return Ok(None) };
    if templating.name != "golang" {
        return Err(ExpandError::UnknownTemplating);
    }
    let text = std::str::from_utf8(data).map_err(|_| ExpandError::PayloadNotText)?;
    Template::parse(text, Functions::Payload).map(Some).map_err(ExpandError::Payload)
}
