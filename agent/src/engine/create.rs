//! The making of a container: what the request and the image say, put together, checked, and remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_engine_api::container::{Config, CreateBody};
use ketch_engine_api::host_config::{HostConfig, Resources};
use ketch_engine_api::network::EndpointSettings;

use super::container::{Container, Record, State};
use super::lifecycle::{folder_of, make_folder};
use super::mounts::{self, Planned};
use super::task::OfTask;
use super::{image_config, name, validate};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::paths::clean;
use crate::random;
use crate::system::Cgroups;
use crate::timestamp::Timestamp;

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The container's id.
    pub id: String,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Makes a container; `name` is empty for one of the daemon's choice.
///
/// # Errors
/// No such image, a name that is taken, something that can't be meant: dockerd's texts.
pub async fn create(daemon: &Arc<Daemon>, name: &str, body: CreateBody) -> Result<Made> {
    make_of(daemon, name, body, Purpose::User).await
}

/// Makes the container of a task of a service.
///
/// # Errors
/// As [`create`].
pub(super) async fn create_for_task(
    daemon: &Arc<Daemon>,
    name: &str,
    body: CreateBody,
    task: OfTask,
) -> Result<Made> {
    make_of(daemon, name, body, Purpose::Task(task)).await
}

/// Makes the container of a build's step: it may have no image, which is an empty root.
///
/// # Errors
/// As [`create`].
pub async fn create_for_build(daemon: &Arc<Daemon>, body: CreateBody) -> Result<Made> {
    make_of(daemon, "", body, Purpose::Build).await
}

/// What a container is for.
#[derive(PartialEq)]
enum Purpose {
    User,
    /// There need not be an image.
    Build,
    Task(OfTask),
}

async fn make_of(daemon: &Arc<Daemon>, name: &str, body: CreateBody, purpose: Purpose) -> Result<Made> {
    let mut config = body.config;
    let mut host_config = body.placing.host_config.unwrap_or_default();
    let endpoints = body.placing.networking_config.unwrap_or_default().endpoints_config;
    validate::config(&config)?;
    // First: a value that is taken away may be any.
    let mut warnings = unsupported(&mut host_config.resources, &crate::system::cgroups());
    validate::host_config(&host_config, &daemon.engine.host)?;
    if daemon.ids.are_mapped() && host_config.userns_mode != "host" {
        validate::remapped(&host_config)?;
    }
    validate::network(&config, &host_config)?;
    let _known = daemon.runtime_binary(&host_config.runtime)?;
    if config.image.is_empty() && purpose != Purpose::Build {
        return Err(Error::invalid("no command specified"));
    }
    let asked_image = config.image.clone();
    let base = daemon.base(&asked_image)?;
    let name = if name.is_empty() { name } else { name::check(name)? };
    config = image_config::merge(config, &base.config)?;
    others(daemon, &host_config)?;
    warnings.extend(self::warnings(&host_config));
    validate::fill(&mut host_config, &daemon.engine.host, &daemon.config);
    super::lifecycle::log_of(&host_config).check()?;
    let id = random::id()?;
    let name = take_name(daemon, name, &id)?;
    let task = match purpose {
        Purpose::Task(task) => Some(task),
        Purpose::User | Purpose::Build => None,
    };
    let decided = Decided { id: id.clone(), name: name.clone(), config, host_config, endpoints, task };
    let made = make(daemon, &base.id, decided).await;
    if let Err(error) = made {
        daemon.engine.leave_name(&name, &id);
        let _none = daemon.release_root(&id).await;
        let _none = crate::removal::remove(&folder_of(daemon, &id));
        return Err(error);
    }
    Ok(Made { id, warnings })
}

fn take_name(daemon: &Daemon, name: &str, id: &str) -> Result<String> {
    if name.is_empty() {
        return name::random_name(|name| daemon.engine.take_name(name, id).is_ok());
    }
    daemon.engine.take_name(name, id)?;
    Ok(name.to_owned())
}

/// All that a container is made of.
struct Decided {
    id: String,
    name: String,
    config: Config,
    host_config: HostConfig,
    endpoints: BTreeMap<String, EndpointSettings>,
    task: Option<OfTask>,
}

async fn make(daemon: &Arc<Daemon>, image: &str, decided: Decided) -> Result<()> {
    let Decided { id, name, mut config, host_config, endpoints, task } = decided;
    // By its id: the name may be another image's since the settings were read.
    let base = daemon.prepare_root(image, &id).await?;
    if config.hostname.is_empty() {
        config.hostname = if host_config.network_mode == "host" || host_config.uts_mode == "host" {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            id[..12].to_owned()
        };
    }
    make_folder(&folder_of(daemon, &id), 0o710)?;
    let planned = plan(daemon, &config, &host_config)?;
    let (path, args) = image_config::command(&config);
    let mut record = Record {
        id,
        name,
        created: Timestamp::now(),
        path,
        args,
        image: base.id,
        config,
        host_config,
        endpoints,
        network: serde_json::Value::Null,
        mounts: planned,
        no_new_privileges: daemon.config.containers.no_new_privileges,
        state: State::default(),
        restart_count: 0,
        was_started: false,
        was_stopped: false,
        task,
    };
    daemon.hold_images(&mut record).await?;
    daemon.make_volumes(&mut record).await?;
    if let Err(error) = super::networking::plan(daemon, &mut record) {
        daemon.forget_volumes(&Container::new(record), true).await;
        return Err(error);
    }
    let container = Arc::new(Container::new(record));
    container.save(daemon).await?;
    daemon.engine.add(&container);
    container.publish(daemon, "create");
    Ok(())
}

/// All mounts: of other containers, of the request, of the image.
fn plan(daemon: &Daemon, config: &Config, host_config: &HostConfig) -> Result<Vec<Planned>> {
    let mut all = Vec::new();
    for text in host_config.volumes_from.iter().flatten() {
        let (other, rw) = mounts::volumes_from(text)?;
        // No 404, which clients take for the image's.
        let other = daemon.engine.find(other).map_err(|error| Error::invalid(error.message))?;
        for mut planned in other.read(|record| record.mounts.clone()) {
            planned.shown.rw &= rw.unwrap_or(true);
            planned.anonymous = false;
            all.retain(|one: &Planned| one.shown.destination != planned.shown.destination);
            all.push(planned);
        }
    }
    for planned in mounts::asked(host_config)? {
        let source = &planned.shown.source;
        if planned.shown.kind == "bind" && !planned.makes_source && !std::path::Path::new(source).exists() {
            return Err(Error::invalid(crate::compat::no_bind_source(source)));
        }
        all.retain(|one| one.shown.destination != planned.shown.destination);
        all.push(planned);
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        let planned = mounts::anonymous(path)?;
        let at = &planned.shown.destination;
        let taken = all.iter().any(|one| one.shown.destination == *at)
            || host_config.tmpfs.iter().flatten().any(|(path, _)| clean(path) == *at);
        if !taken {
            all.push(planned);
        }
    }
    Ok(all)
}

/// The containers whose namespaces and names it is to have are there. No 404, which clients take for the image's.
fn others(daemon: &Daemon, host_config: &HostConfig) -> Result<()> {
    let modes = [&host_config.ipc_mode, &host_config.pid_mode];
    for other in modes.iter().filter_map(|mode| mode.strip_prefix("container:")) {
        let _there = daemon.engine.find(other).map_err(|error| Error::invalid(error.message))?;
    }
    for link in host_config.links.iter().flatten() {
        let other = link.split(':').next().unwrap_or_default();
        let _there = daemon.engine.find(other).map_err(|error| {
            Error::invalid(format!("could not get container for {other}: {}", error.message))
        })?;
    }
    Ok(())
}

/// Takes away limits that this kernel can't hold, and says so.
pub(super) fn unsupported(limits: &mut Resources, kernel: &Cgroups) -> Vec<String> {
    let mut all = Vec::new();
    let mut take = |is_there: bool, is_asked: bool, what: &str, end: &str| {
        let gone = is_asked && !is_there;
        if gone {
            all.push(format!("Your kernel does not support {what} or the cgroup is not mounted. {end}"));
        }
        gone
    };
    if take(kernel.io_weight, limits.blkio_weight != 0, "Block I/O weight", "Weight discarded.") {
        limits.blkio_weight = 0;
    }
    let has_weights = limits.blkio_weight_device.as_ref().is_some_and(|all| !all.is_empty());
    if take(kernel.io_weight, has_weights, "Block I/O weight_device", "Weight-device discarded.") {
        limits.blkio_weight_device = Some(Vec::new());
    }
    if take(kernel.memory, limits.memory > 0, "memory limit capabilities", "Limitation discarded.") {
        (limits.memory, limits.memory_swap) = (0, -1);
    }
    if take(
        kernel.pids,
        limits.pids_limit.is_some_and(|most| most > 0),
        "PIDs limit capabilities",
        "PIDs limit discarded.",
    ) {
        limits.pids_limit = None;
    }
    if take(kernel.cpu_shares, limits.cpu_shares > 0, "CPU shares", "Shares discarded.") {
        limits.cpu_shares = 0;
    }
    all
}

fn warnings(host_config: &HostConfig) -> Vec<String> {
    let mut all = Vec::new();
    // dockerd's, for each.
    let images = host_config.mounts.iter().flatten().filter(|one| one.kind == "image");
    all.extend(images.map(|_| "Image mount is an experimental feature".to_owned()));
    if host_config.network_mode == "host"
        && (host_config.publish_all_ports
            || host_config.port_bindings.as_ref().is_some_and(|all| !all.is_empty()))
    {
        all.push("Published ports are discarded when using host network mode".to_owned());
    }
    if host_config.resources.kernel_memory_tcp != 0 {
        all.push(
            "Specifying kernel memory TCP limit is deprecated and will be removed in a future release."
                .to_owned(),
        );
    }
    if host_config.resources.oom_kill_disable == Some(true) && host_config.resources.memory == 0 {
        all.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    all
}
