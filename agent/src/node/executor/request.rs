//! A task as a request to the engine: what `docker run` would ask for, as Docker's swarm mode has it. Pure.

use std::collections::BTreeMap;

use ketch_cluster::objects::container::{AppArmorMode, HealthCheck, Privileges, SeccompMode};
use ketch_cluster::objects::endpoint::PublishMode;
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::resources::ResourceRequirements;
use ketch_cluster::objects::{ContainerSpec, GenericResource, PortConfig, Task};
use ketch_cluster::template::{Context, expand_container};
use ketch_engine_api::container::{Config, CreateBody, HealthConfig, NetworkingConfig, Placing};
use ketch_engine_api::host_config::{HostConfig, LogConfig, PortBinding, Resources, Ulimit};
use ketch_node::executor::Work;

use super::networks::{Known, Networking};
use super::{files, image, mounts};
use crate::compat;
use crate::engine::task::TaskFile;
use crate::network::overlay::read_labels;

/// In front of the labels that say whose task a container is.
const LABELS: &str = "com.docker.swarm";
/// In front of the variables that say what generic resources a task was given.
const RESOURCE: &str = "DOCKER_RESOURCE";

/// What the engine is asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    /// Also in the body.
    pub(super) image: String,
    pub(super) body: CreateBody,
    pub(super) files: Vec<TaskFile>,
    /// Networks that the node must have, by name or id, each with the name that users know it by.
    pub(super) networks: Vec<(String, String)>,
    /// Its service's, as far as networks read them.
    pub(super) labels: BTreeMap<String, String>,
}

impl Request {
    /// Of a task and all that it names; the error is why it can't run here.
    pub(super) fn of(work: &Work, node: &NodeDescription, known: &Known) -> Result<Self, String> {
        let task = &work.task;
        let spec = task.spec.container().ok_or(compat::NO_SUCH_RUNTIME)?;
        if spec.image.is_empty() {
            return Err(compat::NO_IMAGE_OF_TASK.to_owned());
        }
        let context = Context::of(task, node);
        let spec = expand_container(spec, &context).map_err(|error| error.to_string())?;
        let files = files::of(work, &spec, &context)?;
        let Networking { mode, endpoints, needed } = known.networking(task)?;
        let image = image::name_of(&spec.image);
        let host_config = HostConfig { network_mode: mode, ..host_config(task, &spec)? };
        let placing = Placing {
            host_config: Some(host_config),
            networking_config: Some(NetworkingConfig { endpoints_config: endpoints }),
        };
        let body = CreateBody { config: config(task, &spec, &image), placing };
        let labels = read_labels(&task.service_labels);
        Ok(Self { name: task.container_name(), image, body, files, networks: needed, labels })
    }
}

fn config(task: &Task, spec: &ContainerSpec, image: &str) -> Config {
    let mut config = Config {
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        exposed_ports: Some(host_ports(task).map(|port| (key_of(port), Default::default())).collect()),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: Some([spec.env.clone(), variables(&task.generic_resources)].concat()),
        healthcheck: spec.health_check.as_ref().map(health_check),
        image: image.to_owned(),
        working_dir: spec.dir.clone(),
        labels: Some(labels(task, spec)),
        stop_signal: spec.stop_signal.clone(),
        ..Config::default()
    };
    // Without a command the arguments are the image's entrypoint's.
    if !spec.command.is_empty() {
        config.entrypoint = Some(spec.command.clone());
        config.cmd = Some(spec.args.clone());
    } else if !spec.args.is_empty() {
        config.cmd = Some(spec.args.clone());
    }
    config
}

fn labels(task: &Task, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let text = |id: Option<String>| id.unwrap_or_default();
    let of_task = [
        ("task", String::new()),
        ("task.id", task.id.to_string()),
        ("task.name", task.container_name()),
        ("node.id", text(task.node.map(|id| id.to_string()))),
        ("service.id", text(task.service.map(|id| id.to_string()))),
        ("service.name", task.service_name.to_string()),
    ];
    let of_task = of_task.into_iter().map(|(key, value)| (format!("{LABELS}.{key}"), value));
    let of_user = spec.labels.iter().chain(&task.labels).map(|(key, value)| (key.clone(), value.clone()));
    of_user.chain(of_task).collect()
}

/// `DOCKER_RESOURCE_GPU=one,two`.
fn variables(given: &[GenericResource]) -> Vec<String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in given {
        let of_kind = values.entry(format!("{RESOURCE}_{}", resource.kind()).to_uppercase()).or_default();
        match resource {
            GenericResource::Count { amount, .. } => of_kind.push(amount.to_string()),
            GenericResource::Named { values, .. } => of_kind.extend(values.iter().cloned()),
        }
    }
    values.into_iter().map(|(name, values)| format!("{name}={}", values.join(","))).collect()
}

fn health_check(asked: &HealthCheck) -> HealthConfig {
    let nanos = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test: Some(asked.test.clone()).filter(|test| !test.is_empty()),
        interval: nanos(asked.interval),
        timeout: nanos(asked.timeout),
        start_period: nanos(asked.start_period),
        start_interval: nanos(asked.start_interval),
        retries: asked.retries.into(),
    }
}

fn host_config(task: &Task, spec: &ContainerSpec) -> Result<HostConfig, String> {
    let some = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
    let log = task.log_driver.clone().unwrap_or_default();
    Ok(HostConfig {
        log_config: LogConfig {
            config: Some(log.options).filter(|options| !options.is_empty()),
            kind: log.name,
        },
        port_bindings: Some(bindings(task)),
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        dns: some(&spec.dns.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>()),
        dns_options: some(&spec.dns.options),
        dns_search: some(&spec.dns.search),
        extra_hosts: some(&extra_hosts(&spec.hosts)),
        group_add: some(&spec.groups),
        oom_score_adj: i32::try_from(spec.oom_score_adj)
            .map_err(|_| format!("invalid OOM score adjustment: {}", spec.oom_score_adj))?,
        readonly_rootfs: spec.read_only,
        security_opt: some(&security(&spec.privileges)?),
        sysctls: Some(spec.sysctls.clone()).filter(|all| !all.is_empty()),
        resources: resources(&task.spec.resources, spec),
        mounts: Some(spec.mounts.iter().map(mounts::mount).collect::<Result<Vec<_>, _>>()?)
            .filter(|mounts| !mounts.is_empty()),
        // The only one there is, which dockerd names for tasks.
        isolation: "default".to_owned(),
        init: spec.init,
        ..HostConfig::default()
    })
}

/// `IP name [alias...]` of hosts(5) as `name:IP` of the engine.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        if let Some(address) = words.next() {
            all.extend(words.map(|name| format!("{name}:{address}")));
        }
    }
    all
}

fn security(asked: &Privileges) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    if let Some(selinux) = &asked.selinux {
        let parts = [
            ("user", &selinux.user),
            ("role", &selinux.role),
            ("type", &selinux.kind),
            ("level", &selinux.level),
        ];
        let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
        all.extend(parts.map(|(key, value)| format!("label={key}:{value}")));
        if selinux.disable {
            all.push("label=disable".to_owned());
        }
    }
    match &asked.seccomp {
        SeccompMode::Default => {}
        SeccompMode::Unconfined => all.push("seccomp=unconfined".to_owned()),
        SeccompMode::Custom(profile) => {
            let text = std::str::from_utf8(profile).map_err(|_| "the seccomp profile is no text")?;
            all.push(format!("seccomp={text}"));
        }
    }
    if asked.apparmor == AppArmorMode::Disabled {
        all.push("apparmor=unconfined".to_owned());
    }
    if asked.no_new_privileges {
        all.push("no-new-privileges=true".to_owned());
    }
    Ok(all)
}

/// Reservations are the scheduler's alone.
fn resources(asked: &ResourceRequirements, spec: &ContainerSpec) -> Resources {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let memory = number(asked.limits.memory_bytes);
    let ulimits = spec.ulimits.iter().map(|limit| Ulimit {
        name: limit.name.clone(),
        hard: limit.hard,
        soft: limit.soft,
    });
    Resources {
        memory,
        // The engine's is of memory and swap together.
        memory_swap: match asked.swap_bytes {
            Some(swap) if memory > 0 && swap >= 0 => memory.saturating_add(swap),
            Some(_) if memory > 0 => -1,
            _ => 0,
        },
        memory_swappiness: asked.memory_swappiness,
        nano_cpus: number(asked.limits.nano_cpus),
        pids_limit: Some(number(asked.limits.pids)).filter(|most| *most > 0),
        ulimits: Some(ulimits.collect::<Vec<_>>()).filter(|all| !all.is_empty()),
        ..Resources::default()
    }
}

/// The ports that are published on this node alone.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = &PortConfig> {
    let all = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    all.filter(|port| port.publish_mode == PublishMode::Host)
}

/// `80/tcp`.
pub(super) fn key_of(port: &PortConfig) -> String {
    format!("{}/{}", port.target_port, port.protocol.name())
}

fn bindings(task: &Task) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut all: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for port in host_ports(task) {
        let host_port = match port.published_port {
            0 => String::new(),
            port => port.to_string(),
        };
        let binding = PortBinding { host_ip: String::new(), host_port };
        all.entry(key_of(port)).or_default().get_or_insert_default().push(binding);
    }
    all
}

#[cfg(test)]
pub(super) mod tests;
