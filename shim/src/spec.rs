//! The few fields of a bundle's config.json that the shim heeds: who belongs together, and who outlives whom.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::ShimError;

/// Of config.json.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    annotations: Option<BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: Option<String>,
}

/// Whose value names the group that a container's shim holds, in order.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

impl Spec {
    /// Reads the bundle's config.json. A sandbox's bundle may have none, or one that is `null`: containerd has made it all
    /// the same, with a link to its work folder.
    ///
    /// # Errors
    /// This is no bundle, or the file can't be read, or is no such JSON.
    pub(crate) fn read(bundle: &Path) -> Result<Self, ShimError> {
        let path = bundle.join("config.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && bundle.join("work").is_symlink() =>
            {
                return Ok(Self::default());
            }
            Err(source) => return Err(ShimError::File { action: "read", path, source }),
        };
        Self::parse(&text).map_err(|source| ShimError::Json { path, source })
    }

    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        Ok(serde_json::from_slice::<Option<Self>>(text)?.unwrap_or_default())
    }

    /// The group that the container belongs to, its own id if none.
    pub(crate) fn group<'a>(&'a self, id: &'a str) -> &'a str {
        let annotations = self.annotations.as_ref();
        let named = GROUPS.iter().find_map(|name| annotations?.get(*name));
        named.map_or(id, String::as_str)
    }

    /// Whether the kernel ends all processes of the container with its first one: it has a pid namespace of its own.
    pub(crate) fn has_own_pids(&self) -> bool {
        let namespaces = self.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
        namespaces.is_some_and(|all| {
            all.iter().any(|one| one.r#type == "pid" && one.path.as_deref().unwrap_or_default().is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_an_annotations_or_the_id() {
        let spec = Spec::parse(br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).unwrap();
        assert_eq!(spec.group("a"), "pod");
        let text =
            br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(Spec::parse(text).unwrap().group("a"), "g");
        for none in ["{}", "null", r#"{"annotations":null}"#] {
            assert_eq!(Spec::parse(none.as_bytes()).unwrap().group("a"), "a");
        }
    }

    #[test]
    fn an_own_pid_namespace_has_no_path() {
        let with = |text: &str| Spec::parse(text.as_bytes()).unwrap().has_own_pids();
        assert!(with(r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#));
        assert!(with(r#"{"linux":{"namespaces":[{"type":"pid","path":""}]}}"#));
        assert!(!with(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#));
        assert!(!with(r#"{"linux":{}}"#));
        assert!(!with("{}"));
    }
}
