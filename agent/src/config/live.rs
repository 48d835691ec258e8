//! [`Live`]: the settings that a reload may change, and how it does.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings that a reload may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Whether the log says more.
    pub debug: bool,
    /// `KEY=value`.
    pub labels: Vec<String>,
    /// Containers outlive the daemon whatever it says; clients are told it.
    pub live_restore: bool,
    /// How long the daemon's end may take, in seconds; negative: as long as it takes.
    pub shutdown_timeout: i64,
    /// Layers that one pull gets at once.
    pub max_concurrent_downloads: usize,
    /// Layers that one push sends at once.
    pub max_concurrent_uploads: usize,
    /// How often a layer is tried.
    pub max_download_attempts: usize,
    /// Registries without TLS, or with certificates that nobody vouches for: hosts, and CIDRs.
    pub insecure_registries: Vec<String>,
    /// Of Docker Hub: URLs.
    pub registry_mirrors: Vec<String>,
    /// By name: the path of the binary. `ketch`, `runc` and `io.containerd.runc.v2` are there without being named.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Of containers that ask for none.
    pub default_runtime: String,
    /// Of `/dev/shm`, in bytes.
    pub default_shm_size: u64,
    /// `private` or `shareable`.
    pub default_ipc_mode: String,
    /// `private` or `host`.
    pub default_cgroupns_mode: String,
    /// By name.
    pub features: BTreeMap<String, bool>,
    /// Whether containers that turn unhealthy are restarted without asking for it by label.
    pub restart_unhealthy: bool,
    /// What the files of one layer of an image may have, in bytes; none: as much as fits on the disk.
    pub max_layer_size: Option<u64>,
    /// How many files one layer of an image may have.
    pub max_layer_files: Option<u64>,
}

impl Live {
    /// These, as they are read anew, over those of before: what nobody says any more stays as it was. `said` tells what is said.
    pub(super) fn over(&self, kept: &Self, said: impl Fn(&str) -> bool) -> Self {
        Live {
            debug: newer(said("debug"), &self.debug, &kept.debug),
            labels: newer(said("labels"), &self.labels, &kept.labels),
            live_restore: newer(said("live-restore"), &self.live_restore, &kept.live_restore),
            shutdown_timeout: newer(said("shutdown-timeout"), &self.shutdown_timeout, &kept.shutdown_timeout),
            insecure_registries: newer(
                said("insecure-registries"),
                &self.insecure_registries,
                &kept.insecure_registries,
            ),
            registry_mirrors: newer(said("registry-mirrors"), &self.registry_mirrors, &kept.registry_mirrors),
            runtimes: newer(said("runtimes"), &self.runtimes, &kept.runtimes),
            default_runtime: newer(said("default-runtime"), &self.default_runtime, &kept.default_runtime),
            default_shm_size: newer(said("default-shm-size"), &self.default_shm_size, &kept.default_shm_size),
            default_ipc_mode: newer(said("default-ipc-mode"), &self.default_ipc_mode, &kept.default_ipc_mode),
            default_cgroupns_mode: newer(
                said("default-cgroupns-mode"),
                &self.default_cgroupns_mode,
                &kept.default_cgroupns_mode,
            ),
            // Back to what they are without a file, as dockerd does.
            max_concurrent_downloads: self.max_concurrent_downloads,
            max_concurrent_uploads: self.max_concurrent_uploads,
            max_download_attempts: self.max_download_attempts,
            features: self.features.clone(),
            restart_unhealthy: self.restart_unhealthy,
            max_layer_size: self.max_layer_size,
            max_layer_files: self.max_layer_files,
        }
    }

    /// The attributes of the `reload` event.
    #[must_use]
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
        let runtimes: Vec<_> =
            self.runtimes.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
        let features: Vec<_> = self.features.iter().map(|(name, on)| format!("{name}:{on}")).collect();
        [
            ("debug", self.debug.to_string()),
            ("default-cgroupns-mode", self.default_cgroupns_mode.clone()),
            ("default-ipc-mode", self.default_ipc_mode.clone()),
            ("default-runtime", self.default_runtime.clone()),
            ("default-shm-size", self.default_shm_size.to_string()),
            ("features", format!("map[{}]", features.join(" "))),
            ("insecure-registries", list(&self.insecure_registries)),
            ("labels", list(&self.labels)),
            ("live-restore", self.live_restore.to_string()),
            ("max-concurrent-downloads", self.max_concurrent_downloads.to_string()),
            ("max-concurrent-uploads", self.max_concurrent_uploads.to_string()),
            ("max-download-attempts", self.max_download_attempts.to_string()),
            ("registry-mirrors", list(&self.registry_mirrors)),
            ("runtimes", runtimes.join(" ")),
            ("shutdown-timeout", self.shutdown_timeout.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// What was said anew, else what was kept.
fn newer<T: Clone>(said: bool, fresh: &T, kept: &T) -> T {
    if said { fresh } else { kept }.clone()
}
