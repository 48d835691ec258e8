//! What a container asks of the network when it starts, and what it gets. Made by `engine`, read by [`super::join`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use ketch_engine_api::network::{EndpointSettings, NetworkSettings, PortMap};

use super::record::OfService;

/// Where a container's namespace is from (`HostConfig.NetworkMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The host's.
    Host,
    /// One with nothing.
    None,
    /// That of another, by its id or name as the user gave it.
    Container(String),
    /// Its own, in this network and what others it is connected to.
    Network(String),
}

impl Mode {
    /// Of its text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "" | "default" | "bridge" => Self::Network("bridge".to_owned()),
            "host" => Self::Host,
            "none" => Self::None,
            _ => match text.strip_prefix("container:") {
                Some(other) => Self::Container(other.to_owned()),
                None => Self::Network(text.to_owned()),
            },
        }
    }
}

/// A container that another knows by a name of its own, in the network `bridge`.
#[derive(Clone, Debug)]
pub struct LinkTo {
    /// The other's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// What it is called.
    pub alias: String,
}

/// What a container wants of the network.
#[derive(Clone, Debug)]
pub struct Join {
    /// The container's id.
    pub container: String,
    /// Its name, without a slash.
    pub name: String,
    /// Of its UTS namespace.
    pub hostname: String,
    /// The same; mostly empty.
    pub domain: String,
    /// Whose namespace; [`Mode::Container`] has the other's full id.
    pub mode: Mode,
    /// By network: name or id. The mode's is among them whether or not it is named.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Of a container that is no task, by the id of the cluster's network: the task that is its place there. Its addresses are what
    /// the endpoint asks for.
    pub places: BTreeMap<String, String>,
    /// Of a container that is a task of a service.
    pub service: Option<OfService>,
    /// `HostConfig.PortBindings`.
    pub bindings: PortMap,
    /// `Config.ExposedPorts`: `port/protocol`.
    pub exposed: Vec<String>,
    /// Every exposed port that has no binding gets one.
    pub publish_all: bool,
    /// Only in the network `bridge`.
    pub links: Vec<LinkTo>,
    /// `name:address`; the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// `HostConfig.Dns`.
    pub servers: Vec<String>,
    /// `HostConfig.DnsSearch`.
    pub search: Vec<String>,
    /// `HostConfig.DnsOptions`.
    pub options: Vec<String>,
    /// Where the container's files are written.
    pub folder: PathBuf,
    /// Whose they are, on the host.
    pub owner: (u32, u32),
    /// The namespace that it is to have, where it is made already: one that a user namespace owns.
    pub made: Option<PathBuf>,
}

/// How a running container is to come into a further network.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// In a network of the cluster with the addresses that managers gave.
    pub asked: EndpointSettings,
    /// As [`Join::places`] has it.
    pub place: Option<String>,
}

impl From<EndpointSettings> for Connect {
    fn from(asked: EndpointSettings) -> Self {
        Self { asked, place: None }
    }
}

/// What it got.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The file of its namespace; `None`: the host's.
    pub namespace: Option<PathBuf>,
    /// For its inspection.
    pub settings: NetworkSettings,
    /// To be bound to `/etc/hosts`.
    pub hosts: PathBuf,
    /// To be bound to `/etc/hostname`.
    pub hostname: PathBuf,
    /// To be bound to `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}
