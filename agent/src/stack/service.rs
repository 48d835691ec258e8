//! One service of the file as the API's spec.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::parts::{self, Networks, labels};
use super::value::{Place, StackError, keys};
use super::{Around, IMAGE};

/// What `docker stack deploy` passes over in a service.
const PASSED_OVER: [&str; 19] = [
    "build",
    "container_name",
    "depends_on",
    "devices",
    "expose",
    "external_links",
    "links",
    "network_mode",
    "pid",
    "privileged",
    "restart",
    "security_opt",
    "cgroup_parent",
    "cgroupns_mode",
    "domainname",
    "ipc",
    "mac_address",
    "shm_size",
    "userns_mode",
];

/// What is understood.
const KNOWN: [&str; 32] = [
    "image",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "deploy",
    "ports",
    "networks",
    "secrets",
    "configs",
    "volumes",
    "labels",
    "healthcheck",
    "stop_grace_period",
    "stop_signal",
    "user",
    "working_dir",
    "hostname",
    "tty",
    "stdin_open",
    "read_only",
    "init",
    "cap_add",
    "cap_drop",
    "sysctls",
    "dns",
    "dns_search",
    "dns_opt",
    "extra_hosts",
    "logging",
    "ulimits",
    "tmpfs",
];

/// A spec that grows by what is given.
struct Spec(Map<String, Value>);

impl Spec {
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let _before = self.0.insert(key.to_owned(), value.into());
        }
    }
}

/// The body of `POST /services/create`. Secrets and configs have no ids in it, and networks names.
pub(super) fn read(
    stack: &str,
    service: &Place<'_>,
    root: &Place<'_>,
    networks: &Networks,
    around: &Around<'_>,
) -> Result<Value, StackError> {
    for key in keys(service)? {
        let is_passed = PASSED_OVER.contains(&key.as_str()) || key.starts_with("x-");
        if !(is_passed || KNOWN.contains(&key.as_str())) {
            return Err(service.at(&key).unknown());
        }
    }
    let deploy = service.at("deploy");
    let image = service.get("image").ok_or_else(|| service.wrong("needs an image"))?.text()?;
    let mut marked = labels(stack, deploy.get("labels").as_ref())?;
    let _none = marked.insert(IMAGE.to_owned(), image.clone());
    let mut task = Spec(Map::new());
    task.set("ContainerSpec", Some(container(stack, service, root, around, &image)?));
    task.set("Resources", Some(resources(&deploy)?));
    task.set("RestartPolicy", deploy.get("restart_policy").map(|it| restart(&it)).transpose()?);
    task.set("Placement", Some(placement(&deploy)?));
    task.set("Networks", Some(attachments(service, networks)?));
    task.set("LogDriver", service.get("logging").map(|it| logging(&it)).transpose()?);
    let mut spec = Spec(Map::new());
    spec.set("Name", Some(format!("{stack}_{}", service.key())));
    spec.set("Labels", Some(json!(marked)));
    spec.set("TaskTemplate", Some(task.0));
    spec.set("Mode", Some(mode(&deploy)?));
    spec.set("UpdateConfig", deploy.get("update_config").map(|it| update(&it)).transpose()?);
    spec.set("RollbackConfig", deploy.get("rollback_config").map(|it| update(&it)).transpose()?);
    spec.set("EndpointSpec", Some(endpoint(service, &deploy)?));
    Ok(Value::Object(spec.0))
}

fn text(place: &Place<'_>, key: &str) -> Result<Option<String>, StackError> {
    place.get(key).map(|it| it.text()).transpose()
}

fn truth(place: &Place<'_>, key: &str) -> Result<Option<bool>, StackError> {
    place.get(key).map(|it| it.truth()).transpose()
}

fn span(place: &Place<'_>, key: &str) -> Result<Option<i64>, StackError> {
    place.get(key).map(|it| it.span()).transpose()
}

fn number(place: &Place<'_>, key: &str) -> Result<Option<i64>, StackError> {
    place.get(key).map(|it| it.number()).transpose()
}

/// One text, or a list of them.
fn one_or_more(place: &Place<'_>, key: &str) -> Result<Option<Vec<String>>, StackError> {
    let Some(it) = place.get(key) else { return Ok(None) };
    if it.value.is_array() { it.texts().map(Some) } else { Ok(Some(vec![it.text()?])) }
}

fn container(
    stack: &str,
    service: &Place<'_>,
    root: &Place<'_>,
    around: &Around<'_>,
    image: &str,
) -> Result<Value, StackError> {
    let words = |key: &str| service.get(key).map(|it| it.words()).transpose();
    let mut spec = Spec(Map::new());
    spec.set("Image", Some(image));
    spec.set("Labels", Some(json!(labels(stack, service.get("labels").as_ref())?)));
    spec.set("Command", words("entrypoint")?);
    spec.set("Args", words("command")?);
    spec.set("Env", environment(service, around)?);
    for (key, name) in
        [("hostname", "Hostname"), ("working_dir", "Dir"), ("user", "User"), ("stop_signal", "StopSignal")]
    {
        spec.set(name, text(service, key)?);
    }
    for (key, name) in
        [("tty", "TTY"), ("stdin_open", "OpenStdin"), ("read_only", "ReadOnly"), ("init", "Init")]
    {
        spec.set(name, truth(service, key)?);
    }
    for (key, name) in [("cap_add", "CapabilityAdd"), ("cap_drop", "CapabilityDrop")] {
        spec.set(name, service.get(key).map(|it| it.texts()).transpose()?);
    }
    spec.set("StopGracePeriod", span(service, "stop_grace_period")?);
    spec.set("Healthcheck", service.get("healthcheck").map(|it| health(&it)).transpose()?);
    spec.set("Hosts", service.get("extra_hosts").map(|it| hosts(&it)).transpose()?);
    spec.set("Sysctls", service.get("sysctls").map(|it| map(&it)).transpose()?);
    spec.set("Ulimits", service.get("ulimits").map(|it| ulimits(&it)).transpose()?);
    spec.set("Mounts", mounts(stack, service, root)?);
    spec.set("Secrets", references(stack, service, root, "secrets")?);
    spec.set("Configs", references(stack, service, root, "configs")?);
    // As Docker's client sends it, with nothing in it.
    spec.set("Privileges", Some(json!({"CredentialSpec": null, "SELinuxContext": null})));
    let (servers, search) = (one_or_more(service, "dns")?, one_or_more(service, "dns_search")?);
    if servers.is_some() || search.is_some() {
        let options = one_or_more(service, "dns_opt")?;
        spec.set("DNSConfig", Some(json!({"Nameservers": servers, "Search": search, "Options": options})));
    }
    Ok(Value::Object(spec.0))
}

/// Sorted, as Docker's client sends it: of files, one after the other, and then of the service itself. What has no value is the
/// client's own variable.
fn environment(service: &Place<'_>, around: &Around<'_>) -> Result<Option<Vec<String>>, StackError> {
    let mut all = BTreeMap::new();
    for path in one_or_more(service, "env_file")?.unwrap_or_default() {
        all.extend(variables(&service.at("env_file"), &path, around)?);
    }
    let own = service.get("environment");
    all.extend(own.as_ref().map(Place::pairs).transpose()?.unwrap_or_default());
    let is_given = own.is_some() || !all.is_empty();
    let mut lines: Vec<_> = all
        .into_iter()
        .map(|(key, value)| match value.or_else(|| around.environment.get(&key).cloned()) {
            Some(value) => format!("{key}={value}"),
            None => key,
        })
        .collect();
    lines.sort();
    Ok(is_given.then_some(lines))
}

/// A file of `key=value` in lines, and of keys alone, for the client's own variables; what begins with # is a comment.
fn variables(
    place: &Place<'_>,
    path: &str,
    around: &Around<'_>,
) -> Result<Vec<(String, Option<String>)>, StackError> {
    let text = std::fs::read_to_string(around.folder.join(path)).map_err(|error| StackError::File {
        place: place.path(),
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let variable = |line: &str| match line.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => Some((line.to_owned(), around.environment.get(line)?.clone())),
    };
    Ok(lines.filter_map(variable).map(|(key, value)| (key, Some(value))).collect())
}

fn map(place: &Place<'_>) -> Result<Value, StackError> {
    let pairs = place.pairs()?.into_iter();
    Ok(Value::Object(pairs.map(|(key, value)| (key, value.unwrap_or_default().into())).collect()))
}

/// `name:address` or a map, as lines of a file of hosts.
fn hosts(place: &Place<'_>) -> Result<Vec<String>, StackError> {
    let mut lines = Vec::new();
    if place.value.is_array() {
        for text in place.texts()? {
            let (name, address) =
                text.split_once([':', '=']).ok_or_else(|| place.wrong("must be name:address"))?;
            lines.push(format!("{address} {name}"));
        }
    } else {
        lines.extend(
            place
                .pairs()?
                .into_iter()
                .map(|(name, address)| format!("{} {name}", address.unwrap_or_default())),
        );
    }
    lines.sort();
    Ok(lines)
}

fn health(place: &Place<'_>) -> Result<Value, StackError> {
    if truth(place, "disable")?.unwrap_or(false) {
        return Ok(json!({"Test": ["NONE"]}));
    }
    let test = place.get("test").map(|it| match it.value {
        Value::String(line) => Ok(vec!["CMD-SHELL".to_owned(), line.clone()]),
        _ => it.texts(),
    });
    let mut spec = Spec(Map::new());
    spec.set("Test", test.transpose()?);
    for (key, name) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        spec.set(name, span(place, key)?);
    }
    spec.set("Retries", number(place, "retries")?);
    Ok(Value::Object(spec.0))
}

fn ulimits(place: &Place<'_>) -> Result<Value, StackError> {
    let mut all = Vec::new();
    for key in keys(place)? {
        let limit = place.at(&key);
        let (soft, hard) = match limit.value {
            Value::Object(_) => (number(&limit, "soft")?, number(&limit, "hard")?),
            _ => (Some(limit.number()?), Some(limit.number()?)),
        };
        all.push(json!({"Name": key, "Soft": soft.unwrap_or(0), "Hard": hard.unwrap_or(0)}));
    }
    Ok(all.into())
}

/// `[source:]target[:ro]`, or a map.
fn mounts(stack: &str, service: &Place<'_>, root: &Place<'_>) -> Result<Option<Vec<Value>>, StackError> {
    let volumes = service.get("volumes").map(|it| it.items()).transpose()?.unwrap_or_default();
    let mut all = volumes.iter().map(|volume| mount(stack, volume, root)).collect::<Result<Vec<_>, _>>()?;
    for target in one_or_more(service, "tmpfs")?.unwrap_or_default() {
        all.push(json!({"Type": "tmpfs", "Target": target}));
    }
    Ok((!all.is_empty()).then_some(all))
}

fn mount(stack: &str, volume: &Place<'_>, root: &Place<'_>) -> Result<Value, StackError> {
    let (kind, source, target, is_read_only) = if let Value::String(line) = volume.value {
        let parts: Vec<_> = line.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [target] => ("", *target, ""),
            [source, target] => (*source, *target, ""),
            [source, target, mode] => (*source, *target, *mode),
            _ => return Err(volume.wrong("must be source:target:mode")),
        };
        let kind = if source.starts_with(['/', '.', '~']) { "bind" } else { "volume" };
        (kind.to_owned(), source.to_owned(), target.to_owned(), mode.split(',').any(|it| it == "ro"))
    } else {
        let part = |key| text(volume, key).map(Option::unwrap_or_default);
        let kind = volume.get("type").ok_or_else(|| volume.wrong("needs a type"))?.text()?;
        (kind, part("source")?, part("target")?, truth(volume, "read_only")?.unwrap_or(false))
    };
    let mut spec = Spec(Map::new());
    spec.set("Type", Some(kind.as_str()));
    spec.set("Target", Some(target));
    spec.set("ReadOnly", is_read_only.then_some(true));
    if kind == "volume" && !source.is_empty() {
        let declared = root.get("volumes").map(|it| it.at(&source));
        let declared = declared.ok_or_else(|| volume.wrong(&format!("undefined volume {source:?}")))?;
        spec.set("Source", Some(parts::name(stack, &declared)?));
        let driver = text(&declared, "driver")?;
        let mut options = Spec(Map::new());
        let is_external = declared.get("external").is_some_and(|it| *it.value != Value::Bool(false));
        let marked =
            if is_external { None } else { Some(json!(labels(stack, declared.get("labels").as_ref())?)) };
        options.set("Labels", marked);
        if driver.is_some() || declared.get("driver_opts").is_some() {
            let given = declared.get("driver_opts").map(|it| map(&it)).transpose()?;
            options.set("DriverConfig", Some(json!({"Name": driver.unwrap_or_default(), "Options": given})));
        }
        spec.set("VolumeOptions", Some(options.0));
    } else if !source.is_empty() {
        spec.set("Source", Some(source));
    }
    Ok(Value::Object(spec.0))
}

/// The service's secrets or configs, by the names of their objects.
fn references(
    stack: &str,
    service: &Place<'_>,
    root: &Place<'_>,
    kind: &str,
) -> Result<Option<Vec<Value>>, StackError> {
    let Some(given) = service.get(kind) else { return Ok(None) };
    let (name, folder) = if kind == "secrets" { ("SecretName", "") } else { ("ConfigName", "/") };
    let mut all = Vec::new();
    for it in given.items()? {
        let source = if it.value.is_object() { it.at("source").text()? } else { it.text()? };
        let declared = root.get(kind).filter(|parts| parts.value.get(&source).is_some());
        let declared = declared.ok_or_else(|| it.wrong(&format!("undefined {kind} {source:?}")))?.at(&source);
        let part = |key: &str, default: &str| {
            Ok::<_, StackError>(text(&it, key)?.unwrap_or_else(|| default.to_owned()))
        };
        let file = json!({
            "Name": part("target", &format!("{folder}{source}"))?,
            "UID": part("uid", "0")?,
            "GID": part("gid", "0")?,
            "Mode": number(&it, "mode")?.unwrap_or(0o444),
        });
        all.push(json!({name: parts::name(stack, &declared)?, "File": file}));
    }
    // In the order of names, as Docker's client sends them.
    all.sort_by_key(|it| it[name].as_str().unwrap_or_default().to_owned());
    Ok(Some(all))
}

fn resources(deploy: &Place<'_>) -> Result<Value, StackError> {
    let resources = deploy.at("resources");
    let mut spec = Spec(Map::new());
    for (key, name) in [("limits", "Limits"), ("reservations", "Reservations")] {
        let Some(given) = resources.get(key) else { continue };
        let mut part = Spec(Map::new());
        part.set("NanoCPUs", given.get("cpus").map(|it| it.cpus()).transpose()?);
        part.set("MemoryBytes", given.get("memory").map(|it| it.bytes()).transpose()?);
        part.set("Pids", number(&given, "pids")?);
        if let Some(generic) = given.get("generic_resources") {
            let kinds = generic.items()?.into_iter().map(|it| {
                let discrete = it.at("discrete_resource_spec");
                Ok(json!({"DiscreteResourceSpec": {"Kind": discrete.at("kind").text()?, "Value": discrete.at("value").number()?}}))
            });
            part.set("GenericResources", Some(kinds.collect::<Result<Vec<_>, StackError>>()?));
        }
        spec.set(name, Some(part.0));
    }
    Ok(Value::Object(spec.0))
}

fn restart(place: &Place<'_>) -> Result<Value, StackError> {
    let mut spec = Spec(Map::new());
    spec.set("Condition", text(place, "condition")?);
    spec.set("Delay", span(place, "delay")?);
    spec.set("MaxAttempts", number(place, "max_attempts")?);
    spec.set("Window", span(place, "window")?);
    Ok(Value::Object(spec.0))
}

fn placement(deploy: &Place<'_>) -> Result<Value, StackError> {
    let placement = deploy.at("placement");
    let mut spec = Spec(Map::new());
    spec.set("Constraints", placement.get("constraints").map(|it| it.texts()).transpose()?);
    let spread = placement.get("preferences").map(|it| it.items()).transpose()?;
    let spread = spread.map(|all| {
        let one = |it: Place<'_>| Ok(json!({"Spread": {"SpreadDescriptor": it.at("spread").text()?}}));
        all.into_iter().map(one).collect::<Result<Vec<_>, StackError>>()
    });
    spec.set("Preferences", spread.transpose()?);
    spec.set("MaxReplicas", number(&placement, "max_replicas_per_node")?);
    Ok(Value::Object(spec.0))
}

fn logging(place: &Place<'_>) -> Result<Value, StackError> {
    let options = place.get("options").map(|it| map(&it)).transpose()?;
    Ok(json!({"Name": text(place, "driver")?.unwrap_or_default(), "Options": options}))
}

fn mode(deploy: &Place<'_>) -> Result<Value, StackError> {
    let replicas = number(deploy, "replicas")?;
    match text(deploy, "mode")?.as_deref() {
        None | Some("replicated" | "") => Ok(json!({"Replicated": {"Replicas": replicas}})),
        Some("global") => Ok(json!({"Global": {}})),
        Some("replicated-job") => {
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": replicas, "TotalCompletions": replicas}}))
        }
        Some("global-job") => Ok(json!({"GlobalJob": {}})),
        Some(other) => Err(deploy.at("mode").wrong(&format!("unknown mode: {other}"))),
    }
}

fn update(place: &Place<'_>) -> Result<Value, StackError> {
    let mut spec = Spec(Map::new());
    spec.set("Parallelism", Some(number(place, "parallelism")?.unwrap_or(1)));
    spec.set("Delay", span(place, "delay")?);
    spec.set("Monitor", span(place, "monitor")?);
    spec.set("FailureAction", text(place, "failure_action")?);
    spec.set("Order", text(place, "order")?);
    let ratio = text(place, "max_failure_ratio")?;
    let ratio = ratio
        .map(|it| it.parse::<f64>().map_err(|_| place.at("max_failure_ratio").wrong("must be a number")));
    spec.set("MaxFailureRatio", ratio.transpose()?);
    Ok(Value::Object(spec.0))
}

fn attachments(service: &Place<'_>, networks: &Networks) -> Result<Value, StackError> {
    let given = service.get("networks");
    let names = match &given {
        Some(it) if it.value.is_array() => it.texts()?,
        Some(it) => keys(it)?,
        None => Vec::new(),
    };
    let names = if names.is_empty() { vec!["default".to_owned()] } else { names };
    let mut all = Vec::new();
    for key in names {
        let place = given.clone().unwrap_or_else(|| service.clone());
        let target = networks.name_of(&place, &key)?;
        let mut aliases = match given.as_ref().and_then(|it| it.get(&key)?.get("aliases")) {
            Some(aliases) => aliases.texts()?,
            None => Vec::new(),
        };
        if !["host", "none", "bridge"].contains(&target) {
            aliases.push(service.key().to_owned());
        }
        all.push(json!({"Target": target, "Aliases": aliases}));
    }
    all.sort_by_key(|it| it["Target"].as_str().unwrap_or_default().to_owned());
    Ok(all.into())
}

fn endpoint(service: &Place<'_>, deploy: &Place<'_>) -> Result<Value, StackError> {
    let mut ports = Vec::new();
    for port in service.get("ports").map(|it| it.items()).transpose()?.unwrap_or_default() {
        if port.value.is_object() {
            let mut spec = Spec(Map::new());
            spec.set("Protocol", text(&port, "protocol")?);
            spec.set("TargetPort", number(&port, "target")?);
            spec.set("PublishedPort", number(&port, "published")?);
            spec.set("PublishMode", text(&port, "mode")?);
            ports.push(Value::Object(spec.0));
        } else {
            ports.extend(short_ports(&port)?);
        }
    }
    ports.sort_by_key(|it| it["PublishedPort"].as_i64());
    let mut spec = Spec(Map::new());
    spec.set("Mode", text(deploy, "endpoint_mode")?);
    spec.set("Ports", (!ports.is_empty()).then_some(ports));
    Ok(Value::Object(spec.0))
}

/// `[published:]target[/protocol]`, each a port or a range.
fn short_ports(port: &Place<'_>) -> Result<Vec<Value>, StackError> {
    let line = port.text()?;
    let wrong = || port.wrong("must be published:target/protocol");
    let (numbers, protocol) = line.split_once('/').unwrap_or((&line, "tcp"));
    let range = |text: &str| -> Result<(u16, u16), StackError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        Ok((number(first)?, number(last)?))
    };
    let (published, target) = match numbers.rsplit_once(':') {
        // A host's address before them is passed over, as by Docker's client.
        Some((before, target)) => (Some(range(before.rsplit(':').next().unwrap_or(before))?), range(target)?),
        None => (None, range(numbers)?),
    };
    let of_target = target.0..=target.1;
    let of_published = published.map(|(first, last)| first..=last);
    if of_target.is_empty() || of_published.as_ref().is_some_and(|it| it.len() != of_target.len()) {
        return Err(wrong());
    }
    Ok(of_target
        .enumerate()
        .map(|(index, target)| {
            let published = of_published.as_ref().and_then(|it| it.clone().nth(index)).unwrap_or(0);
            json!({"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress"})
        })
        .collect())
}
