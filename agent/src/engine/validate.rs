//! What a container may not ask for, in dockerd's words; and what it gets where it says nothing. Pure.

use ketch_engine_api::container::Config;
use ketch_engine_api::host_config::{HostConfig, Resources, Ulimit};

use super::host::Host;
use super::security::{self, Security};
use super::{caps, devices, restart, signal};
use crate::compat;
use crate::config::Config as Settings;
use crate::error::{Error, Result};
use crate::logs;

/// The least that a container can live in.
const LEAST_MEMORY: i64 = 6 << 20;
const SHM_SIZE: i64 = 64 << 20;

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

/// Refuses a config that can't be meant.
///
/// # Errors
/// dockerd's texts.
pub fn config(config: &Config) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if !config.stop_signal.is_empty() {
        let _known = signal::number(&config.stop_signal)?;
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return invalid(format!("invalid environment variable: {variable}"));
        }
    }
    if let Some(health) = &config.healthcheck {
        for (name, value) in [
            ("Interval", health.interval),
            ("Timeout", health.timeout),
            ("StartPeriod", health.start_period),
            ("StartInterval", health.start_interval),
        ] {
            if value != 0 && value < 1_000_000 {
                return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
            }
        }
        if health.retries < 0 {
            return invalid("Retries in Healthcheck cannot be negative");
        }
    }
    for port in config.exposed_ports.iter().flatten().map(|(port, _)| port) {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        if !matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp") {
            return invalid(format!("invalid port specification: {port:?}"));
        }
        let range = number.split('-').map(|number| number.parse::<u16>().map(|_| ()));
        if range.collect::<Result<Vec<()>, _>>().is_err() {
            return invalid(format!("invalid port specification: {port:?}"));
        }
    }
    Ok(())
}

/// Refuses a host config that can't be meant.
///
/// # Errors
/// dockerd's texts.
pub fn host_config(asked: &HostConfig, host: &Host) -> Result<()> {
    restart::check(&asked.restart_policy, asked.auto_remove)?;
    for (list, given) in [("CapAdd", &asked.cap_add), ("CapDrop", &asked.cap_drop)] {
        let _known = caps::normalize(given.as_deref().unwrap_or_default())
            .map_err(|error| Error::new(error.kind, format!("invalid {list}: {}", error.message)))?;
    }
    let _known = Security::read(asked.security_opt.as_deref().unwrap_or_default(), false)?;
    // An update may change the one of a container that has the other.
    if asked.resources.memory == 0 && asked.resources.memory_swap > 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    resources(&asked.resources, host)?;
    if !(-1000..=1000).contains(&asked.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            asked.oom_score_adj
        ));
    }
    for host in asked.extra_hosts.iter().flatten() {
        extra_host(host)?;
    }
    ports(asked)?;
    if asked.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return invalid("invalid Annotations: the empty string is not permitted as an annotation key");
    }
    if asked.network_mode == "container:" {
        return invalid("invalid network mode: invalid container format container:<name|id>");
    }
    if asked.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !matches!(asked.cgroupns_mode.as_str(), "" | "host" | "private") {
        return invalid(format!("invalid cgroup namespace mode: {}", asked.cgroupns_mode));
    }
    for (what, mode, words) in [
        ("IPC mode", &asked.ipc_mode, &["", "none", "private", "shareable", "host"][..]),
        ("PID mode", &asked.pid_mode, &["", "host"][..]),
        ("UTS mode", &asked.uts_mode, &["", "host"][..]),
        ("user namespace mode", &asked.userns_mode, &["", "host"][..]),
    ] {
        let other = mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
        let may_join = matches!(what, "IPC mode" | "PID mode");
        if !(words.contains(&mode.as_str()) || may_join && other) {
            return invalid(format!("invalid {what}: {mode}"));
        }
    }
    if let Some((key, _)) = asked.storage_opt.iter().flatten().next() {
        return invalid(match key.as_str() {
            "size" => {
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".to_owned()
            }
            other => format!("Unknown option {other}"),
        });
    }
    if let Some((path, _)) = asked.tmpfs.iter().flatten().find(|(path, _)| !path.starts_with('/')) {
        return invalid(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    if !matches!(asked.isolation.as_str(), "" | "default") {
        return invalid(format!("invalid isolation ({}): linux only supports 'default'", asked.isolation));
    }
    Ok(())
}

/// Refuses what a container whose users are others on the host can't have.
///
/// # Errors
/// dockerd's texts.
pub fn remapped(asked: &HostConfig) -> Result<()> {
    for (is_asked, text) in [
        (asked.privileged, compat::PRIVILEGED_WITH_USERS),
        (asked.network_mode == "host", compat::HOST_NETWORK_WITH_USERS),
        (asked.pid_mode == "host", compat::HOST_PROCESSES_WITH_USERS),
    ] {
        if is_asked {
            return invalid(text);
        }
    }
    Ok(())
}

/// `name:address`.
fn extra_host(text: &str) -> Result<()> {
    let Some((_, address)) = text.split_once(':').filter(|(name, _)| !name.is_empty()) else {
        return invalid(format!("bad format for add-host: {text:?}"));
    };
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return invalid(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(())
}

/// Published ports are numbers, or ranges of such.
fn ports(asked: &HostConfig) -> Result<()> {
    for (port, bindings) in asked.port_bindings.iter().flatten() {
        let on_host = bindings.iter().flatten().map(|binding| binding.host_port.as_str());
        for text in std::iter::once(port.as_str()).chain(on_host) {
            let number = text.split('/').next().unwrap_or_default();
            let is_port = |number: &str| number.parse::<u16>().is_ok();
            let fits = match number.split_once('-') {
                Some((first, last)) => is_port(first) && is_port(last),
                None => number.is_empty() || is_port(number),
            };
            if !fits {
                return invalid(format!("invalid port specification: {number:?}"));
            }
        }
    }
    Ok(())
}

/// Refuses what does not go with another container's network, or the host's name.
///
/// # Errors
/// dockerd's texts.
pub fn network(config: &Config, asked: &HostConfig) -> Result<()> {
    if asked.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    if asked.network_mode == "host" && asked.links.as_ref().is_some_and(|links| !links.is_empty()) {
        return invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    if !asked.network_mode.starts_with("container:") {
        return Ok(());
    }
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    for (given, what) in [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            has(&asked.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (has(&asked.dns), "dns and the network mode"),
        (has(&asked.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (
            asked.publish_all_ports || asked.port_bindings.as_ref().is_some_and(|all| !all.is_empty()),
            "port publishing and the container type network mode",
        ),
        (
            config.exposed_ports.as_ref().is_some_and(|all| !all.is_empty()),
            "port exposing and the container type network mode",
        ),
    ] {
        if given {
            return invalid(format!("conflicting options: {what}"));
        }
    }
    Ok(())
}

/// Refuses limits that can't be meant.
///
/// # Errors
/// dockerd's texts.
pub fn resources(asked: &Resources, host: &Host) -> Result<()> {
    if asked.memory != 0 && asked.memory < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if asked.memory > 0 && asked.memory_swap > 0 && asked.memory_swap < asked.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if asked.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
        let value = asked.memory_swappiness.unwrap_or_default();
        return invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100"));
    }
    if asked.memory_reservation != 0 && asked.memory_reservation < LEAST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if asked.memory > 0 && asked.memory_reservation > asked.memory {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if asked.nano_cpus > 0 && asked.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if asked.nano_cpus > 0 && asked.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if asked.nano_cpus < 0 || asked.nano_cpus > i64::from(host.processors) * 1_000_000_000 {
        let most = host.processors;
        return invalid(format!(
            "range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available"
        ));
    }
    if asked.cpu_period != 0 && !(1000..=1_000_000).contains(&asked.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if asked.cpu_quota > 0 && asked.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if asked.cpu_shares < 0 {
        return invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            asked.cpu_shares
        ));
    }
    if asked.blkio_weight != 0 && !(10..=1000).contains(&asked.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    for (what, asked, available) in
        [("CPUs", &asked.cpuset_cpus, &host.cpus), ("memory nodes", &asked.cpuset_mems, &host.memory_nodes)]
    {
        let setting = if what == "CPUs" { "cpus" } else { "mems" };
        let Some(wanted) = numbers(asked) else {
            return invalid(format!("Invalid value {asked} for cpuset {setting}: invalid format: {asked}"));
        };
        let there = numbers(available).unwrap_or_default();
        if there.contains(&true) && wanted.iter().zip(&there).any(|(wanted, there)| *wanted && !there) {
            return invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {available}"
            ));
        }
    }
    if let Some(request) = asked.device_requests.iter().flatten().next() {
        let capabilities = request.capabilities.iter().flatten().map(|all| format!("[{}]", all.join(" ")));
        let capabilities: Vec<_> = capabilities.collect();
        return invalid(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver,
            capabilities.join(" ")
        ));
    }
    for rule in asked.device_cgroup_rules.iter().flatten() {
        let _rule = devices::parse_rule(rule)?;
    }
    for limit in asked.ulimits.iter().flatten() {
        if limit.soft > limit.hard && limit.hard != -1 {
            return invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            ));
        }
    }
    Ok(())
}

/// How many CPUs and memory nodes there may be.
const NUMBERS: usize = 8192;

/// Which numbers are in a list like `0-2,7`; however often it names one, this is all that it takes.
fn numbers(text: &str) -> Option<Vec<bool>> {
    let mut all = vec![false; NUMBERS];
    if text.is_empty() {
        return Some(all);
    }
    if text.split(',').count() > NUMBERS {
        return None;
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        all.get_mut(first..=last)?.fill(true);
    }
    Some(all)
}

/// Fills what is not said with the daemon's settings and Docker's.
pub fn fill(asked: &mut HostConfig, host: &Host, daemon: &Settings) {
    let live = daemon.live();
    let limits = &mut asked.resources;
    if limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory * 2;
    }
    if limits.memory_swappiness == Some(-1) {
        limits.memory_swappiness = None;
    }
    if limits.pids_limit.is_some_and(|limit| limit <= 0) {
        limits.pids_limit = None;
    }
    limits.oom_kill_disable = match (host.unified, limits.oom_kill_disable) {
        (true, _) => None,
        (false, asked) => Some(asked.unwrap_or(false)),
    };
    for (name, (soft, hard)) in &daemon.containers.ulimits {
        let own = limits.ulimits.get_or_insert_default();
        if !own.iter().any(|limit| limit.name == *name) {
            own.push(Ulimit { name: name.clone(), hard: *hard, soft: *soft });
        }
    }
    if asked.shm_size == 0 {
        asked.shm_size =
            i64::try_from(live.default_shm_size).ok().filter(|size| *size > 0).unwrap_or(SHM_SIZE);
    }
    let or =
        |given: &str, default: &str| if given.is_empty() { default.to_owned() } else { given.to_owned() };
    if asked.ipc_mode.is_empty() {
        asked.ipc_mode = or(&live.default_ipc_mode, "private");
    }
    if asked.cgroupns_mode.is_empty() {
        let default = if host.unified { "private" } else { "host" };
        let default = or(&live.default_cgroupns_mode, default);
        asked.cgroupns_mode = if asked.privileged && host.unified { "host".to_owned() } else { default };
    }
    if matches!(asked.network_mode.as_str(), "" | "default") {
        asked.network_mode = "bridge".to_owned();
    }
    if asked.restart_policy.name.is_empty() {
        asked.restart_policy.name = "no".to_owned();
    }
    if asked.runtime.is_empty() {
        asked.runtime = or(&live.default_runtime, super::needs::RUNTIME);
    }
    let log = logs::LogConfig {
        driver: asked.log_config.kind.clone(),
        options: asked.log_config.config.clone().unwrap_or_default(),
    };
    let log = log.over(&daemon.log_driver);
    asked.log_config.kind = or(&log.driver, "json-file");
    asked.log_config.config = Some(log.options);
    if asked.privileged {
        return;
    }
    if asked.masked_paths.is_none() {
        asked.masked_paths = Some(security::masked_paths(host));
    }
    if asked.readonly_paths.is_none() {
        asked.readonly_paths = Some(security::readonly_paths());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_bounded() {
        let of = |text: &str| -> Option<Vec<usize>> {
            let all = numbers(text)?.into_iter().enumerate();
            Some(all.filter_map(|(number, is_in)| is_in.then_some(number)).collect())
        };
        assert_eq!(of("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(of(""), Some(vec![]));
        for text in ["x", "2-1", "0,,1", "0,", "0-8192", "8192", "-1", "1-", &"0-8191,".repeat(NUMBERS + 1)] {
            assert_eq!(of(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}
