//! The container of a service's tasks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Map, is_blank, is_blank_map, is_default};
use crate::mount::Mount;

/// What a task runs.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "is_blank_map")]
    pub labels: Option<Map>,
    #[serde(skip_serializing_if = "is_blank")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "is_default")]
    pub tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_blank")]
    pub mounts: Option<Vec<Mount>>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// `IP host [alias...]`.
    #[serde(skip_serializing_if = "is_blank")]
    pub hosts: Option<Vec<String>>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "is_blank")]
    pub secrets: Option<Vec<SecretReference>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub configs: Option<Vec<ConfigReference>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    #[serde(skip_serializing_if = "is_blank_map")]
    pub sysctls: Option<Map>,
    #[serde(skip_serializing_if = "is_blank")]
    pub capability_add: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub capability_drop: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub ulimits: Option<Vec<Ulimit>>,
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
}

/// Without variables and commands: passwords are among them.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec").field("image", &self.image).finish_non_exhaustive()
    }
}

/// What the container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Privileges {
    /// Of Windows.
    pub credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub selinux_context: Option<SelinuxContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompOptions>,
    #[serde(rename = "AppArmor", skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<AppArmorOptions>,
    pub no_new_privileges: bool,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CredentialSpec {
    pub config: String,
    pub file: String,
    pub registry: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SelinuxContext {
    pub disable: bool,
    pub user: String,
    pub role: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SeccompOptions {
    /// `default`, `unconfined`, `custom`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub profile: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppArmorOptions {
    /// `default`, `disabled`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// Spans are nanoseconds; 0 is the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    #[serde(skip_serializing_if = "is_blank")]
    pub test: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    #[serde(skip_serializing_if = "is_blank")]
    pub nameservers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub search: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_blank")]
    pub options: Option<Vec<String>>,
}

/// A secret in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    pub file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
}

/// A config in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// For the runtime itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeTarget>,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
}

/// It has no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeTarget {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileTarget {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "UID")]
    pub uid: String,
    #[serde(rename = "GID")]
    pub gid: String,
    /// Permission bits.
    #[serde(rename = "Mode")]
    pub mode: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}
