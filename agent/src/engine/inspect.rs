//! What `inspect` shows of a container.

use ketch_engine_api::container::{Inspect, State as Shown};
use serde_json::{Value, json};

use super::container::{Container, Record, State};
use super::lifecycle::{folder_of, log_of};
use super::networking;
use super::security::Security;
use crate::daemon::Daemon;
use crate::logs;

/// A state as it is shown.
#[must_use]
pub fn state(state: &State) -> Shown {
    Shown {
        status: state.word(),
        running: state.running,
        paused: state.paused,
        restarting: state.restarting,
        oom_killed: state.oom_killed,
        dead: state.dead,
        pid: state.pid,
        exit_code: state.exit_code,
        error: error(state),
        started_at: state.started_at.to_string(),
        finished_at: state.finished_at.to_string(),
        health: state.health.clone(),
    }
}

/// Why it did not start; or why it was started again, where Docker would not have done it.
fn error(state: &State) -> String {
    if state.error.is_empty() && !state.restart_reason.is_empty() {
        return format!("restarted: the container was {}", state.restart_reason);
    }
    state.error.clone()
}

/// All of it; `size` asks for the two sizes.
pub fn inspect(daemon: &Daemon, container: &Container, size: bool) -> Inspect {
    let record = container.read(Record::clone);
    let folder = folder_of(daemon, &record.id);
    // Docker shows a path once the file is there.
    let path = |name: &str| {
        let path = folder.join(name);
        if record.was_started { path.to_string_lossy().into_owned() } else { String::new() }
    };
    let execs = daemon.engine.execs();
    let mut running: Vec<_> = execs
        .values()
        .filter(|exec| exec.container.id == record.id && exec.is_running())
        .map(|exec| exec.id.clone())
        .collect();
    drop(execs);
    running.sort();
    let log = logs::shown_path(&log_of(&record.host_config), &folder, &record.id);
    let sizes = size.then(|| daemon.sizes(&record));
    let network_settings = networking::shown(daemon, &record);
    // As dockerd: what is asked for, until the first start decides.
    let apparmor = Security::of(&record).ok().and_then(|security| match record.was_started {
        true => security.apparmor_profile(&record.host_config, &daemon.engine.host).map(str::to_owned),
        false => security.apparmor,
    });
    let mut host_config = record.host_config;
    // As dockerd: links of the default bridge; elsewhere they are the endpoint's.
    if !matches!(host_config.network_mode.as_str(), "default" | "bridge") {
        host_config.links = None;
    }
    Inspect {
        created: record.created.to_string(),
        path: record.path,
        args: record.args,
        state: state(&record.state),
        image: record.image,
        resolv_conf_path: path("resolv.conf"),
        hostname_path: path("hostname"),
        hosts_path: path("hosts"),
        log_path: log
            .filter(|_| record.was_started)
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        name: format!("/{}", record.name),
        restart_count: record.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: apparmor.unwrap_or_default(),
        exec_ids: if running.is_empty() { None } else { Some(running) },
        host_config,
        graph_driver: graph_driver(daemon, &record.id),
        size_rw: sizes.map(|(rw, _)| rw),
        size_root_fs: sizes.map(|(_, all)| all),
        mounts: record.mounts.into_iter().map(|planned| planned.shown).collect(),
        config: record.config,
        network_settings,
        id: record.id,
    }
}

/// Before 1.45 a container's short id and its host name were aliases of it in each network of the user's.
pub fn with_id_among_aliases(shown: &mut Inspect) {
    let own = [shown.id[..12].to_owned(), shown.config.hostname.clone()];
    let networks = shown.network_settings.get_mut("Networks").and_then(Value::as_object_mut);
    let is_users = |name: &String| !matches!(name.as_str(), "bridge" | "host" | "none" | "default");
    for (_, endpoint) in networks.into_iter().flatten().filter(|(name, _)| is_users(name)) {
        let aliases = &mut endpoint["Aliases"];
        if !aliases.is_array() {
            *aliases = json!([]);
        }
        let Some(aliases) = aliases.as_array_mut() else { continue };
        for name in &own {
            if !aliases.iter().any(|alias| alias == name) {
                aliases.push(json!(name));
            }
        }
    }
}

fn graph_driver(daemon: &Daemon, id: &str) -> Value {
    let Ok(rootfs) = daemon.images.rootfs(id) else { return json!({ "Data": null, "Name": "overlay2" }) };
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let lower: Vec<_> = rootfs.lower.iter().map(|path| text(path)).collect();
    let merged = daemon.config.exec_root.join(id).join("rootfs");
    json!({
        "Data": {
            "ID": id,
            "LowerDir": lower.join(":"),
            "MergedDir": text(&merged),
            "UpperDir": text(&rootfs.upper),
            "WorkDir": text(&rootfs.work),
        },
        "Name": "overlay2",
    })
}
