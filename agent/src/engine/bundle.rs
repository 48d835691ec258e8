//! A container's config.json: what Docker's engine would have a runtime do for this Config and HostConfig. Pure: what has to
//! be looked up (users, devices, paths of namespaces) is given.

use std::collections::HashMap;

use ketch_engine_api::container::Config;
use ketch_engine_api::host_config::HostConfig;
use serde_json::{Map, Value, json};

use super::host::Host;
use super::security::{DefaultSeccomp, Security};
use super::users::User;
use super::{caps, resources};
use crate::error::Result;

/// The version of the runtime specification that this speaks.
const VERSION: &str = "1.2.1";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a config.json is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The container's.
    pub config: &'a Config,
    /// The container's.
    pub host_config: &'a HostConfig,
    /// The machine.
    pub host: &'a Host,
    /// The container's, with the daemon's.
    pub security: &'a Security,
    /// The daemon's.
    pub seccomp: &'a DefaultSeccomp,
    /// The program and its words.
    pub args: Vec<String>,
    /// Whose the process is.
    pub user: &'a User,
    /// Where the cgroup is.
    pub cgroup: String,
    /// The root, mounted.
    pub root: String,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// The user's mounts and those of hosts, hostname, resolv.conf; already in the specification's form, in order.
    pub mounts: Vec<Value>,
    /// Where /dev/shm is, if not a fresh one.
    pub shm: Shm,
    /// `linux.devices`, and their rules.
    pub devices: Vec<Value>,
    /// More rules for devices.
    pub device_rules: Vec<Value>,
    /// Sets the propagation of the root, for mounts that are shared with the host.
    pub propagation: Option<&'static str>,
}

/// Where /dev/shm is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of the container.
    Own,
    /// A folder of the host.
    At(String),
    /// Nowhere.
    None,
}

/// Each kind: `None` for the host's, an empty path for a new one, a path for another's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Network.
    pub net: Option<String>,
    /// Processes.
    pub pid: Option<String>,
    /// System V and message queues.
    pub ipc: Option<String>,
    /// Host name.
    pub uts: Option<String>,
    /// Cgroups.
    pub cgroup: Option<String>,
    /// Users.
    pub user: Option<String>,
}

/// The environment: Docker's three variables under the container's own.
#[must_use]
pub fn environment(config: &Config, terminal: bool, more: &[String]) -> Vec<String> {
    let mut env = vec![Some(PATH.to_owned()), Some(format!("HOSTNAME={}", config.hostname))];
    let mut places = HashMap::from([("PATH", 0), ("HOSTNAME", 1)]);
    if terminal {
        let _none = places.insert("TERM", env.len());
        env.push(Some("TERM=xterm".to_owned()));
    }
    for variable in config.env.iter().flatten().chain(more) {
        let (key, value) =
            variable.split_once('=').map_or((variable.as_str(), None), |(key, v)| (key, Some(v)));
        match (places.get(key).copied(), value) {
            (Some(place), Some(_)) => env[place] = Some(variable.clone()),
            (None, Some(_)) => {
                let _none = places.insert(key, env.len());
                env.push(Some(variable.clone()));
            }
            // A name alone takes the variable away.
            (Some(place), None) => {
                let _place = places.remove(key);
                env[place] = None;
            }
            (None, None) => {}
        }
    }
    env.into_iter().flatten().collect()
}

/// The whole file.
///
/// # Errors
/// An option that can't be meant, a device that there is not.
pub fn config(input: &Input<'_>) -> Result<Value> {
    let (config, host_config) = (input.config, input.host_config);
    let capabilities = capabilities(host_config, input.host)?;
    let mut spec = json!({
        "ociVersion": VERSION,
        "process": process(input, &capabilities),
        "root": { "path": input.root, "readonly": host_config.readonly_rootfs },
        "mounts": mounts(input),
    });
    if input.namespaces.uts.as_deref() == Some("") {
        spec["hostname"] = config.hostname.clone().into();
        if !config.domainname.is_empty() {
            spec["domainname"] = config.domainname.clone().into();
        }
    }
    if let Some(annotations) = host_config.annotations.as_ref().filter(|all| !all.is_empty()) {
        spec["annotations"] = json!(annotations);
    }
    spec["linux"] = linux(input, &capabilities)?;
    Ok(spec)
}

/// The capabilities of a container's processes.
///
/// # Errors
/// One that there is not.
pub fn capabilities(host_config: &HostConfig, host: &Host) -> Result<Vec<&'static str>> {
    caps::set(
        host_config.cap_add.as_deref().unwrap_or_default(),
        host_config.cap_drop.as_deref().unwrap_or_default(),
        host_config.privileged,
        &host.capabilities,
    )
}

/// The capabilities of a process of this user: those who are not root begin without, but may get them by files.
#[must_use]
pub fn capability_sets(capabilities: &[&str], uid: u32) -> Value {
    if uid == 0 {
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities })
    } else {
        json!({ "bounding": capabilities })
    }
}

/// `process.user`.
#[must_use]
pub fn user(user: &User) -> Value {
    let mut fields = json!({ "uid": user.uid, "gid": user.gid });
    if !user.groups.is_empty() {
        fields["additionalGids"] = json!(user.groups);
    }
    fields
}

fn process(input: &Input<'_>, capabilities: &[&str]) -> Value {
    let (config, host_config) = (input.config, input.host_config);
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let mut process = json!({
        "terminal": config.tty,
        "user": user(input.user),
        "args": input.args,
        "env": environment(config, config.tty, &[]),
        "cwd": cwd,
        "capabilities": capability_sets(capabilities, input.user.uid),
        "noNewPrivileges": input.security.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj,
    });
    if config.tty && host_config.console_size != [0, 0] {
        let [height, width] = host_config.console_size;
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    let limits = limits(host_config, input.host);
    if !limits.is_empty() {
        process["rlimits"] = limits.into();
    }
    if let Some(profile) = input.security.apparmor_profile(host_config, input.host) {
        process["apparmorProfile"] = profile.into();
    }
    process
}

/// The resource limits of a container's processes: those that it asks for, and of open files what the daemon itself had once.
pub(super) fn limits(host_config: &HostConfig, host: &Host) -> Vec<Value> {
    let one = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "hard": hard, "soft": soft });
    let asked = host_config.resources.ulimits.iter().flatten();
    let mut all: Vec<Value> = asked
        .clone()
        .map(|asked| {
            let kind = format!("RLIMIT_{}", asked.name.to_ascii_uppercase());
            // -1 is no bound.
            one(&kind, asked.soft.cast_unsigned(), asked.hard.cast_unsigned())
        })
        .collect();
    if let Some((soft, hard)) = host.open_files
        && !asked.clone().any(|asked| asked.name.eq_ignore_ascii_case("nofile"))
    {
        all.push(one("RLIMIT_NOFILE", soft, hard));
    }
    all
}

/// The mounts that every container has, then the others: those of the user win.
fn mounts(input: &Input<'_>) -> Vec<Value> {
    let host_config = input.host_config;
    let privileged = host_config.privileged;
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let size = format!("size={}", host_config.shm_size);
    let sys: &[&str] =
        if privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let cgroup: &[&str] = if input.security.writable_cgroups.unwrap_or(privileged) {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["ro", "nosuid", "noexec", "nodev"]
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", sys),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
    ];
    let hosts_queues = input.namespaces.ipc.is_none();
    if hosts_queues && input.host.message_queues {
        all.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "rprivate"]));
    } else if !hosts_queues || input.namespaces.user.is_none() {
        all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    } // A user namespace may not mount the host's queues.
    match &input.shm {
        Shm::Own => {
            all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
        Shm::At(path) => all.push(mount("/dev/shm", "bind", path, &["rbind", "rprivate"])),
        Shm::None => {}
    }
    let theirs = |own: &Value| input.mounts.iter().any(|one| one["destination"] == own["destination"]);
    // A user's /dev takes what would be below it.
    let dev = input.mounts.iter().any(|one| one["destination"] == "/dev");
    all.retain(|own| {
        let below_dev = own["destination"].as_str().is_some_and(|at| at.starts_with("/dev/"));
        !(theirs(own) || dev && below_dev)
    });
    if host_config.readonly_rootfs {
        for own in &mut all {
            let is_kept = matches!(
                own["destination"].as_str(),
                Some("/proc" | "/dev/pts" | "/dev/shm" | "/dev/mqueue" | "/dev")
            );
            if let Some(options) = own["options"].as_array_mut().filter(|_| !is_kept)
                && !options.contains(&json!("ro"))
            {
                options.push(json!("ro"));
            }
        }
    }
    all.extend(input.mounts.iter().cloned());
    all
}

fn linux(input: &Input<'_>, capabilities: &[&str]) -> Result<Value> {
    let host_config = input.host_config;
    let mut limits = resources::limits(&host_config.resources)?;
    let _none = limits.insert("devices".to_owned(), device_rules(input).into());
    let mut linux = Map::new();
    let mut put = |key: &str, value: Value| drop(linux.insert(key.to_owned(), value));
    put("sysctl", json!(sysctls(input)));
    put("resources", limits.into());
    put("cgroupsPath", input.cgroup.clone().into());
    put("namespaces", namespaces(&input.namespaces).into());
    if !input.devices.is_empty() {
        put("devices", input.devices.clone().into());
    }
    let profile = input.security.seccomp_profile(host_config, input.seccomp, capabilities)?;
    if let Some(profile) = profile {
        put("seccomp", profile);
    }
    if let Some(propagation) = input.propagation {
        put("rootfsPropagation", propagation.into());
    }
    put("maskedPaths", json!(host_config.masked_paths.as_deref().unwrap_or_default()));
    put("readonlyPaths", json!(host_config.readonly_paths.as_deref().unwrap_or_default()));
    Ok(linux.into())
}

fn namespaces(namespaces: &Namespaces) -> Vec<Value> {
    let kinds = [
        ("network", &namespaces.net),
        ("uts", &namespaces.uts),
        ("pid", &namespaces.pid),
        ("ipc", &namespaces.ipc),
        ("cgroup", &namespaces.cgroup),
        ("user", &namespaces.user),
    ];
    let mut all = vec![json!({ "type": "mount" })];
    all.extend(kinds.into_iter().filter_map(|(kind, path)| match path.as_deref()? {
        "" => Some(json!({ "type": kind })),
        path => Some(json!({ "type": kind, "path": path })),
    }));
    all
}

fn device_rules(input: &Input<'_>) -> Vec<Value> {
    if input.host_config.privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let character = |major: u32, minor: u32, allow: bool| json!({ "allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(
        [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)].map(|(major, minor)| character(major, minor, true)),
    );
    rules.push(character(10, 229, false));
    rules.extend(input.device_rules.iter().cloned());
    rules
}

fn sysctls(input: &Input<'_>) -> Map<String, Value> {
    let mut all = Map::new();
    let joins_host = input.namespaces.net.is_none();
    if !joins_host && !input.host_config.network_mode.starts_with("container:") {
        let mut put = |key: &str, value: &str| drop(all.insert(key.to_owned(), value.into()));
        put("net.ipv4.ip_unprivileged_port_start", "0");
        // A user namespace has no such group.
        if input.namespaces.user.is_none() {
            put("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    for (key, value) in input.host_config.sysctls.iter().flatten() {
        let _default = all.insert(key.clone(), value.clone().into());
    }
    all
}

#[cfg(test)]
mod tests;
