//! Every setting of the daemon: its flag, its key in `daemon.json`, what values it takes, and what ketchd does with it. The
//! names are dockerd's; `flags` and `daemon_json` read values by this table, `config` makes types of them.

use serde_json::{Map, Value, json};

use crate::size;

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; `--flag` alone is true.
    Flag,
    /// An integer.
    Number,
    /// Any text.
    Text,
    /// Bytes: a size with a letter, or a number.
    Bytes,
    /// One address.
    Ip,
    /// Texts, each given by a flag of its own.
    List,
    /// Addresses, of one flag or more, by comma or not.
    IpList,
    /// Where the API is served.
    Hosts,
    /// `key=value` texts.
    Labels,
    /// `key=value`, as an object.
    Map,
    /// Names that are on, or `name=false`.
    Features,
    /// `driver=key=value`.
    MapOfMaps,
    /// `name=path`.
    Runtimes,
    /// `name=soft[:hard]`.
    Ulimits,
    /// `base=CIDR,size=BITS`.
    Pools,
}

/// What ketchd does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It has its effect.
    Served,
    /// It is taken, and can't matter here.
    Accepted,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Behind `--`; empty: it is in the file only.
    pub flag: &'static str,
    /// Behind `-`.
    pub short: Option<char>,
    /// In the file.
    pub key: &'static str,
    /// Its values.
    pub kind: Kind,
    /// What is done.
    pub used: Use,
    /// For `--help`.
    pub help: &'static str,
}

const fn setting(flag: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { flag, short: None, key: flag, kind, used: Use::Served, help }
}

impl Setting {
    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    const fn accepted(mut self) -> Self {
        self.used = Use::Accepted;
        self
    }

    /// The setting of a flag.
    #[must_use]
    pub fn of_flag(flag: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.flag == flag && !flag.is_empty())
    }

    /// The setting of a key in the file.
    #[must_use]
    pub fn of_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Adds what a flag says to what other flags said before.
    ///
    /// # Errors
    /// What is wrong with it, in dockerd's words.
    pub fn add(&self, before: Option<Value>, text: &str) -> Result<Value, String> {
        let list = |item: Value| match before.clone() {
            Some(Value::Array(mut items)) => {
                items.push(item);
                Value::Array(items)
            }
            _ => Value::Array(vec![item]),
        };
        let object = |key: &str, value: Value| {
            let mut object = match before.clone() {
                Some(Value::Object(object)) => object,
                _ => Map::new(),
            };
            let _none = object.insert(key.to_owned(), value);
            Value::Object(object)
        };
        Ok(match self.kind {
            Kind::Flag => Value::Bool(boolean(text)?),
            Kind::Number => Value::from(
                text.parse::<i64>()
                    .map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))?,
            ),
            Kind::Text => Value::from(text),
            Kind::Bytes => Value::from(size::binary(text).map_err(|error| error.message)?),
            Kind::Ip => Value::from(ip(text).map_err(|text| format!("failed to parse IP: {text:?}"))?),
            Kind::List => list(Value::from(text)),
            Kind::Hosts => {
                crate::config::Host::parse(text, false)?;
                list(Value::from(text))
            }
            Kind::Labels if text.split_once('=').is_none_or(|(key, _)| key.is_empty()) => {
                return Err(format!("bad attribute format: {text}"));
            }
            Kind::Labels => list(Value::from(text)),
            Kind::IpList => {
                let mut all = match before {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                for part in text.split(',') {
                    let address = ip(part.trim())
                        .map_err(|text| format!("invalid string being converted to IP address: {text}"))?;
                    all.push(Value::from(address));
                }
                Value::Array(all)
            }
            Kind::Map => {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                object(key, Value::from(value))
            }
            Kind::Features => {
                let (key, value) = text.split_once('=').unwrap_or((text, "true"));
                object(key, Value::Bool(boolean(value)?))
            }
            Kind::MapOfMaps => {
                let wrong = || format!("invalid value '{text}', should be key=value");
                let (driver, option) = text.split_once('=').ok_or_else(wrong)?;
                let (key, value) = option.split_once('=').ok_or_else(wrong)?;
                let mut options = match before.as_ref().and_then(|all| all.get(driver)) {
                    Some(Value::Object(options)) => options.clone(),
                    _ => Map::new(),
                };
                let _none = options.insert(key.to_owned(), Value::from(value));
                object(driver, Value::Object(options))
            }
            Kind::Runtimes => {
                let (name, path) = text
                    .split_once('=')
                    .map(|(name, path)| (name.trim().to_lowercase(), path.trim()))
                    .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                    .ok_or_else(|| format!("invalid runtime argument: {text}"))?;
                if name == "runc" {
                    return Err(format!("runtime name '{name}' is reserved"));
                }
                object(&name, json!({ "path": path }))
            }
            Kind::Ulimits => {
                let (name, value) = ulimit(text)?;
                object(&name, value)
            }
            Kind::Pools => list(pool(text)?),
        })
    }
}

/// Go's `ParseBool`.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")),
    }
}

fn ip(text: &str) -> Result<String, &str> {
    text.parse::<std::net::IpAddr>().map(|address| address.to_string()).map_err(|_| text)
}

fn ulimit(text: &str) -> Result<(String, Value), String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok((name.to_owned(), json!({ "Name": name, "Hard": hard, "Soft": soft })))
}

fn pool(text: &str) -> Result<Value, String> {
    let (mut base, mut size) = (Value::Null, Value::Null);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "base" => base = Value::from(value),
            "size" => {
                let bits = value.parse::<u8>().map_err(|_| {
                    format!("invalid size value: {value} (must be integer): strconv.Atoi: parsing \"{value}\": invalid syntax")
                })?;
                size = Value::from(bits);
            }
            other => return Err(format!("unexpected key '{other}' in '{field}'")),
        }
    }
    Ok(json!({ "base": base, "size": size }))
}

use Kind::{
    Bytes, Features, Flag, Hosts, Ip, IpList, Labels, List, MapOfMaps, Number, Pools, Runtimes, Text, Ulimits,
};

/// All of them, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    setting("add-runtime", Runtimes, "A runtime that containers may ask for, as NAME=PATH").key("runtimes"),
    setting(
        "allow-direct-routing",
        Flag,
        "Let other machines reach published ports at containers' addresses",
    ),
    setting("authorization-plugin", List, "Not served: a daemon that is told to use one does not start")
        .key("authorization-plugins"),
    setting("bip", Text, "IPv4 address and subnet of the default bridge"),
    setting("bip6", Text, "IPv6 address and subnet of the default bridge"),
    setting("bridge", Text, "The interface of the default bridge, or none").short('b'),
    setting("cdi-spec-dir", List, "Folders of CDI specifications").key("cdi-spec-dirs").accepted(),
    setting("cgroup-parent", Text, "The cgroup below which containers are"),
    setting(
        "cluster-container-access",
        Flag,
        "Let users of the cluster's managers reach tasks' containers here: exec, logs, cp (default true)",
    ),
    setting(
        "cluster-layer-port",
        Number,
        "TCP port at which other nodes get layers from this one (default 7947)",
    ),
    setting(
        "cluster-layer-rate",
        Bytes,
        "Bytes of layers that other nodes get in a second (default: no limit)",
    ),
    setting(
        "cluster-layer-sharing",
        Flag,
        "Give layers to other nodes of the cluster that share them, and get them there before the registry",
    ),
    setting("cluster-layer-uploads", Number, "Pieces of layers that other nodes get at once (default 16)"),
    setting("containerd", Text, "Without effect: ketchd drives shims itself").accepted(),
    setting("containerd-namespace", Text, "Without effect").accepted(),
    setting("containerd-plugins-namespace", Text, "Without effect")
        .key("containerd-plugin-namespace")
        .accepted(),
    setting("cpu-rt-period", Number, "Without effect").accepted(),
    setting("cpu-rt-runtime", Number, "Without effect").accepted(),
    setting("cri-containerd", Flag, "Without effect").accepted(),
    setting("data-root", Text, "Where images, containers and volumes are kept"),
    setting("debug", Flag, "Say more in the log").short('D'),
    setting("default-address-pool", Pools, "Where networks get their subnets, as base=CIDR,size=BITS")
        .key("default-address-pools"),
    setting("default-cgroupns-mode", Text, "host or private"),
    setting("default-gateway", Ip, "IPv4 gateway of the default bridge"),
    setting("default-gateway-v6", Ip, "IPv6 gateway of the default bridge"),
    setting("default-ipc-mode", Text, "shareable or private"),
    setting("default-network-opt", MapOfMaps, "Options of new networks, as DRIVER=KEY=VALUE")
        .key("default-network-opts"),
    setting("default-runtime", Text, "The runtime of containers that ask for none"),
    setting("default-shm-size", Bytes, "Size of containers' /dev/shm"),
    setting("default-ulimit", Ulimits, "Limits of containers, as NAME=SOFT[:HARD]").key("default-ulimits"),
    setting("dns", IpList, "Servers for containers"),
    setting("dns-opt", List, "Resolver options for containers").key("dns-opts"),
    setting("dns-search", List, "Search domains for containers"),
    setting("exec-opt", List, "native.cgroupdriver=cgroupfs").key("exec-opts"),
    setting("exec-root", Text, "Where sockets and bundles are"),
    setting("experimental", Flag, "Serve checkpoints of containers, and tell clients of it"),
    setting("feature", Features, "Features that are on, or NAME=false").key("features"),
    setting("firewall-backend", Text, "nftables, which is the only one"),
    setting("fixed-cidr", Text, "The part of the default bridge's subnet that containers get"),
    setting("fixed-cidr-v6", Text, "The default bridge's IPv6 subnet"),
    setting("group", Text, "The group of the unix socket").short('G'),
    setting("host", Hosts, "Where the API is served: unix://PATH, tcp://ADDRESS:PORT, fd://")
        .short('H')
        .key("hosts"),
    setting("host-gateway-ip", IpList, "What host-gateway means in --add-host").key("host-gateway-ips"),
    setting("http-proxy", Text, "Proxy for registries"),
    setting("https-proxy", Text, "Proxy for registries"),
    setting("icc", Flag, "Let containers of the default bridge reach each other"),
    setting("init", Flag, "Run an init in containers"),
    setting("init-path", Text, "That init's binary"),
    setting(
        "insecure-registry",
        List,
        "Registries without TLS, or with certificates that nobody vouches for",
    )
    .key("insecure-registries"),
    setting("ip", Ip, "The address at which ports are published"),
    setting("ip-forward", Flag, "Make the machine forward"),
    setting("ip-forward-no-drop", Flag, "Forward for everybody where that was not so before"),
    setting("ip-masq", Flag, "Give what leaves the default bridge the machine's address"),
    setting("ip6tables", Flag, "Write rules for IPv6"),
    setting("iptables", Flag, "Write rules"),
    setting("ipv6", Flag, "IPv6 on the default bridge"),
    setting("label", Labels, "What /info says of this machine, as KEY=VALUE").key("labels"),
    setting(
        "live-restore",
        Flag,
        "Containers outlive the daemon (default true; false: they are stopped at its end)",
    ),
    setting("log-driver", Text, "Where containers' output goes"),
    setting("log-format", Text, "text or json"),
    setting("log-level", Text, "debug, info, warn, error or fatal").short('l'),
    setting("log-opt", Kind::Map, "Options of the log driver, as KEY=VALUE").key("log-opts"),
    setting("max-concurrent-downloads", Number, "Layers that one pull gets at once"),
    setting("max-concurrent-uploads", Number, "Layers that one push sends at once"),
    setting("max-download-attempts", Number, "How often a layer is tried"),
    setting("metrics-addr", Text, "Where Prometheus may ask, as ADDRESS:PORT"),
    setting("mtu", Number, "Of the default bridge"),
    setting("network-control-plane-mtu", Number, "Without effect").accepted(),
    setting("network-diagnostic-port", Number, "Without effect").accepted(),
    setting("no-new-privileges", Flag, "Containers' processes gain none"),
    setting("no-proxy", Text, "Hosts that are reached without the proxy"),
    setting("node-generic-resource", List, "Resources of this node, as NAME=VALUE")
        .key("node-generic-resources"),
    setting("pidfile", Text, "Where the daemon's process id is written").short('p'),
    setting("raw-logs", Flag, "Without effect: the log has no colours").accepted(),
    setting("registry-mirror", List, "Mirrors of Docker Hub").key("registry-mirrors"),
    setting("rootless", Flag, "Not served"),
    setting("seccomp-profile", Text, "A file, builtin or unconfined"),
    setting("selinux-enabled", Flag, "Not served"),
    setting("shutdown-timeout", Number, "How long the daemon's end may take, in seconds"),
    setting("storage-driver", Text, "overlay2").short('s'),
    setting("storage-opt", List, "Options of overlay2: none has an effect").key("storage-opts"),
    setting(
        "swarm-default-advertise-addr",
        Text,
        "Where this node is reached in swarm mode: an address or an interface",
    ),
    setting("tls", Flag, "TLS on tcp://"),
    setting("tlscacert", Text, "Whose certificates clients must have"),
    setting("tlscert", Text, "The daemon's certificate"),
    setting("tlskey", Text, "Its key"),
    setting("tlsverify", Flag, "TLS on tcp://, for clients with certificates only"),
    setting("userland-proxy", Flag, "Without effect: there is none").accepted(),
    setting("userland-proxy-path", Text, "Without effect").accepted(),
    setting("userns-remap", Text, "The user that containers' root is"),
    // In the file only.
    setting("", Text, "").key("default-init").accepted(),
    setting("", Text, "").key("resolv-conf").accepted(),
    setting("", Number, "").key("swarm-raft-heartbeat-tick").accepted(),
    setting("", Number, "").key("swarm-raft-election-tick").accepted(),
    setting("", Features, "").key("builder").accepted(),
    setting("", Text, "").key("deprecated-key-path").accepted(),
    setting("", List, "").key("allow-nondistributable-artifacts").accepted(),
    setting("", Ip, "").key("host-gateway-ip"),
    // ketch's own.
    setting("", Flag, "").key("ketch-restart-unhealthy"),
    setting("", Bytes, "").key("ketch-max-layer-size"),
    setting("", Number, "").key("ketch-max-layer-files"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn add(flag: &str, values: &[&str]) -> Result<Value, String> {
        let setting = Setting::of_flag(flag).unwrap();
        values.iter().try_fold(Value::Null, |before, text| setting.add(Some(before), text))
    }

    #[test]
    fn values_of_each_kind() {
        for (flag, values, wanted) in [
            ("debug", &["true"][..], json!(true)),
            ("mtu", &["1400"], json!(1400)),
            ("default-shm-size", &["64m"], json!(64 << 20)),
            ("label", &["a=b", "c=d"], json!(["a=b", "c=d"])),
            ("dns", &["1.1.1.1,::1", "8.8.8.8"], json!(["1.1.1.1", "::1", "8.8.8.8"])),
            ("log-opt", &["max-size=1m", "tag"], json!({ "max-size": "1m", "tag": "" })),
            ("feature", &["a", "b=false"], json!({ "a": true, "b": false })),
            (
                "default-network-opt",
                &["bridge=a=1", "bridge=b=2"],
                json!({ "bridge": { "a": "1", "b": "2" } }),
            ),
            ("add-runtime", &["crun=/bin/crun"], json!({ "crun": { "path": "/bin/crun" } })),
            (
                "default-ulimit",
                &["nofile=1:2"],
                json!({ "nofile": { "Name": "nofile", "Hard": 2, "Soft": 1 } }),
            ),
            (
                "default-address-pool",
                &["base=10.0.0.0/8,size=24"],
                json!([{ "base": "10.0.0.0/8", "size": 24 }]),
            ),
        ] {
            assert_eq!(add(flag, values), Ok(wanted), "{flag}");
        }
    }

    #[test]
    fn refusals_are_dockerds() {
        for (flag, value, text) in [
            ("debug", "maybe", "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ("mtu", "x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("label", "x", "bad attribute format: x"),
            ("dns", "x", "invalid string being converted to IP address: x"),
            ("default-address-pool", "x", "invalid field 'x' must be a key=value pair"),
            ("add-runtime", "x", "invalid runtime argument: x"),
            ("default-ulimit", "x", "invalid ulimit argument: x"),
            ("host", "foo://x", "invalid bind address (foo://x): unsupported proto 'foo'"),
        ] {
            assert_eq!(add(flag, &[value]), Err(text.to_owned()), "{flag}");
        }
    }

    #[test]
    fn names_are_had_once() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[index + 1..] {
                assert!(
                    setting.key != other.key && (setting.flag.is_empty() || setting.flag != other.flag),
                    "{}",
                    setting.key
                );
                assert!(setting.short.is_none() || setting.short != other.short, "{}", setting.flag);
            }
        }
    }
}
