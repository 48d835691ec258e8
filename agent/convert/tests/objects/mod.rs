//! Objects as they must have been for dockerd to show what it showed: what users did not write comes from what was shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use ketch_cluster::objects::cluster::{ClusterNetworking, JoinTokens, RootCa, SecretBytes};
use ketch_cluster::objects::endpoint::VirtualIp;
use ketch_cluster::objects::network::{IpamConfig, NetworkAllocation, NetworkAttachment};
use ketch_cluster::objects::node::{
    CaKeyId, EngineDescription, ManagerStatus, NodeDescription, NodeState, NodeStatus, NodeTls, Platform,
};
use ketch_cluster::objects::service::{JobStatus, UpdateState, UpdateStatus};
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::objects::{
    Cluster, ClusterSpec, Driver, Endpoint, GenericResource, Meta, Network, NetworkSpec, Node, NodeSpec,
    PortConfig, Resources, Service, ServiceSpec, Task, TaskState, TaskStatus, Version,
};
use ketch_cluster::store::{Object, Snapshot, Store};
use ketch_cluster::time::Timestamp;
use ketch_cluster::token::UnlockKey;
use ketch_cluster::view::View;
use ketch_convert::cluster::{Authority, Local};
use ketch_convert::{endpoint, network, node, service, task};
use ketch_engine_api::swarm::{self, Map, TlsInfo};
use serde_json::Value;

use super::parsed;

/// A moment of this century.
pub(crate) fn moment(text: &str) -> Timestamp {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let is_leap = |year: u64| year.is_multiple_of(4);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = lengths[..month as usize - 1].iter().sum();
    let seconds =
        (years + months + day - 1) * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
    let fraction = text[19..].trim_matches(['.', 'Z']);
    Timestamp(seconds * 1_000_000_000 + format!("{fraction:0<9}").parse::<u64>().unwrap())
}

pub(crate) fn meta(meta: &swarm::Meta) -> Meta {
    Meta {
        version: Version(meta.version.index),
        created_at: moment(&meta.created_at),
        updated_at: moment(&meta.updated_at),
    }
}

pub(crate) fn service(view: &View<'_>, spec: ServiceSpec, shown: swarm::service::Service) -> Service {
    let previous = shown.previous_spec.map(|spec| service::spec_of(view, spec, None).unwrap());
    Service {
        id: shown.id.parse().unwrap(),
        meta: meta(&shown.meta),
        spec,
        spec_version: Version(0),
        previous_spec_version: previous.as_ref().map(|_| Version(0)),
        previous_spec: previous,
        endpoint: endpoint_of(shown.endpoint),
        update_status: shown.update_status.map(|status| update_status(&status)),
        job: shown.job_status.map(|job| JobStatus {
            iteration: job.job_iteration.index,
            last_execution: moment(&job.last_execution),
            schedule: None,
        }),
        replicas_changed_at: None,
    }
}

fn endpoint_of(shown: swarm::endpoint::Endpoint) -> Endpoint {
    let virtual_ip = |ip: swarm::endpoint::VirtualIp| VirtualIp {
        network: ip.network_id.parse().unwrap(),
        addresses: vec![ip.addr.parse().unwrap()],
    };
    Endpoint {
        spec: endpoint::spec_of(shown.spec).unwrap(),
        ports: ports(shown.ports),
        virtual_ips: shown.virtual_ips.into_iter().flatten().map(virtual_ip).collect(),
    }
}

fn ports(ports: Option<Vec<swarm::endpoint::PortConfig>>) -> Vec<PortConfig> {
    endpoint::spec_of(swarm::endpoint::EndpointSpec { ports, ..Default::default() }).unwrap().ports
}

fn update_status(shown: &swarm::service::UpdateStatus) -> UpdateStatus {
    UpdateStatus {
        state: match shown.state.as_str() {
            "completed" => UpdateState::Completed,
            "rollback_completed" => UpdateState::RollbackCompleted,
            other => panic!("{other}"),
        },
        started_at: moment(shown.started_at.as_ref().unwrap()),
        completed_at: shown.completed_at.as_deref().map(moment),
        message: shown.message.clone(),
        slots: 0,
        failed_before: 0,
    }
}

pub(crate) fn task(view: &View<'_>, shown: swarm::task::Task) -> Task {
    let attachment = |it: &swarm::network::Attachment| NetworkAttachment {
        network: it.network.id.parse().unwrap(),
        addresses: it.addresses.iter().flatten().map(|it| it.parse().unwrap()).collect(),
        aliases: Vec::new(),
        driver_options: Map::new(),
    };
    Task {
        meta: meta(&shown.meta),
        service: Some(shown.service_id.parse().unwrap()),
        slot: shown.slot,
        node: Some(shown.node_id).filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()),
        name: "not shown".into(),
        labels: shown.annotations.labels.unwrap_or_default(),
        status: status(shown.status),
        desired_state: state(&shown.desired_state),
        networks: shown.networks_attachments.iter().flatten().map(attachment).collect(),
        generic_resources: generic(shown.generic_resources),
        job_iteration: shown.job_iteration.map(|it| it.index),
        ..Task::new(shown.id.parse().unwrap(), Arc::new(task::spec_of(view, shown.spec).unwrap()))
    }
}

fn status(shown: swarm::task::TaskStatus) -> TaskStatus {
    TaskStatus {
        state: state(&shown.state),
        since: moment(&shown.timestamp),
        running_since: None,
        message: shown.message.into(),
        error: shown.err.into(),
        container: shown.container_status.map(|it| ContainerStatus {
            id: it.container_id,
            pid: it.pid.try_into().unwrap(),
            exit_code: it.exit_code.try_into().unwrap(),
        }),
        ports: ports(shown.port_status.ports),
    }
}

/// The store's names of states are those that are shown.
fn state(name: &str) -> TaskState {
    serde_json::from_value(Value::String(name.to_owned())).unwrap()
}

fn generic(shown: Option<Vec<swarm::task::GenericResource>>) -> Vec<GenericResource> {
    let mut all = Vec::<GenericResource>::new();
    for resource in shown.into_iter().flatten() {
        match (resource.named_resource_spec, resource.discrete_resource_spec) {
            (Some(named), None) => match all.iter_mut().find(|it| it.kind() == named.kind) {
                Some(GenericResource::Named { values, .. }) => {
                    values.insert(named.value);
                }
                _ => all.push(GenericResource::Named { kind: named.kind, values: [named.value].into() }),
            },
            (None, Some(it)) => {
                all.push(GenericResource::Count { kind: it.kind, amount: it.value.try_into().unwrap() });
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

/// Of a request, with what it was given.
pub(crate) fn network_of_case(case: &Value) -> Network {
    let shown = &case["shown"];
    let created = moment(shown["Created"].as_str().unwrap());
    let pools = parsed::<Option<Vec<ketch_engine_api::network::IpamConfig>>>(&shown["IPAM"]["Config"]);
    let pool = |it: ketch_engine_api::network::IpamConfig| IpamConfig {
        subnet: it.subnet.parse().ok(),
        range: it.ip_range.parse().ok(),
        gateway: it.gateway.parse().ok(),
        reserved: Default::default(),
    };
    Network {
        id: shown["Id"].as_str().unwrap().parse().unwrap(),
        meta: Meta { version: Version(0), created_at: created, updated_at: created },
        spec: network::spec_of(parsed(&case["sent"])).unwrap(),
        allocation: pools.map(|pools| NetworkAllocation {
            vni: vni(&parsed(&shown["Options"])),
            pools: pools.into_iter().map(pool).collect(),
        }),
        pending_delete: false,
    }
}

fn vni(options: &Map) -> Option<u32> {
    options.get("com.docker.network.driver.overlay.vxlanid_list").map(|vni| vni.parse().unwrap())
}

/// Those that tasks are shown with.
pub(crate) fn networks_of_tasks(tasks: &Value) -> Vec<Network> {
    let tasks: Vec<swarm::task::Task> = parsed(tasks);
    let attachments = tasks.into_iter().flat_map(|it| it.networks_attachments.unwrap_or_default());
    let mut networks: Vec<_> = attachments.map(|it| network_of(it.network)).collect();
    networks.sort_by_key(|network| network.id);
    networks.dedup_by_key(|network| network.id);
    networks
}

fn network_of(shown: swarm::network::Network) -> Network {
    let driver = |it: swarm::Driver| Driver { name: it.name, options: it.options.unwrap_or_default() };
    let asked = shown.spec.ipam_options.unwrap_or_default();
    let given = shown.ipam_options.unwrap();
    let pools = given.configs.into_iter().flatten().map(|it| IpamConfig {
        subnet: it.subnet.parse().ok(),
        range: it.range.parse().ok(),
        gateway: it.gateway.parse().ok(),
        reserved: Default::default(),
    });
    Network {
        id: shown.id.parse().unwrap(),
        meta: meta(&shown.meta),
        spec: NetworkSpec {
            name: shown.spec.annotations.name,
            labels: shown.spec.annotations.labels.unwrap_or_default(),
            driver: driver(shown.spec.driver_configuration.unwrap()),
            ipv6: shown.spec.ipv6_enabled,
            internal: shown.spec.internal,
            attachable: shown.spec.attachable,
            ingress: shown.spec.ingress,
            ipam_driver: driver(asked.driver),
            ipam: Vec::new(),
            config_from: None,
        },
        allocation: Some(NetworkAllocation {
            vni: vni(&shown.driver_state.options.unwrap()),
            pools: pools.collect(),
        }),
        pending_delete: false,
    }
}

/// The key identifier is not shown: any will do.
pub(crate) fn authority(shown: &TlsInfo) -> Authority {
    use base64::Engine as _;
    let decoded = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    Authority {
        id: CaKeyId([7; 20]),
        certificate: shown.trust_root.clone(),
        subject: decoded(&shown.cert_issuer_subject),
        public_key: decoded(&shown.cert_issuer_public_key),
    }
}

pub(crate) fn node(spec: NodeSpec, authority: &Authority, shown: swarm::node::Node) -> Node {
    let description = shown.description;
    let plugins = description.engine.plugins.into_iter().flatten();
    let resources = description.resources;
    Node {
        id: shown.id.parse().unwrap(),
        meta: meta(&shown.meta),
        role: spec.role,
        spec,
        description: Some(NodeDescription {
            hostname: description.hostname,
            platform: Platform {
                architecture: description.platform.architecture,
                os: description.platform.os,
            },
            resources: Resources {
                nano_cpus: resources.nano_cpus.try_into().unwrap(),
                memory_bytes: resources.memory_bytes.try_into().unwrap(),
                generic: generic(resources.generic_resources),
            },
            engine: EngineDescription {
                version: description.engine.engine_version,
                labels: description.engine.labels.unwrap_or_default(),
                plugins: plugins.map(|plugin| (plugin.kind, plugin.name)).collect(),
            },
            data_address: None,
            encryption: false,
            worn_key: None,
            tls: Some(NodeTls { issuer: authority.id, roots: BTreeSet::from([authority.id]) }),
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: shown.status.message,
            address: shown.status.addr,
            since: Timestamp::default(),
            flaps: 0,
        },
        manager: shown.manager_status.map(|it| ManagerStatus { raft_id: 1, address: it.addr }),
        attachments: Vec::new(),
    }
}

pub(crate) fn cluster(
    spec: ClusterSpec,
    key: &swarm::cluster::UnlockKey,
    shown: swarm::cluster::Swarm,
) -> Cluster {
    let info = shown.info;
    let pools = info.default_addr_pool.into_iter().flatten();
    Cluster {
        id: info.id.parse().unwrap(),
        meta: meta(&info.meta),
        spec,
        networking: ClusterNetworking {
            address_pools: pools.map(|pool| pool.parse().unwrap()).collect(),
            subnet_size: info.subnet_size.try_into().unwrap(),
            data_path_port: info.data_path_port.try_into().unwrap(),
        },
        root_ca: RootCa {
            certificate: info.tls_info.trust_root,
            join_tokens: JoinTokens { worker: shown.join_tokens.worker, manager: shown.join_tokens.manager },
            ..RootCa::default()
        },
        shut_out: Default::default(),
        unlock_key: key.unlock_key.parse::<UnlockKey>().ok().map(|key| SecretBytes(key.0.to_vec())),
        data_keys: Vec::new(),
    }
}

/// What a node knows of itself, and a store with its cluster and the one node.
pub(crate) fn local(shown: &swarm::cluster::LocalInfo, cluster: &Arc<Cluster>) -> (Local, Store) {
    let id = shown.node_id.parse().unwrap();
    let peer = |it: &swarm::cluster::Peer| (it.node_id.parse().unwrap(), it.addr.clone());
    let local = Local {
        node: Some(id),
        address: shown.node_addr.clone(),
        state: shown.local_node_state,
        error: shown.error.clone(),
        managers: shown.remote_managers.iter().flatten().map(peer).collect(),
    };
    let spec = swarm::node::NodeSpec {
        role: "manager".to_owned(),
        availability: "active".to_owned(),
        ..Default::default()
    };
    let node = Node {
        id,
        meta: Meta::default(),
        spec: node::spec_of(spec).unwrap(),
        description: None,
        status: NodeStatus::default(),
        role: Default::default(),
        manager: Some(ManagerStatus { raft_id: 1, address: String::new() }),
        attachments: Vec::new(),
    };
    let objects = vec![Object::Cluster(Arc::clone(cluster)), node.into()];
    (local, Store::of(Snapshot { version: Version(0), objects }))
}
