//! The documents of images: configs, manifests and indexes, of Docker (schema 2) and OCI. Data only.
//!
//! A config is kept as the bytes it came in, whose digest is the image's id; what is read of it is here.

use std::collections::BTreeMap;

use ketch_engine_api::image::ImageConfig;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::digest::Digest;

/// Docker's manifest of one image.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's list of manifests, one for each platform.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// OCI's manifest of one image.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's list of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's layer, not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Steps that a config may tell of.
const MOST_STEPS: usize = 10_000;
/// Layers of an image: overlayfs puts 500 on each other, and with them go the ground and, where a whole root is read, the
/// container's own.
const MOST_LAYERS: usize = 498;
/// A config's bytes, however it comes about: each step of a build has its own, and each is held in memory.
const LARGEST_CONFIG: usize = 1 << 20;
/// Variables, labels, volumes, ports and triggers of a config, together: containers are made with each of them.
const MOST_SETTINGS: usize = 65_536;

/// What names content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Where else it may be had; a foreign layer's.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub urls: Vec<String>,
    /// Whatever its maker says about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: for whom it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// A machine's kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`...
    #[serde(default)]
    pub architecture: String,
    /// `linux`...
    #[serde(default)]
    pub os: String,
    /// Windows's.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// `v8`...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index: which, its fields tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    #[serde(default)]
    pub schema_version: u32,
    /// What this is; OCI documents may lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// An image's config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// An image's layers, the lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Descriptor>>,
    /// An index's manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Descriptor>>,
}

/// A config, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageFile {
    /// RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// Who.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub author: String,
    /// `amd64`...
    #[serde(default, deserialize_with = "null_is_empty")]
    pub architecture: String,
    /// `v8`...
    #[serde(default, deserialize_with = "null_is_empty")]
    pub variant: String,
    /// `linux`...
    #[serde(default, deserialize_with = "null_is_empty")]
    pub os: String,
    /// Windows's.
    #[serde(default, rename = "os.version", deserialize_with = "null_is_empty")]
    pub os_version: String,
    /// Docker's: why it was made.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub comment: String,
    /// Docker's: what it was committed from.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub container: String,
    /// The same: its settings.
    #[serde(default)]
    pub container_config: Option<Value>,
    /// Docker's: the maker's version.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub docker_version: String,
    /// What a container is started with.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// What it is made of.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, deserialize_with = "bounded_history")]
    pub history: Vec<History>,
}

/// The layers' contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The digest of each layer's tar, not compressed, the lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub author: String,
    /// The command.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub created_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_empty")]
    pub empty_layer: bool,
}

/// Go writes what is not there as null.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(source: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(source).map(Option::unwrap_or_default)
}

fn settings(config: &ImageConfig) -> usize {
    config.env.as_ref().map_or(0, Vec::len)
        + config.labels.as_ref().map_or(0, BTreeMap::len)
        + config.volumes.as_ref().map_or(0, BTreeMap::len)
        + config.exposed_ports.as_ref().map_or(0, BTreeMap::len)
        + config.on_build.as_ref().map_or(0, Vec::len)
}

/// A few bytes of text become a hundred in memory each: there is a bound.
fn bounded_history<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<History>, D::Error> {
    struct Steps;

    impl<'de> Visitor<'de> for Steps {
        type Value = Vec<History>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "at most {MOST_STEPS} steps")
        }

        fn visit_unit<E>(self) -> Result<Vec<History>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Vec<History>, A::Error> {
            let mut steps = Vec::new();
            while let Some(step) = source.next_element()? {
                if steps.len() == MOST_STEPS {
                    return Err(serde::de::Error::invalid_length(steps.len() + 1, &self));
                }
                steps.push(step);
            }
            Ok(steps)
        }
    }

    source.deserialize_any(Steps)
}

/// The name of a stack of layers, as Docker has it: each is summed with what is below it.
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

impl Descriptor {
    /// With nothing but what is needed.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let (urls, annotations) = (Vec::new(), BTreeMap::new());
        Self { media_type: media_type.into(), digest, size, urls, annotations, platform: None }
    }
}

impl ImageFile {
    /// Of a config that is here: whatever is bounded has been looked at when it came.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Of a config that comes in.
    ///
    /// # Errors
    /// What is wrong with it: no JSON, more than an image's settings may be, or more layers than can be mounted, in dockerd's
    /// words.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let file = Self::parse(bytes)?;
        if file.rootfs.diff_ids.len() > MOST_LAYERS {
            return Err("max depth exceeded".to_owned());
        }
        if bytes.len() > LARGEST_CONFIG {
            let size = bytes.len();
            return Err(format!("an image's settings may take {LARGEST_CONFIG} bytes, not {size}"));
        }
        let settings = file.config.as_ref().map_or(0, settings);
        if settings > MOST_SETTINGS {
            return Err(format!(
                "an image may have {MOST_SETTINGS} variables, labels, volumes, ports and triggers, not {settings}"
            ));
        }
        Ok(file)
    }

    /// What it runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            os: if self.os.is_empty() { "linux".to_owned() } else { self.os.clone() },
            architecture: self.architecture.clone(),
            os_version: None,
            variant: (!self.variant.is_empty()).then(|| self.variant.clone()),
        }
    }
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: None,
            variant: None,
        }
    }

    /// `os`, `architecture`, `os/architecture[/variant]`; what is left out is this machine's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(valid) {
            return None;
        }
        let host = Self::of_host();
        let mut platform = match parts.as_slice() {
            ["linux" | "windows" | "darwin" | "freebsd"] => Self { os: parts[0].to_lowercase(), ..host },
            [architecture] => Self { architecture: architecture.to_lowercase(), ..host },
            [os, architecture] | [os, architecture, _] => Self {
                os: os.to_lowercase(),
                architecture: architecture.to_lowercase(),
                os_version: None,
                variant: parts.get(2).map(|variant| variant.to_lowercase()),
            },
            _ => return None,
        };
        (platform.architecture, platform.variant) =
            normalized(&platform.architecture, platform.variant.as_deref());
        Some(platform)
    }

    /// `os/architecture[/variant]`.
    #[must_use]
    pub fn text(&self) -> String {
        let variant = self.variant.as_ref().filter(|variant| !variant.is_empty());
        format!(
            "{}/{}{}",
            self.os,
            self.architecture,
            variant.map(|variant| format!("/{variant}")).unwrap_or_default()
        )
    }

    /// How well what is for `other` runs where this is wanted: the higher, the better; `None` for not at all.
    #[must_use]
    pub fn fitness(&self, other: &Self) -> Option<u32> {
        let (wanted, wanted_variant) = normalized(&self.architecture, self.variant.as_deref());
        let (offered, offered_variant) = normalized(&other.architecture, other.variant.as_deref());
        if self.os != other.os
            || (wanted != offered && (wanted.as_str(), offered.as_str()) != ("amd64", "386"))
        {
            return None;
        }
        if wanted != offered {
            return Some(0);
        }
        let level = |variant: &Option<String>| {
            variant
                .as_ref()
                .and_then(|variant| variant.trim_start_matches('v').parse::<u32>().ok())
                .unwrap_or(1)
        };
        let (wanted, offered) = (level(&wanted_variant), level(&offered_variant));
        (offered <= wanted).then_some(1 + offered)
    }
}

/// containerd's names for what goes by several.
fn normalized(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|variant| !variant.is_empty());
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant.filter(|variant| *variant != "v1")),
        ("i386" | "386", _) => ("386", None),
        ("aarch64" | "arm64", variant) => {
            ("arm64", variant.filter(|variant| !matches!(*variant, "8" | "v8")))
        }
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", None | Some("7")) => ("arm", Some("v7")),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_with_nulls_are_read() {
        let text = r#"{"created":"2024-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Cmd":["sh"],
            "Entrypoint":null,"Labels":null,"Env":["A=b"],"Volumes":{"/v":{}}},"history":null,
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let file: ImageFile = serde_json::from_str(text).unwrap();
        let config = file.config.unwrap();
        assert_eq!(config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
        assert!(config.entrypoint.is_none() && config.volumes.unwrap().contains_key("/v"));
    }

    #[test]
    fn settings_are_bounded_where_they_come_in() {
        let config = |count: usize| {
            let env: Vec<_> = (0..count).map(|number| format!("{number:x}=")).collect();
            serde_json::to_vec(&serde_json::json!({ "config": { "Env": env } })).unwrap()
        };
        assert!(ImageFile::read(&config(MOST_SETTINGS)).is_ok());
        let many = config(MOST_SETTINGS + 1);
        assert!(ImageFile::read(&many).unwrap_err().ends_with("not 65537"));
        assert!(ImageFile::parse(&many).is_ok(), "what is here stays");
        let large = serde_json::json!({ "config": { "Labels": { "a": "a".repeat(LARGEST_CONFIG) } } });
        assert!(
            ImageFile::read(large.to_string().as_bytes()).unwrap_err().contains("may take 1048576 bytes")
        );
    }

    #[test]
    fn chains() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_ids(&[a, b]), [a, Digest::of(format!("{a} {b}").as_bytes())]);
    }

    #[test]
    fn platforms_fit() {
        let platform = |text: &str| Platform::parse(text).unwrap();
        let host = platform("linux/amd64");
        assert!(host.fitness(&platform("linux/x86_64")) > host.fitness(&platform("linux/386")));
        assert_eq!(host.fitness(&platform("linux/arm64")), None);
        assert_eq!(host.fitness(&platform("linux/amd64/v3")), None);
        assert_eq!(platform("linux/arm64/v8").text(), "linux/arm64");
        let arm = platform("linux/arm/v7");
        assert!(arm.fitness(&platform("linux/arm/v7")) > arm.fitness(&platform("linux/arm/v6")));
        assert!(Platform::parse("a//b").is_none() && Platform::parse("a/b/c/d").is_none());
    }
}
