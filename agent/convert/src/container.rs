//! Containers of a service's tasks.

use ketch_cluster::control::texts;
use ketch_cluster::objects::Given;
use ketch_cluster::objects::container::{ContainerSpec, DnsConfig, HealthCheck, Ulimit};
use ketch_engine_api::swarm::container as api;

use crate::{Refusal, given, mount, privileges, reference, span};

/// # Errors
/// What no object can hold: a mount's type, a mode, an id or an address that there is not, a negative span.
pub fn spec_of(spec: api::ContainerSpec) -> Result<ContainerSpec, Refusal> {
    let mut container = ContainerSpec {
        image: spec.image,
        labels: spec.labels.unwrap_or_default(),
        command: spec.command.unwrap_or_default(),
        args: spec.args.unwrap_or_default(),
        hostname: spec.hostname,
        env: spec.env.unwrap_or_default(),
        dir: spec.dir,
        user: spec.user,
        groups: spec.groups.unwrap_or_default(),
        init: spec.init,
        stop_signal: spec.stop_signal,
        stop_grace_period: spec.stop_grace_period.map(span::of_at_least_zero),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        read_only: spec.read_only,
        mounts: spec.mounts.into_iter().flatten().map(mount::of).collect::<Result<_, _>>()?,
        health_check: spec.healthcheck.map(health_of).transpose()?,
        hosts: spec.hosts.unwrap_or_default(),
        secrets: reference::secrets_of(spec.secrets.unwrap_or_default())?,
        configs: reference::configs_of(spec.configs.unwrap_or_default())?,
        isolation: isolation_of(&spec.isolation).to_owned(),
        sysctls: spec.sysctls.unwrap_or_default(),
        cap_add: spec.capability_add.unwrap_or_default(),
        cap_drop: spec.capability_drop.unwrap_or_default(),
        ulimits: spec.ulimits.into_iter().flatten().map(ulimit_of).collect(),
        oom_score_adj: spec.oom_score_adj,
        ..ContainerSpec::default()
    };
    given::note(&mut container.given, Given::Dns, spec.dns_config.as_ref());
    container.dns = spec.dns_config.map(dns_of).transpose()?.unwrap_or_default();
    if let Some(privileges) = spec.privileges {
        privileges::read(privileges, &mut container)?;
    }
    Ok(container)
}

/// As dockerd: what it does not know is the default.
fn isolation_of(text: &str) -> &'static str {
    match text.to_ascii_lowercase().as_str() {
        "hyperv" => "hyperv",
        "process" => "process",
        _ => "",
    }
}

fn isolation_shown(isolation: &str) -> &str {
    if isolation.is_empty() { "default" } else { isolation }
}

fn health_of(health: api::HealthConfig) -> Result<HealthCheck, Refusal> {
    let span = |field, nanos| span::of(nanos).ok_or_else(|| texts::health_below_minimum(field));
    Ok(HealthCheck {
        test: health.test.unwrap_or_default(),
        interval: span("Interval", health.interval)?,
        timeout: span("Timeout", health.timeout)?,
        start_period: span("StartPeriod", health.start_period)?,
        start_interval: span("StartInterval", health.start_interval)?,
        retries: retries_of(health.retries)?,
    })
}

/// More than can be counted is the most.
fn retries_of(retries: i64) -> Result<u32, Refusal> {
    if retries < 0 {
        Err(texts::health_retries_negative())
    } else {
        Ok(u32::try_from(retries).unwrap_or(u32::MAX))
    }
}

fn dns_of(dns: api::DnsConfig) -> Result<DnsConfig, Refusal> {
    let address = |text: String| text.parse().map_err(|_| texts::conversion::nameserver(&text));
    Ok(DnsConfig {
        nameservers: dns.nameservers.into_iter().flatten().map(address).collect::<Result<_, _>>()?,
        search: dns.search.unwrap_or_default(),
        options: dns.options.unwrap_or_default(),
    })
}

fn ulimit_of(limit: api::Ulimit) -> Ulimit {
    Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard }
}

/// Without the registry's credentials.
#[must_use]
pub fn spec_shown(container: &ContainerSpec) -> api::ContainerSpec {
    api::ContainerSpec {
        image: container.image.clone(),
        labels: Some(container.labels.clone()),
        command: Some(container.command.clone()),
        args: Some(container.args.clone()),
        hostname: container.hostname.clone(),
        env: Some(container.env.clone()),
        dir: container.dir.clone(),
        user: container.user.clone(),
        groups: Some(container.groups.clone()),
        privileges: privileges::shown(container),
        init: container.init,
        stop_signal: container.stop_signal.clone(),
        tty: container.tty,
        open_stdin: container.open_stdin,
        read_only: container.read_only,
        mounts: Some(container.mounts.iter().map(mount::shown).collect()),
        stop_grace_period: container.stop_grace_period.map(span::shown),
        healthcheck: container.health_check.as_ref().map(health_shown),
        hosts: Some(container.hosts.clone()),
        dns_config: dns_shown(container),
        secrets: Some(container.secrets.iter().map(reference::secret_shown).collect()),
        configs: Some(container.configs.iter().map(reference::config_shown).collect()),
        isolation: isolation_shown(&container.isolation).to_owned(),
        sysctls: Some(container.sysctls.clone()),
        capability_add: Some(container.cap_add.clone()),
        capability_drop: Some(container.cap_drop.clone()),
        ulimits: Some(container.ulimits.iter().map(ulimit_shown).collect()),
        oom_score_adj: container.oom_score_adj,
    }
}

fn health_shown(health: &HealthCheck) -> api::HealthConfig {
    api::HealthConfig {
        test: Some(health.test.clone()),
        interval: span::shown(health.interval),
        timeout: span::shown(health.timeout),
        start_period: span::shown(health.start_period),
        start_interval: span::shown(health.start_interval),
        retries: health.retries.into(),
    }
}

fn dns_shown(container: &ContainerSpec) -> Option<api::DnsConfig> {
    let dns = &container.dns;
    let is_shown = container.given.contains(&Given::Dns) || *dns != DnsConfig::default();
    is_shown.then(|| api::DnsConfig {
        nameservers: Some(dns.nameservers.iter().map(ToString::to_string).collect()),
        search: Some(dns.search.clone()),
        options: Some(dns.options.clone()),
    })
}

fn ulimit_shown(limit: &Ulimit) -> api::Ulimit {
    api::Ulimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
}
