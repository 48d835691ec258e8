//! What of a container may be a template: variables, host name, texts of mounts; and the payloads of configs and secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::expand::{Expansion, Room};
use super::{Context, Functions, Template, TemplateError};
use crate::id::{ConfigId, SecretId};
use crate::objects::container::{ConfigTarget, Mount};
use crate::objects::{Config, ContainerSpec, Driver, Labels, Secret};

/// Which text can't be expanded. The words around the reason are SwarmKit's, but for the values of variables, labels and
/// options: those may be secret, and errors are logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("expanding env failed: expanding env {name:?}: {reason}")]
    Env { name: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding mount source {text:?}: {reason}")]
    MountSource { text: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding mount target {text:?}: {reason}")]
    MountTarget { text: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding volume labels: expanding map entry {key:?}: {reason}")]
    VolumeLabel { key: String, reason: TemplateError },
    #[error("expanding mounts failed: expanding volume driver config: expanding map entry {key:?}: {reason}")]
    VolumeOption { key: String, reason: TemplateError },
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
/// The first template that can't be; all of them together have a bound.
pub fn expand_container(spec: &ContainerSpec, context: &Context) -> Result<ContainerSpec, ExpandError> {
    let mut expanded = spec.clone();
    let mut texts = Texts { context, room: Room::whole() };
    for variable in &mut expanded.env {
        texts.expand_variable(variable)?;
    }
    for mount in &mut expanded.mounts {
        texts.expand_mount(mount)?;
    }
    expanded.hostname = texts.expand(&spec.hostname).map_err(ExpandError::Hostname)?;
    Ok(expanded)
}

/// The texts of one container, one after the other.
struct Texts<'a> {
    context: &'a Context,
    room: Room,
}

impl Texts<'_> {
    fn expand(&mut self, text: &str) -> Result<String, TemplateError> {
        Template::parse(text, Functions::Spec)?.expand_within(&mut self.room, self.context)
    }

    /// Names of variables are no templates, and neither is a variable without a value: the node's own is meant by it.
    fn expand_variable(&mut self, variable: &mut String) -> Result<(), ExpandError> {
        let Some((name, value)) = variable.split_once('=') else { return Ok(()) };
        let value =
            self.expand(value).map_err(|reason| ExpandError::Env { name: name.to_owned(), reason })?;
        *variable = format!("{name}={value}");
        Ok(())
    }

    fn expand_mount(&mut self, mount: &mut Mount) -> Result<(), ExpandError> {
        mount.source = self
            .expand(&mount.source)
            .map_err(|reason| ExpandError::MountSource { text: mount.source.clone(), reason })?;
        mount.target = self
            .expand(&mount.target)
            .map_err(|reason| ExpandError::MountTarget { text: mount.target.clone(), reason })?;
        self.expand_values(&mut mount.volume.labels)
            .map_err(|(key, reason)| ExpandError::VolumeLabel { key, reason })?;
        if let Some(driver) = &mut mount.volume.driver {
            self.expand_values(&mut driver.options)
                .map_err(|(key, reason)| ExpandError::VolumeOption { key, reason })?;
        }
        Ok(())
    }

    fn expand_values(&mut self, map: &mut Labels) -> Result<(), (String, TemplateError)> {
        for (key, value) in map {
            *value = self.expand(value).map_err(|reason| (key.clone(), reason))?;
        }
        Ok(())
    }
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
    let mut room = Room::whole();
    let mut expansion = Expansion::new(&template.source, context, Some(dependencies), &mut room);
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
