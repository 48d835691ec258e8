//! Images: what lists, inspection, history, removal and prune show, and what a container is started with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An image's part of a container's settings. `None` is what Go has as nil: shown as null, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Whom processes run as.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub user: Option<String>,
    /// `port/protocol`, each with an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// What is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments; or what is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths, each with an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// Where processes start.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub working_dir: Option<String>,
    /// Free text by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What a container is stopped with.
    #[serde(skip_serializing_if = "none_or_empty")]
    pub stop_signal: Option<String>,
    /// Windows's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    /// How to see whether it works: `Test`, `Interval`...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// The classic builder's triggers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// What runs the shell form of commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

fn none_or_empty(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(String::is_empty)
}

/// One of `GET /images/json`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// How many use it; -1 before version 1.51.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// Its config's digest.
    pub id: String,
    /// The config's.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it was built upon here.
    pub parent_id: String,
    /// Names by manifest.
    pub repo_digests: Vec<String>,
    /// Names by tag.
    pub repo_tags: Vec<String>,
    /// Bytes that others have too; -1 when not asked for.
    pub shared_size: i64,
    /// Bytes of all layers.
    pub size: u64,
    /// The same, before version 1.44.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
}

/// `GET /images/{name}/json`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspect {
    /// Its config's digest.
    pub id: String,
    /// Names by tag.
    pub repo_tags: Vec<String>,
    /// Names by manifest.
    pub repo_digests: Vec<String>,
    /// What it was built upon here.
    pub parent: String,
    /// Why it was made.
    pub comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Before version 1.45: what it was committed from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The same: its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<Value>,
    /// The maker's.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// `amd64`...
    pub architecture: String,
    /// `v8`...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Windows's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Bytes of all layers.
    pub size: u64,
    /// The same, before version 1.44.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    /// Where it is.
    pub graph_driver: GraphDriver,
    /// What it is made of.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// Of this machine.
    pub metadata: Metadata,
    /// What a container is started with: keys in order, some of them always.
    pub config: Map<String, Value>,
}

/// Where an image or a container's root is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// `LowerDir`, `MergedDir`, `UpperDir`, `WorkDir`.
    pub data: Option<BTreeMap<String, String>>,
    /// `overlay2`.
    pub name: String,
}

/// The layers' contents.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Their digests, the lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What this machine knows of an image.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// RFC 3339; year 1 for never.
    pub last_tag_time: String,
}

/// One step of `GET /images/{name}/history`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryItem {
    /// Why.
    pub comment: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// The image of the step, or `<missing>`.
    pub id: String,
    /// Bytes of its layer.
    pub size: u64,
    /// Its names.
    pub tags: Option<Vec<String>>,
}

/// One line of what a removal did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Deleted {
    /// An image or a stack of layers is gone.
    Deleted(String),
    /// A name is gone.
    Untagged(String),
}

/// `POST /images/prune`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Null for nothing.
    pub images_deleted: Option<Vec<Deleted>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// One of `GET /containers/{id}/changes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Where.
    pub path: String,
    /// 0: changed; 1: new; 2: gone.
    pub kind: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_dockers() {
        let removed = [Deleted::Untagged("a:b".into()), Deleted::Deleted("sha256:0".into())];
        let text = serde_json::to_string(&removed).unwrap_or_default();
        assert_eq!(text, r#"[{"Untagged":"a:b"},{"Deleted":"sha256:0"}]"#);
        let nothing = serde_json::to_string(&Pruned::default()).unwrap_or_default();
        assert_eq!(nothing, r#"{"ImagesDeleted":null,"SpaceReclaimed":0}"#);
        let summary = serde_json::to_string(&Summary::default()).unwrap_or_default();
        assert_eq!(
            summary,
            concat!(
                r#"{"Containers":0,"Created":0,"Id":"","Labels":null,"ParentId":"","RepoDigests":[],"RepoTags":[],"#,
                r#""SharedSize":0,"Size":0}"#
            )
        );
    }
}
