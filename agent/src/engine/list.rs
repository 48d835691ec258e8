//! `GET /containers/json`: which containers, and what is shown of each.

use std::sync::Arc;

use ketch_engine_api::container::{Port, Summary, SummaryHostConfig, SummaryNetworks};
use serde_json::{Value, json};

use super::container::{Container, Record};
use crate::api::filters::Filters;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::timestamp::Timestamp;

/// The keys that a list's filters may have.
pub const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// What is asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Those that do not run, too.
    pub all: bool,
    /// So many of the newest, whether they run or not.
    pub limit: Option<usize>,
    /// With sizes.
    pub size: bool,
    /// Only those.
    pub filters: Filters,
}

const STATES: [&str; 7] = ["paused", "restarting", "removing", "running", "dead", "created", "exited"];

/// The newest first. With sizes it walks the disk: not for the event loop.
///
/// # Errors
/// A filter's value that can't be meant; a container that a filter names and that is not there.
pub fn list(daemon: &Arc<Daemon>, wanted: &Wanted) -> Result<Vec<Summary>> {
    let filters = &wanted.filters;
    for status in filters.values("status") {
        if !STATES.contains(&status) {
            return Err(Error::invalid(format!(
                "invalid filter 'status={status}': invalid value for state ({status}): must be one of created, running, paused, restarting, removing, exited, dead"
            )));
        }
    }
    for health in filters.values("health") {
        if !matches!(health, "starting" | "healthy" | "unhealthy" | "none") {
            return Err(Error::invalid(format!(
                "invalid filter 'health={health}': invalid value for health ({health}): must be one of none, starting, healthy, unhealthy"
            )));
        }
    }
    let mut exited = Vec::new();
    for code in filters.values("exited") {
        let number = code.parse::<i64>();
        exited.push(number.map_err(|_| {
            Error::invalid(format!(
                "invalid filter 'exited={code}': strconv.Atoi: parsing {code:?}: invalid syntax"
            ))
        })?);
    }
    let task = filters.flag("is-task")?;
    for key in ["publish", "expose"] {
        for port in filters.values(key) {
            let _range = port_range(port).map_err(|number| {
                let why = match number {
                    "" => format!("Invalid range specified for the Port: {port}"),
                    number => format!("strconv.ParseUint: parsing {number:?}: invalid syntax"),
                };
                Error::new(Kind::Internal, format!("error while looking up for {key} {port}: {why}"))
            })?;
        }
    }
    let names: Vec<_> = filters.values("name").map(name_matcher).collect();
    let created = |key: &str| -> Result<Option<Timestamp>> {
        let named = filters.values(key).next().map(|name| daemon.engine.find(name)).transpose()?;
        Ok(named.map(|container| container.read(|record| record.created)))
    };
    let (before, since) = (created("before")?, created("since")?);
    let ancestors: Vec<_> = filters
        .values("ancestor")
        .map(|name| daemon.base(name).map_or_else(|_| name.to_owned(), |base| base.id))
        .collect();
    let any_state =
        wanted.all || wanted.limit.is_some() || before.is_some() || since.is_some() || filters.has("status");
    let matches = |record: &Record| {
        let state = &record.state;
        let label = |name: &str| record.config.labels.as_ref()?.get(name).map(String::as_str);
        (any_state || state.running)
            && filters.any("status", |status| status == state.word())
            && filters.any("id", |id| record.id.starts_with(id))
            && (names.is_empty() || names.iter().any(|is_named| is_named(&record.name)))
            && filters.labels("label", label)
            && (!filters.has("label!") || !filters.labels("label!", label))
            && (exited.is_empty()
                || !state.running
                    && state.started_at != Timestamp::NEVER
                    && exited.contains(&state.exit_code))
            && before.is_none_or(|before| record.created < before)
            && since.is_none_or(|since| record.created > since)
            && (!filters.has("ancestor")
                || ancestors.iter().any(|id| *id == record.image || *id == record.config.image))
            && filters.any("health", |health| {
                state.health.as_ref().map_or("none", |health| health.status.as_str()) == health
            })
            && filters.any("volume", |volume| {
                record.mounts.iter().any(|one| one.shown.name == volume || one.shown.destination == volume)
            })
            && filters.any("network", |network| is_in(record, network))
            && filters.any("expose", |port| has_port(daemon, record, port, false))
            && filters.any("publish", |port| has_port(daemon, record, port, true))
            && task.is_none_or(|task| task == label("com.docker.swarm.task.id").is_some())
    };
    let mut found: Vec<Arc<Container>> =
        daemon.engine.all().into_iter().filter(|container| container.read(matches)).collect();
    found.sort_by_key(|container| std::cmp::Reverse(container.read(|record| record.created)));
    found.truncate(wanted.limit.unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let one = |container: &Arc<Container>| {
        if wanted.size {
            // The disk is walked for it, and others want the record meanwhile.
            summary(daemon, &container.read(Record::clone), now, true)
        } else {
            container.read(|record| summary(daemon, record, now, false))
        }
    };
    Ok(found.iter().map(one).collect())
}

/// A regular expression of a name, with its slash or without; what is none is a part of it.
fn name_matcher(wanted: &str) -> Box<dyn Fn(&str) -> bool> {
    match regex_lite::Regex::new(wanted) {
        Ok(expression) => {
            Box::new(move |name| expression.is_match(name) || expression.is_match(&format!("/{name}")))
        }
        Err(_) => {
            let wanted = wanted.to_owned();
            Box::new(move |name| name.contains(&wanted))
        }
    }
}

fn is_in(record: &Record, network: &str) -> bool {
    let networks = record.network.get("Networks").and_then(Value::as_object);
    networks.into_iter().flatten().any(|(name, endpoint)| name == network || endpoint["NetworkID"] == network)
        || record.host_config.network_mode == network
}

/// The ports of `80`, `80-90`, `80/udp`, and their protocol; or what of it is no number, nothing where they are the wrong way round.
fn port_range(text: &str) -> Result<(u16, u16, &str), &str> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = (first.parse().map_err(|_| first)?, last.parse().map_err(|_| last)?);
    if from > to { Err("") } else { Ok((from, to, protocol)) }
}

/// Whether the network has this port of the container, or of the host for it; it has none while the container does not run.
fn has_port(daemon: &Daemon, record: &Record, wanted: &str, published: bool) -> bool {
    let Ok((first, last, protocol)) = port_range(wanted) else { return false };
    let fits = |port: u16, of: &str| of == protocol && (first..=last).contains(&port);
    let network = super::networking::shown(daemon, record);
    ports(&network)
        .iter()
        .any(|port| fits(if published { port.public_port } else { port.private_port }, port.kind.as_str()))
}

fn summary(daemon: &Daemon, record: &Record, now: Timestamp, size: bool) -> Summary {
    let sizes = size.then(|| daemon.sizes(record));
    let command = std::iter::once(&record.path).chain(&record.args);
    let command: Vec<_> = command.map(|word| quoted(word)).collect();
    let network = super::networking::shown(daemon, record);
    Summary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: daemon.shown_image(&record.config.image, &record.image),
        image_id: record.image.clone(),
        command: command.join(" "),
        created: record.created.seconds(),
        ports: ports(&network),
        size_rw: sizes.map_or(0, |(rw, _)| rw),
        size_root_fs: sizes.map(|(_, all)| all),
        labels: record.config.labels.clone().unwrap_or_default(),
        state: record.state.word(),
        status: record.state.words(now),
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworks {
            networks: listed(network.get("Networks").cloned().unwrap_or_else(|| json!({}))),
        },
        mounts: record.mounts.iter().map(|planned| planned.shown.clone()).collect(),
    }
}

/// Endpoints in a list have only what the network gave them, and the addresses that were asked for.
fn listed(mut networks: Value) -> Value {
    for endpoint in networks.as_object_mut().into_iter().flatten().filter_map(|(_, one)| one.as_object_mut())
    {
        for field in ["Links", "Aliases", "DriverOpts", "DNSNames"] {
            let _shown = endpoint.insert(field.to_owned(), Value::Null);
        }
        if let Some(Value::Object(asked)) = endpoint.get_mut("IPAMConfig") {
            let _none = asked.remove("LinkLocalIPs");
        }
    }
    networks
}

/// A word with spaces is shown in quotes.
fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

/// Published ports, and those that are only exposed.
fn ports(network: &Value) -> Vec<Port> {
    let mut all = Vec::new();
    let shown = network.get("Ports").and_then(Value::as_object);
    for (port, bindings) in shown.into_iter().flatten() {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        let own = Port { private_port, kind: protocol.to_owned(), ..Port::default() };
        let bindings = bindings.as_array().map(Vec::as_slice).unwrap_or_default();
        if bindings.is_empty() {
            all.push(own.clone());
        }
        for binding in bindings {
            let public_port = binding["HostPort"].as_str().and_then(|port| port.parse().ok()).unwrap_or(0);
            let ip = binding["HostIp"].as_str().unwrap_or_default().to_owned();
            all.push(Port { ip, public_port, ..own.clone() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (wanted, is_it) in [
            ("web", true),
            ("^web", true),
            ("^/web_1$", true),
            ("^w[eo]b_[12]$", true),
            ("^web$", false),
            ("_2", false),
            ("web_1(", false),
        ] {
            assert_eq!(name_matcher(wanted)("web_1"), is_it, "{wanted}");
        }
    }
}
