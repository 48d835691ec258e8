//! What a log says of its container: the labels and variables that the options name, and the tag.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::options::LogConfig;
use crate::error::{Error, Result};

/// The container whose log it is.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// 64 digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// Its command line's words, the entrypoint first.
    pub command: Vec<String>,
    /// `sha256:` and 64 digits.
    pub image_id: String,
    /// As it was named at create.
    pub image_name: String,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// By key.
    pub labels: BTreeMap<String, String>,
}

/// The attributes that `labels`, `labels-regex`, `env` and `env-regex` name; `key` changes each one's name.
///
/// # Errors
/// A pattern that is none.
pub(super) fn attributes(
    config: &LogConfig,
    container: &Container,
    key: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, String>> {
    let env: BTreeMap<_, _> = container.env.iter().filter_map(|variable| variable.split_once('=')).collect();
    let labels = container.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut found = BTreeMap::new();
    for (option, known) in [("labels", &labels), ("env", &env)] {
        let named = config.option(option).unwrap_or_default().split(',');
        for (name, value) in named.filter_map(|name| known.get_key_value(name)) {
            let _none = found.insert(key(name), (*value).to_owned());
        }
        let pattern = config.option(&format!("{option}-regex")).filter(|pattern| !pattern.is_empty());
        let Some(pattern) = pattern else { continue };
        let regex = Regex::new(pattern)
            .map_err(|error| Error::invalid(format!("error parsing regexp: {error}: `{pattern}`")))?;
        for (name, value) in known.iter().filter(|(name, _)| regex.is_match(name)) {
            let _none = found.insert(key(name), (*value).to_owned());
        }
    }
    Ok(found)
}

/// The tag of the option's template, or of `default`.
///
/// # Errors
/// A template that names what a container has not.
pub(super) fn tag(config: &LogConfig, container: &Container, default: &str) -> Result<String> {
    let template = config.option("tag").filter(|tag| !tag.is_empty()).unwrap_or(default);
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, behind) =
            after.split_once("}}").ok_or_else(|| malformed(template, "unclosed action"))?;
        tag.push_str(before);
        tag.push_str(&value(action.trim(), container).ok_or_else(|| malformed(template, action.trim()))?);
        rest = behind;
    }
    tag.push_str(rest);
    Ok(tag)
}

fn malformed(template: &str, what: &str) -> Error {
    Error::invalid(format!("template: log-tag: can't evaluate {what:?} in {template:?}"))
}

fn value(action: &str, container: &Container) -> Option<String> {
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    Some(match action {
        ".ID" => short(&container.id),
        ".FullID" | ".ContainerID" => container.id.clone(),
        ".Name" => container.name.clone(),
        ".ContainerName" => format!("/{}", container.name),
        ".ImageID" => short(&container.image_id),
        ".ImageFullID" | ".ContainerImageID" => container.image_id.clone(),
        ".ImageName" | ".ContainerImageName" => container.image_name.clone(),
        ".Command" => container.command.join(" "),
        ".DaemonName" => "docker".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        Container {
            id: "0123456789abcdef".repeat(4),
            name: "web".into(),
            command: vec!["sh".into(), "-c".into()],
            image_id: format!("sha256:{}", "f".repeat(64)),
            image_name: "busybox".into(),
            env: vec!["A=1".into(), "AB=2".into(), "broken".into()],
            labels: BTreeMap::from([("role".into(), "x".into()), ("other".into(), "y".into())]),
        }
    }

    fn config(options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { driver: "json-file".into(), options }
    }

    #[test]
    fn attributes_by_name_and_pattern() {
        let found = |options: &[(&str, &str)]| {
            attributes(&config(options), &container(), str::to_owned).map(|found| {
                found.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(found(&[("labels", "role,missing"), ("env", "A")]).unwrap(), "A=1 role=x");
        assert_eq!(found(&[("env-regex", "^A"), ("labels-regex", "^o")]).unwrap(), "A=1 AB=2 other=y");
        assert_eq!(found(&[]).unwrap(), "");
        assert!(found(&[("env-regex", "(")]).is_err());
    }

    #[test]
    fn tags() {
        let tag = |text: &str| tag(&config(&[("tag", text)]), &container(), "{{.ID}}");
        assert_eq!(tag("{{.ImageName}}/{{ .Name }}/{{.ID}}!").unwrap(), "busybox/web/0123456789ab!");
        assert_eq!(tag("").unwrap(), "0123456789ab");
        assert_eq!(tag("{{.Command}} {{.ImageID}}").unwrap(), "sh -c sha256:fffff");
        assert!(tag("{{.Nope}}").is_err() && tag("{{.ID").is_err());
    }
}
