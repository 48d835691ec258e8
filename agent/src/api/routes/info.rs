//! The answer of `GET /info`: the daemon, its machine, and what to be warned of. Field by field as dockerd's.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::api::version::ApiVersion;
use crate::config::{Config, Host, Live, without_credentials};
use crate::daemon::Daemon;
use crate::engine::container::State;
use crate::system::{self, Cgroups};
use crate::timestamp::Timestamp;
use crate::{logs, volume};

/// What clients are told of tcp:// that everybody may use.
const ATTACK_SURFACE: &str = "
         Access to the remote API is equivalent to root access on the host. Refer
         to the 'Docker daemon attack surface' section in the documentation for
         more information: https://docs.docker.com/go/attack-surface/";

/// Reads files of the machine: not for the threads of the runtime.
pub(super) fn info(daemon: &Daemon, version: ApiVersion) -> Value {
    let (config, live) = (&daemon.config, daemon.config.live());
    let (machine, cgroups) = (system::machine(), system::cgroups());
    let states: Vec<State> =
        daemon.engine.all().iter().map(|container| container.read(|record| record.state.clone())).collect();
    let paused = states.iter().filter(|state| state.paused).count();
    let running = states.iter().filter(|state| state.running && !state.paused).count();
    let mut shown = Map::new();
    let mut put = |key: &str, value: Value| drop(shown.insert(key.to_owned(), value));
    put("ID", json!(daemon.id));
    put("Containers", json!(states.len()));
    put("ContainersRunning", json!(running));
    put("ContainersPaused", json!(paused));
    put("ContainersStopped", json!(states.len() - running - paused));
    put("Images", json!(daemon.images.count()));
    put("Driver", json!("overlay2"));
    put("DriverStatus", driver_status(&config.data_root));
    put("Plugins", plugins());
    put("MemoryLimit", json!(cgroups.memory));
    put("SwapLimit", json!(cgroups.swap));
    if cgroups.kernel_memory_tcp {
        put("KernelMemoryTCP", json!(true));
    }
    put("CpuCfsPeriod", json!(cgroups.cpu_quota));
    put("CpuCfsQuota", json!(cgroups.cpu_quota));
    put("CPUShares", json!(cgroups.cpu_shares));
    put("CPUSet", json!(cgroups.cpuset));
    put("PidsLimit", json!(cgroups.pids));
    put("IPv4Forwarding", json!(system::forwards()));
    put("Debug", json!(live.debug));
    put("NFd", json!(system::open_files()));
    put("OomKillDisable", json!(cgroups.oom_kill_disable));
    put("NGoroutines", json!(system::threads()));
    put("SystemTime", json!(Timestamp::now().to_string()));
    put("LoggingDriver", json!(config.log_driver.driver));
    put("CgroupDriver", json!("cgroupfs"));
    put("CgroupVersion", json!(if cgroups.unified { "2" } else { "1" }));
    put("NEventsListener", json!(daemon.events.listeners()));
    put("KernelVersion", json!(machine.kernel));
    put("OperatingSystem", json!(machine.name));
    put("OSVersion", json!(machine.version));
    put("OSType", json!("linux"));
    put("Architecture", json!(machine.architecture));
    put("IndexServerAddress", json!("https://index.docker.io/v1/"));
    put("RegistryConfig", registries(&live, version));
    put("NCPU", json!(machine.cpus));
    put("MemTotal", json!(machine.memory));
    put("GenericResources", generic_resources(config));
    put("DockerRootDir", json!(config.data_root));
    let proxies = config.proxies.with_environment();
    put("HttpProxy", json!(without_credentials(&proxies.http)));
    put("HttpsProxy", json!(without_credentials(&proxies.https)));
    put("NoProxy", json!(without_credentials(&proxies.none)));
    put("Name", json!(machine.hostname));
    put("Labels", json!(live.labels));
    put("ExperimentalBuild", json!(config.experimental));
    put("ServerVersion", json!(crate::VERSION));
    put("Runtimes", runtimes(config, &live));
    put("DefaultRuntime", json!(live.default_runtime));
    put("Swarm", json!(super::swarm::local_info(daemon)));
    put("LiveRestoreEnabled", json!(live.live_restore));
    put("Isolation", json!(""));
    let init = &config.containers.init_path;
    put("InitBinary", json!(if init.is_empty() { "docker-init" } else { init }));
    for (key, id) in [
        ("ContainerdCommit", "N/A"),
        ("RuncCommit", concat!("ketch ", env!("CARGO_PKG_VERSION"))),
        ("InitCommit", "N/A"),
    ] {
        let expected = version < ApiVersion::v1(49);
        put(key, if expected { json!({ "ID": id, "Expected": id }) } else { json!({ "ID": id }) });
    }
    put("SecurityOptions", security(daemon, &live, version));
    if !config.network.pools.is_empty() {
        let pools = config.network.pools.iter().map(|(base, size)| json!({ "Base": base, "Size": size }));
        put("DefaultAddressPools", pools.collect());
    }
    if config.network.iptables && version >= ApiVersion::v1(49) {
        put("FirewallBackend", json!({ "Driver": "nftables" }));
    }
    // Devices by CDI are not served.
    put("CDISpecDirs", json!([]));
    let warnings = warnings(config, &cgroups);
    put("Warnings", if warnings.is_empty() { Value::Null } else { json!(warnings) });
    if version < ApiVersion::v1(50) {
        put("BridgeNfIp6tables", json!(false));
        put("BridgeNfIptables", json!(false));
    }
    Value::Object(shown)
}

fn driver_status(data_root: &Path) -> Value {
    // By the magic numbers of statfs(2).
    let backing = match rustix::fs::statfs(data_root).map(|status| status.f_type) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x2fc1_2fc1) => "zfs",
        _ => "<unknown>",
    };
    json!([
        ["Backing Filesystem", backing],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ])
}

fn plugins() -> Value {
    let logs: Vec<_> = logs::DRIVERS.into_iter().filter(|driver| *driver != "none").collect();
    json!({ "Volume": [volume::DRIVER], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Authorization": null, "Log": logs })
}

fn registries(live: &Live, version: ApiVersion) -> Value {
    let is_cidr = |text: &&String| {
        text.split_once('/').is_some_and(|(address, bits)| {
            address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok()
        })
    };
    let mirrors: Vec<_> =
        live.registry_mirrors.iter().map(|url| format!("{}/", url.trim_end_matches('/'))).collect();
    let mut indexes = BTreeMap::new();
    let hub = json!({ "Mirrors": mirrors, "Name": "docker.io", "Official": true, "Secure": true });
    let _none = indexes.insert("docker.io".to_owned(), hub);
    for host in live.insecure_registries.iter().filter(|text| !is_cidr(text)) {
        let index = json!({ "Mirrors": [], "Name": host, "Official": false, "Secure": false });
        let _none = indexes.insert(host.clone(), index);
    }
    let cidrs = live.insecure_registries.iter().filter(is_cidr).map(String::as_str);
    let cidrs: Vec<_> = cidrs.chain(["::1/128", "127.0.0.0/8"]).collect();
    let mut shown = json!({
        "IndexConfigs": indexes,
        "InsecureRegistryCIDRs": cidrs,
        "Mirrors": if mirrors.is_empty() { Value::Null } else { json!(mirrors) },
    });
    if version < ApiVersion::v1(47) {
        shown["AllowNondistributableArtifactsCIDRs"] = Value::Null;
        shown["AllowNondistributableArtifactsHostnames"] = Value::Null;
    }
    shown
}

fn generic_resources(config: &Config) -> Value {
    if config.generic_resources.is_empty() {
        return Value::Null;
    }
    let resources = config.generic_resources.iter().filter_map(|text| text.split_once('='));
    let resources = resources.map(|(kind, value)| match value.parse::<i64>() {
        Ok(number) => json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": number } }),
        Err(_) => json!({ "NamedResourceSpec": { "Kind": kind, "Value": value } }),
    });
    resources.collect()
}

fn runtimes(config: &Config, live: &Live) -> Value {
    let own =
        ["io.containerd.runc.v2", "ketch", "runc"].map(|name| (name.to_owned(), config.runtime.clone()));
    let all: BTreeMap<_, _> = own.into_iter().chain(live.runtimes.clone()).collect();
    json!(all.into_iter().map(|(name, path)| (name, json!({ "path": path }))).collect::<BTreeMap<_, _>>())
}

fn security(daemon: &Daemon, live: &Live, version: ApiVersion) -> Value {
    let config = &daemon.config;
    let mut options = Vec::new();
    let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if apparmor.is_ok_and(|enabled| enabled.starts_with('Y')) {
        options.push("name=apparmor".to_owned());
    }
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        options.push(format!("name=seccomp,profile={}", config.containers.seccomp_profile));
    }
    if daemon.ids.are_mapped() {
        options.push("name=userns".to_owned());
    }
    if live.default_cgroupns_mode == "private" {
        options.push("name=cgroupns".to_owned());
    }
    if config.containers.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    if version < ApiVersion::v1(25) {
        let name = |option: &String| {
            let option = option.strip_prefix("name=").unwrap_or(option);
            option.split(',').next().unwrap_or_default().to_owned()
        };
        options = options.iter().map(name).collect();
    }
    json!(options)
}

fn warnings(config: &Config, cgroups: &Cgroups) -> Vec<String> {
    let mut warnings = Vec::new();
    for host in &config.hosts {
        let Host::Tcp(name, port) = host else { continue };
        let removal = "In future versions this will be a hard failure preventing the daemon from starting! Learn more at: https://docs.docker.com/go/api-security/";
        let what = match (config.tls.enabled, config.tls.verify) {
            (Some(true), Some(false)) => format!("https://{name}:{port} without TLS client verification."),
            (Some(true), _) => continue,
            _ => format!("http://{name}:{port} without encryption."),
        };
        warnings
            .push(format!("[DEPRECATION NOTICE]: API is accessible on {what}{ATTACK_SURFACE}\n{removal}"));
    }
    let old = !cgroups.unified;
    let limits = ["rbps", "wbps", "riops", "wiops"];
    let throttles = ["read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device"];
    let mut missing = vec![
        (cgroups.memory, "memory limit"),
        (cgroups.swap, "swap limit"),
        (cgroups.kernel_memory_tcp || !old, "kernel memory TCP limit"),
        (cgroups.oom_kill_disable || !old, "oom kill disable"),
        (cgroups.cpu_quota, "cpu cfs quota"),
        (cgroups.cpu_quota, "cpu cfs period"),
        (cgroups.cpu_shares, "cpu shares"),
        (cgroups.cpuset, "cpuset"),
        (cgroups.io_weight || old, "io.weight"),
        (cgroups.io_weight || old, "io.weight (per device)"),
    ];
    missing.retain(|(there, _)| !there);
    warnings.extend(missing.iter().map(|(_, what)| format!("WARNING: No {what} support")));
    if !cgroups.io_limits {
        for (limit, throttle) in limits.iter().zip(throttles) {
            warnings.push(match old {
                true => format!("WARNING: No blkio throttle.{throttle} support"),
                false => format!("WARNING: No io.max ({limit}) support"),
            });
        }
    }
    if config.containers.seccomp_profile != "builtin" {
        warnings.push("WARNING: daemon is not using the default seccomp profile".to_owned());
    }
    if !system::forwards() {
        warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
    }
    warnings
}
