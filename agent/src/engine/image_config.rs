//! An image's words and a request's, merged to what a container is. Pure.

use std::collections::HashSet;

use ketch_engine_api::container::{Config, HealthConfig};
use ketch_engine_api::image::ImageConfig;

use crate::error::{Error, Result};

/// Fills what the request leaves open with what the image says.
///
/// # Errors
/// Neither says what to run: dockerd's text.
pub fn merge(config: Config, image: &Config) -> Result<Config> {
    let mut config = over(config, image);
    // `--entrypoint ""` of the CLI: none, not the image's.
    if config.entrypoint.as_deref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        config.entrypoint = None;
    }
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&config.entrypoint) && is_empty(&config.cmd) {
        return Err(Error::invalid("no command specified"));
    }
    Ok(config)
}

/// What is said, and where that leaves something open what is below it.
#[must_use]
pub fn over(mut config: Config, image: &Config) -> Config {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    // An empty list of the request is none: the image's stands, and where that has none `null` is shown.
    if config.exposed_ports.as_ref().is_some_and(|all| all.is_empty()) {
        config.exposed_ports.clone_from(&image.exposed_ports);
    }
    if config.volumes.as_ref().is_some_and(|all| all.is_empty()) {
        config.volumes.clone_from(&image.volumes);
    }
    if config.env.as_ref().is_some_and(Vec::is_empty) {
        config.env.clone_from(&image.env);
    }
    let _labels = config.labels.get_or_insert_default();
    for (port, empty) in image.exposed_ports.iter().flatten() {
        let _set = config.exposed_ports.get_or_insert_default().entry(port.clone()).or_insert(*empty);
    }
    let mut keys: HashSet<String> =
        config.env.iter().flatten().map(|variable| key(variable).to_owned()).collect();
    for variable in image.env.iter().flatten() {
        let env = config.env.get_or_insert_default();
        if keys.insert(key(variable).to_owned()) {
            env.push(variable.clone());
        }
    }
    for (label, value) in image.labels.iter().flatten() {
        let labels = config.labels.get_or_insert_default();
        let _kept = labels.entry(label.clone()).or_insert_with(|| value.clone());
    }
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&config.entrypoint) {
        if is_empty(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
            config.args_escaped = image.args_escaped;
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    match (&mut config.healthcheck, &image.healthcheck) {
        (own @ None, image) => own.clone_from(image),
        (Some(own), Some(image)) => fill(own, image),
        (Some(_), None) => {}
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    for (path, empty) in image.volumes.iter().flatten() {
        let _set = config.volumes.get_or_insert_default().entry(path.clone()).or_insert(*empty);
    }
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    config
}

/// An image's part of the settings.
///
/// # Errors
/// It can't be encoded.
pub fn of_image(config: &Config) -> Result<ImageConfig> {
    serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .map_err(|error| Error::internal("encoding an image's settings", &error))
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

/// Fills what a health check leaves open with what the image's says.
pub(crate) fn fill(own: &mut HealthConfig, image: &HealthConfig) {
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test.clone_from(&image.test);
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// The program and its words.
#[must_use]
pub fn command(config: &Config) -> (String, Vec<String>) {
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
    (words.next().unwrap_or_default(), words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    fn image() -> Config {
        Config {
            entrypoint: words("ep"),
            cmd: words("a b"),
            env: words("PATH=/bin X=1"),
            working_dir: "/w".into(),
            ..Config::default()
        }
    }

    #[test]
    fn commands() {
        let run = |entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>| {
            let merged = merge(Config { entrypoint, cmd, ..Config::default() }, &image()).unwrap();
            let (path, args) = command(&merged);
            std::iter::once(path).chain(args).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(run(None, None), "ep a b");
        assert_eq!(run(None, words("c")), "ep c");
        assert_eq!(run(words("e"), None), "e");
        assert_eq!(run(Some(vec![String::new()]), words("c")), "c");
        assert_eq!(merge(Config::default(), &Config::default()).unwrap_err().message, "no command specified");
    }

    #[test]
    fn the_requests_variables_come_first_and_win() {
        let merged = merge(Config { env: words("X=2"), ..Config::default() }, &image()).unwrap();
        assert_eq!((merged.env, merged.working_dir.as_str()), (words("X=2 PATH=/bin"), "/w"));
    }
}
