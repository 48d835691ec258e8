//! What flags and `daemon.json` say, as values of their types, with dockerd's for what neither says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Containers, LayerSharing, Live, Network, Tls};
use crate::daemon_json::Values;
use crate::settings::Setting;

/// Of TCP, which the firewalls between nodes of a Swarm let through: Docker gossips there, and ketch does not.
const LAYER_PORT: usize = 7947;
const LAYER_UPLOADS: usize = 16;

/// Values as types; that they have them, `daemon_json` and `settings` have seen.
pub(super) struct Read<'a>(pub(super) &'a Values);

impl Read<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        debug_assert!(Setting::of_key(key).is_some(), "{key} is no setting");
        self.0.get(key)
    }

    pub(super) fn some(&self, key: &str) -> Option<String> {
        self.value(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.some(key).unwrap_or_default()
    }

    pub(super) fn text_or(&self, key: &str, default: &str) -> String {
        self.some(key).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.some(key).map(PathBuf::from)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.value(key).and_then(Value::as_i64)
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let items = self.value(key).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub(super) fn map(&self, key: &str) -> BTreeMap<String, String> {
        let pairs = self.value(key).and_then(Value::as_object).into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }

    fn address(&self, key: &str) -> Result<Option<IpAddr>, String> {
        self.some(key)
            .map(|text| text.parse().map_err(|_| format!("failed to parse IP: {text:?}")))
            .transpose()
    }

    fn addresses(&self, key: &str) -> Result<Vec<IpAddr>, String> {
        let parse = |text: String| {
            text.parse().map_err(|_| format!("invalid string being converted to IP address: {text}"))
        };
        self.list(key).into_iter().map(parse).collect()
    }

    fn positive(&self, key: &str, what: &str, default: usize) -> Result<usize, String> {
        match self.number(key) {
            None | Some(0) => Ok(default),
            Some(number) => usize::try_from(number).map_err(|_| format!("invalid {what}: {number}")),
        }
    }

    /// Where nothing asks for it, its other settings are judged all the same.
    pub(super) fn layer_sharing(&self) -> Result<Option<LayerSharing>, String> {
        let port = self.positive("cluster-layer-port", "cluster-layer-port", LAYER_PORT)?;
        let rate = self.value("cluster-layer-rate").and_then(Value::as_u64).filter(|rate| *rate > 0);
        let sharing = LayerSharing {
            port: u16::try_from(port).map_err(|_| format!("invalid cluster-layer-port: {port}"))?,
            rate,
            uploads: self.positive("cluster-layer-uploads", "cluster-layer-uploads", LAYER_UPLOADS)?,
        };
        Ok(self.flag("cluster-layer-sharing", false).then_some(sharing))
    }

    pub(super) fn live(&self) -> Result<Live, String> {
        let runtimes = self.value("runtimes").and_then(Value::as_object).into_iter().flatten();
        let mut known = BTreeMap::new();
        for (name, runtime) in runtimes {
            let path = runtime.get("path").and_then(Value::as_str).unwrap_or_default();
            if path.is_empty() {
                return Err(format!("runtime {name}: either a runtimeType or a path must be configured"));
            }
            // To leave one out in silence could be to leave out what isolates.
            let says_something = |key: &&str| {
                let value = runtime.get(key).map(Value::to_string);
                value.is_some_and(|value| !matches!(value.as_str(), "null" | "[]" | "{}" | "\"\""))
            };
            let unserved = ["runtimeArgs", "runtimeType", "options"].into_iter().find(says_something);
            if let Some(key) = unserved {
                return Err(format!(
                    "runtime {name}: {key} is not served by ketchd: name a program with runc's command line by its path, a script if it needs arguments"
                ));
            }
            let _none = known.insert(name.clone(), PathBuf::from(path));
        }
        let features = self.value("features").and_then(Value::as_object).into_iter().flatten();
        Ok(Live {
            debug: self.flag("debug", false),
            labels: self.list("labels"),
            live_restore: self.flag("live-restore", true),
            shutdown_timeout: self.number("shutdown-timeout").unwrap_or(15),
            max_concurrent_downloads: self.positive(
                "max-concurrent-downloads",
                "max concurrent downloads",
                3,
            )?,
            max_concurrent_uploads: self.positive("max-concurrent-uploads", "max concurrent uploads", 5)?,
            max_download_attempts: self.positive("max-download-attempts", "max download attempts", 5)?,
            insecure_registries: self.list("insecure-registries"),
            registry_mirrors: self.list("registry-mirrors"),
            runtimes: known,
            default_runtime: self.text_or("default-runtime", "runc"),
            default_shm_size: self.value("default-shm-size").and_then(Value::as_u64).unwrap_or(64 << 20),
            default_ipc_mode: self.text_or("default-ipc-mode", "private"),
            default_cgroupns_mode: self.text_or(
                "default-cgroupns-mode",
                if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "private" } else { "host" },
            ),
            features: features.filter_map(|(name, on)| Some((name.clone(), on.as_bool()?))).collect(),
            restart_unhealthy: self.flag("ketch-restart-unhealthy", false),
            max_layer_size: self.value("ketch-max-layer-size").and_then(Value::as_u64),
            max_layer_files: self.value("ketch-max-layer-files").and_then(Value::as_u64),
        })
    }

    pub(super) fn network(&self) -> Result<Network, String> {
        let mut host_gateway = self.addresses("host-gateway-ips")?;
        host_gateway.extend(self.address("host-gateway-ip")?);
        let pools = self.value("default-address-pools").and_then(Value::as_array).into_iter().flatten();
        let pools = pools.map(|pool| {
            let base = pool.get("base").and_then(Value::as_str).unwrap_or_default().to_owned();
            let size = pool.get("size").and_then(Value::as_u64).and_then(|size| u8::try_from(size).ok());
            let size = size.ok_or_else(|| format!("invalid default address pool {base}: no size"))?;
            Ok::<_, String>((base, size))
        });
        let pools = pools.collect::<Result<_, _>>()?;
        let options = self.value("default-network-opts").and_then(Value::as_object).into_iter().flatten();
        let options = options.map(|(driver, options)| {
            let pairs = options.as_object().into_iter().flatten();
            let pairs = pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            (driver.clone(), pairs.collect())
        });
        let mtu = match self.number("mtu") {
            None | Some(0) => 1500,
            Some(mtu) => u32::try_from(mtu).map_err(|_| format!("invalid default MTU: {mtu}"))?,
        };
        Ok(Network {
            bridge: self.text("bridge"),
            bip: self.text("bip"),
            bip6: self.text("bip6"),
            fixed_cidr: self.text("fixed-cidr"),
            fixed_cidr_v6: self.text("fixed-cidr-v6"),
            default_gateway: self.address("default-gateway")?,
            default_gateway_v6: self.address("default-gateway-v6")?,
            mtu,
            icc: self.flag("icc", true),
            iptables: self.flag("iptables", true),
            ip6tables: self.flag("ip6tables", true),
            ip_forward: self.flag("ip-forward", true),
            ip_forward_no_drop: self.flag("ip-forward-no-drop", false),
            allow_direct_routing: self.flag("allow-direct-routing", false),
            ip_masq: self.flag("ip-masq", true),
            ipv6: self.flag("ipv6", false),
            publish_at: self.address("ip")?.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            dns: self.addresses("dns")?,
            dns_options: self.list("dns-opts"),
            dns_search: self.list("dns-search"),
            host_gateway,
            pools,
            default_options: options.collect(),
        })
    }

    pub(super) fn containers(&self) -> Containers {
        let ulimits = self.value("default-ulimits").and_then(Value::as_object).into_iter().flatten();
        let ulimits = ulimits.filter_map(|(name, limit)| {
            let number = |key: &str| limit.get(key).and_then(Value::as_i64);
            Some((name.clone(), (number("Soft")?, number("Hard")?)))
        });
        Containers {
            cgroup_parent: self.text("cgroup-parent"),
            ulimits: ulimits.collect(),
            init: self.flag("init", false),
            init_path: self.text("init-path"),
            remapped: self.text("userns-remap"),
            no_new_privileges: self.flag("no-new-privileges", false),
            seccomp_profile: self.text_or("seccomp-profile", "builtin"),
        }
    }

    pub(super) fn tls(&self) -> Tls {
        let said = |key: &str| self.value(key).and_then(Value::as_bool);
        // Whoever speaks of verification wants TLS, whatever is said of it.
        let verify = said("tlsverify");
        let enabled = if verify.is_some() { Some(true) } else { said("tls") };
        let folder = std::env::var_os("DOCKER_CERT_PATH")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
        let found = |key: &str, name: &str| {
            self.path(key)
                .or_else(|| folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists()))
        };
        Tls {
            enabled,
            verify: verify.or(enabled),
            ca: found("tlscacert", "ca.pem"),
            cert: found("tlscert", "cert.pem"),
            key: found("tlskey", "key.pem"),
        }
    }
}
