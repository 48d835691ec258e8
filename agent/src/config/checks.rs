//! What makes no sense, and what ketchd does not serve: dockerd's texts.

use std::collections::BTreeMap;

use super::Config;
use super::read::Read;

impl Read<'_> {
    /// What no single setting shows to be wrong, and what ketchd does not serve.
    pub(super) fn check(&self, config: &Config) -> Result<(), String> {
        let level = config.log.level.as_str();
        if !["panic", "fatal", "error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(format!("invalid logging level: {}", self.text("log-level")));
        }
        let format = self.text("log-format");
        if !matches!(format.as_str(), "" | "text" | "json") {
            return Err(format!("invalid log format: {format}"));
        }
        let live = config.live();
        let mut labels = BTreeMap::new();
        for label in &live.labels {
            let (key, value) = label
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| format!("bad attribute format: {label}"))?;
            match labels.insert(key, value) {
                Some(before) if before != value => {
                    return Err(format!("conflict labels for {key}={value} and {key}={before}"));
                }
                _ => {}
            }
        }
        if !matches!(live.default_ipc_mode.as_str(), "private" | "shareable") {
            let mode = &live.default_ipc_mode;
            return Err(format!(
                "IPC mode \"{mode}\" is not supported as default value; use \"shareable\" or \"private\""
            ));
        }
        if !matches!(live.default_cgroupns_mode.as_str(), "private" | "host") {
            let mode = &live.default_cgroupns_mode;
            return Err(format!("invalid default cgroup namespace ({mode}): use \"host\" or \"private\""));
        }
        for option in self.list("exec-opts") {
            let (key, value) = option
                .split_once('=')
                .map(|(key, value)| (key.trim().to_lowercase(), value.trim()))
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| format!("invalid exec-opt ({option}): must be formatted 'opt=value'"))?;
            match (key.as_str(), value) {
                ("native.cgroupdriver", "cgroupfs") => {}
                ("native.cgroupdriver", other) => {
                    return Err(format!(
                        "invalid exec-opt ({option}): native.cgroupdriver {other} is not served"
                    ));
                }
                ("isolation", _) => {
                    return Err(format!(
                        "invalid exec-opt ({option}): option 'isolation' is only supported on windows"
                    ));
                }
                (key, _) => return Err(format!("invalid exec-opt ({option}): unknown option: '{key}'")),
            }
        }
        for mirror in &live.registry_mirrors {
            if !(mirror.starts_with("http://") || mirror.starts_with("https://")) {
                return Err(format!(
                    "invalid mirror: no scheme specified for {mirror:?}: must use either 'https://' or 'http://'"
                ));
            }
        }
        if !config.network.bridge.is_empty() && !config.network.bip.is_empty() {
            return Err(
                "You specified -b & --bip, mutually exclusive options. Please specify only one".to_owned()
            );
        }
        let subnet = &config.network.fixed_cidr_v6;
        if !subnet.is_empty() && !subnet.contains(':') {
            return Err(format!(
                "invalid fixed-cidr-v6: invalid fixed-cidr-v6: '{subnet}' is not a valid IPv6 subnet"
            ));
        }
        if !config.log_driver.options.is_empty() {
            config.log_driver.check().map_err(|error| format!("failed to set log opts: {error}"))?;
        }
        Ok(())
    }

    /// What is asked for and not served; the daemon does not start without it being so.
    pub(super) fn unserved(&self) -> Result<(), String> {
        if let Some(plugin) = self.list("authorization-plugins").first() {
            return Err(format!("failed to validate authorization plugin: plugin {plugin:?} not found"));
        }
        let driver = self.text("storage-driver");
        if !matches!(driver.as_str(), "" | "overlay2" | "overlayfs") {
            return Err(format!("error initializing graphdriver: driver not supported: {driver}"));
        }
        for option in self.list("storage-opts") {
            let (key, _) = option.split_once('=').unwrap_or((&option, ""));
            match key.to_lowercase().as_str() {
                // Which kernels have overlayfs is asked of the kernel.
                "overlay2.override_kernel_check" => {}
                "overlay2.size" => {
                    return Err(format!(
                        "--storage-opt {option} is not served by ketchd: a container's disk has no quota"
                    ));
                }
                other => {
                    return Err(format!("error initializing graphdriver: overlay2: unknown option {other}"));
                }
            }
        }
        let backend = self.text("firewall-backend");
        if !matches!(backend.as_str(), "" | "nftables") {
            return Err(format!(
                "--firewall-backend {backend} is not served by ketchd, which writes nf_tables itself"
            ));
        }
        for (key, set) in [
            ("rootless", self.flag("rootless", false)),
            ("selinux-enabled", self.flag("selinux-enabled", false)),
        ] {
            if set {
                return Err(format!("--{key} is not served by ketchd"));
            }
        }
        Ok(())
    }
}
