//! What a task runs: the container as the user of a service describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Driver, Given, Labels, SecretText};
use crate::id::{ConfigId, SecretId};

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    pub image: String,
    pub labels: Labels,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// May be a template, as may `env` and the mounts' sources and targets.
    pub hostname: String,
    pub env: Vec<String>,
    pub dir: String,
    pub user: String,
    pub groups: Vec<String>,
    pub privileges: Privileges,
    /// Whether an init reaps in the container; the node's default when not said.
    pub init: Option<bool>,
    pub stop_signal: String,
    /// 10 s when not said.
    pub stop_grace_period: Option<Duration>,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub mounts: Vec<Mount>,
    pub health_check: Option<HealthCheck>,
    /// Lines of /etc/hosts: `IP host [alias...]`.
    pub hosts: Vec<String>,
    pub dns: DnsConfig,
    pub secrets: Vec<SecretReference>,
    pub configs: Vec<ConfigReference>,
    pub isolation: String,
    pub sysctls: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: i64,
    /// What says nothing, and was given all the same.
    pub given: BTreeSet<Given>,
    /// The registry's credentials for the nodes that pull, as the client sent them.
    pub registry_auth: Option<SecretText>,
}

/// Names each of these fields once: a new field does not compile until it was decided whether a log line may have it.
macro_rules! debug_all_but_env {
    ($($field:ident)+) => {
        /// Of the variables the names alone: passwords are among their values.
        impl fmt::Debug for ContainerSpec {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { env, $($field),+ } = self;
                let names: Vec<_> = env.iter().map(|it| it.split_once('=').map_or(&**it, |(name, _)| name)).collect();
                f.debug_struct("ContainerSpec")
                    .field("env", &names)
                    $(.field(stringify!($field), $field))+
                    .finish()
            }
        }
    };
}

debug_all_but_env! {
    image labels command args hostname dir user groups privileges init stop_signal stop_grace_period
    tty open_stdin read_only mounts health_check hosts dns secrets configs isolation sysctls cap_add
    cap_drop ulimits oom_score_adj given registry_auth
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    pub no_new_privileges: bool,
    /// Of Windows: no node here can honour it.
    pub credentials: Option<CredentialSpec>,
    pub selinux: Option<SelinuxContext>,
    pub seccomp: SeccompMode,
    pub apparmor: AppArmorMode,
}

/// Where the credentials of a group account come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialSpec {
    /// A config's id.
    Config(String),
    File(String),
    Registry(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxContext {
    pub disable: bool,
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SeccompMode {
    #[default]
    Default,
    Unconfined,
    /// The profile's JSON.
    Custom(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AppArmorMode {
    #[default]
    Default,
    Disabled,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub kind: MountKind,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: BindOptions,
    pub volume: VolumeOptions,
    pub tmpfs: TmpfsOptions,
    /// Of an image mount.
    pub image_subpath: String,
    /// What says nothing, and was given all the same.
    pub given: BTreeSet<Given>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
    NamedPipe,
    Cluster,
    Image,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub labels: Labels,
    pub driver: Option<Driver>,
    pub subpath: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    pub options: Vec<Vec<String>>,
}

/// Docker's HEALTHCHECK; a zero is the image's value, then Docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `["CMD", ...]`, `["CMD-SHELL", "..."]`, `["NONE"]`, or empty for the image's.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    pub secret: SecretId,
    pub name: String,
    pub file: FileTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReference {
    pub config: ConfigId,
    pub name: String,
    pub target: ConfigTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigTarget {
    File(FileTarget),
    /// Used by the runtime itself, such as a credential spec; no file.
    Runtime,
}

/// Where a secret or config shows, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileTarget {
    pub name: String,
    pub uid: String,
    pub gid: String,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}
