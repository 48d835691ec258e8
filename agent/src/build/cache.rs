//! Whether a step has been done before: by the images that were built from the same parent with the same settings, or by the
//! history of images that the request names (`--cache-from`).

use std::sync::Arc;

use ketch_engine_api::container::Config;
use serde_json::Value;
use tracing::warn;

use crate::error::Result;
use crate::image::spec::Platform;
use crate::image::{Image, Images};

/// The cache of one stage. A step that is not in it ends it: what follows was not done to the same.
#[derive(Debug)]
pub(super) struct Cache {
    images: Images,
    platform: Platform,
    /// `None` without `--cache-from`.
    sources: Option<Vec<Arc<Image>>>,
    missed: bool,
}

impl Cache {
    /// `used` is false for `--no-cache`.
    pub(super) fn new(images: &Images, from: &[String], platform: Platform, used: bool) -> Self {
        let found = from.iter().filter_map(|name| {
            let image = images.find(name);
            image.inspect_err(|error| warn!("{name} is no source of a cache: {error}")).ok()
        });
        let sources = (!from.is_empty()).then(|| found.collect());
        Self { images: images.clone(), platform, sources, missed: !used }
    }

    /// The image of a step that was done to `parent` with these settings.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn probe(
        &mut self,
        parent: Option<&Arc<Image>>,
        config: &Config,
    ) -> Result<Option<Arc<Image>>> {
        if self.missed {
            return Ok(None);
        }
        let found = self.look(parent, config)?;
        self.missed = found.is_none();
        Ok(found)
    }

    fn look(&mut self, parent: Option<&Arc<Image>>, config: &Config) -> Result<Option<Arc<Image>>> {
        let local = self.local(parent, config);
        let Some(sources) = &self.sources else { return Ok(local) };
        if let Some(local) = local.filter(|local| sources.iter().any(|source| self.descends(source, local))) {
            return Ok(Some(local));
        }
        let at = parent.map_or(0, |parent| parent.file.history.len());
        let command = config.cmd.clone().unwrap_or_default().join(" ");
        let fits = |source: &&Arc<Image>| {
            begins_with(source, parent)
                && source.file.history.get(at).is_some_and(|step| step.created_by == command)
        };
        let Some(source) = sources.iter().find(fits).cloned() else { return Ok(None) };
        if at + 1 == source.file.history.len() {
            if let Some(parent) = parent {
                self.images.adopt(&source, parent)?;
            }
            return Ok(self.images.with_id(source.id));
        }
        let config = serde_json::to_value(config).unwrap_or_default();
        let Some(restored) = self.images.restore_step(parent, &source, &config)? else { return Ok(None) };
        // Another source could know another history from here on.
        self.sources = Some(vec![source]);
        Ok(Some(restored))
    }

    /// The newest of the children that fit.
    fn local(&self, parent: Option<&Arc<Image>>, config: &Config) -> Option<Arc<Image>> {
        let built = self.images.built_from(parent.map(|parent| parent.id)).into_iter();
        let fits = |image: &Arc<Image>| {
            let before = image.file.container_config.as_ref().and_then(settings);
            before.is_some_and(|before| is_same(&before, config))
                && self.platform.fitness(&image.platform()).is_some()
        };
        built.filter(fits).max_by_key(|image| image.created())
    }

    fn descends(&self, image: &Arc<Image>, from: &Image) -> bool {
        let mut parent = image.record.parent;
        while let Some(id) = parent {
            if id == from.id {
                return true;
            }
            parent = self.images.with_id(id).and_then(|image| image.record.parent);
        }
        false
    }
}

/// An image's settings; nulls are what Go has as nothing.
fn settings(value: &Value) -> Option<Config> {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    serde_json::from_value(value).ok()
}

/// Whether the image's history and layers begin with the parent's.
fn begins_with(image: &Image, parent: Option<&Arc<Image>>) -> bool {
    if image.file.history.is_empty() {
        return false;
    }
    let Some(parent) = parent else { return true };
    let (own, below) = (&image.file, &parent.file);
    below.history.is_empty() && below.rootfs.diff_ids.is_empty()
        || below.history.len() < own.history.len()
            && own.history.starts_with(&below.history)
            && own.rootfs.diff_ids.starts_with(&below.rootfs.diff_ids)
}

/// Everything but what a container has of its own: names, the image's id.
fn is_same(a: &Config, b: &Config) -> bool {
    let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let plain = |config: &Config| Config {
        image: String::new(),
        hostname: String::new(),
        domainname: String::new(),
        mac_address: String::new(),
        env: Some(list(&config.env)),
        cmd: Some(list(&config.cmd)),
        entrypoint: Some(list(&config.entrypoint)),
        shell: Some(list(&config.shell)),
        on_build: Some(list(&config.on_build)),
        exposed_ports: Some(config.exposed_ports.clone().unwrap_or_default()),
        volumes: Some(config.volumes.clone().unwrap_or_default()),
        labels: Some(config.labels.clone().unwrap_or_default()),
        ..config.clone()
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_by_what_they_say() {
        let text = r#"{"Hostname":"h","Cmd":["a"],"Env":null,"Image":"sha256:0","Volumes":null,"Labels":{}}"#;
        let before = settings(&serde_json::from_str(text).unwrap()).unwrap();
        let now = Config { cmd: Some(vec!["a".into()]), env: Some(vec![]), ..Config::default() };
        assert!(is_same(&before, &now));
        assert!(!is_same(&before, &Config { user: "u".into(), ..now.clone() }));
        assert!(!is_same(&before, &Config { cmd: None, ..now }));
    }
}
