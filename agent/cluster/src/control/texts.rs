//! Every text by which a request is refused, one function each: what clients match is API, and in one place.
//!
//! Docker's words where Docker has any. `control` says them; the agent's conversion says those on negative numbers, which
//! the objects here can't hold.

use std::fmt::Display;

use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::label::Refusal;
use crate::store::{ObjectId, ObjectKind, StoreError};
use crate::token::JoinTokenError;

use super::error::{ControlError, ErrorKind, Speaker};

macro_rules! texts {
    ($($speaker:ident $kind:ident $name:ident($($argument:ident: $type:ty),*) $text:literal;)+) => {$(
        #[doc = concat!("`", $text, "`")]
        #[must_use]
        pub fn $name($($argument: $type),*) -> ControlError {
            ControlError::new(ErrorKind::$kind, Speaker::$speaker, format!($text))
        }
    )+};
}

pub mod conversion;

// Lookups, lists, the store.
texts! {
    Dockerd Unavailable no_swarm() "This node is not part of a swarm";
    Dockerd NotFound not_found(kind: ObjectKind, text: &str) "{kind} {text} not found";
    Dockerd NotFound nothing_to_explain(text: &str) "no such service, task or node: {text}";
    Dockerd InvalidArgument ambiguous(kind: ObjectKind, text: &str, matches: usize) "{kind} {text} is ambiguous ({matches} matches found)";
    Dockerd InvalidArgument filter_unknown(key: &str) "invalid filter '{key}'";
    Dockerd InvalidArgument filter_value(key: &str, value: &str) "Invalid {key} filter: '{value}'";
    SwarmKit OutOfSequence out_of_sequence() "update out of sequence";
    SwarmKit NotFound gone(id: &ObjectId) "{id} not found";
    SwarmKit Unknown store_refused(error: &StoreError) "{error}";
    Dockerd InvalidArgument too_large(kind: ObjectKind, size: usize, limit: usize) "{kind} spec is too large: it takes {size} bytes, and at most {limit} fit into the cluster's log";
}

// Names.
texts! {
    SwarmKit InvalidArgument name_missing() "meta: name must be provided";
    SwarmKit InvalidArgument name_no_dns_label() "name must be valid as a DNS name component";
    SwarmKit InvalidArgument name_too_long() "name must be 63 characters or fewer";
    SwarmKit InvalidArgument payload_name_missing() "name must be provided";
    SwarmKit InvalidArgument payload_name_invalid() "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    SwarmKit AlreadyExists service_exists(name: &str) "name conflicts with an existing object: service {name} already exists";
    SwarmKit AlreadyExists payload_exists(kind: ObjectKind, name: &str) "{kind} {name} already exists";
    Dockerd AlreadyExists network_exists(name: &str) "network with name {name} already exists";
}

// Tasks.
texts! {
    SwarmKit InvalidArgument cpu_below_minimum(cpus: &str) "invalid cpu value {cpus}: Must be at least 0.001";
    SwarmKit InvalidArgument memory_below_minimum(bytes: i128) "invalid memory value {bytes}: Must be at least 4MiB";
    SwarmKit InvalidArgument generic_not_a_count(kind: &str) "invalid argument for resource {kind}";
    Dockerd InvalidArgument swap_without_limit() "memory swap provided, but no memory-limit was set";
    Dockerd InvalidArgument swappiness_out_of_range(value: i64) "Invalid value: {value}, valid memory swappiness range is 0-100";
    SwarmKit InvalidArgument restart_delay_negative() "TaskSpec: restart-delay cannot be negative";
    SwarmKit InvalidArgument restart_window_negative() "TaskSpec: restart-window cannot be negative";
    Dockerd InvalidArgument constraints_too_many(most: usize, count: usize) "a service may have at most {most} placement constraints, and has {count}";
    Dockerd InvalidArgument preferences_too_many(most: usize, count: usize) "a service may have at most {most} placement preferences, and has {count}";
    SwarmKit Unknown constraint_invalid(reason: &dyn Display) "{reason}";
    SwarmKit InvalidArgument template_invalid(reason: &dyn Display) "{reason}";
    Dockerd InvalidArgument runtime_not_supported() "unsupported runtime";
}

// Containers.
texts! {
    SwarmKit InvalidArgument image_missing() "ContainerSpec: image reference must be provided";
    SwarmKit InvalidArgument image_invalid(image: &str) "ContainerSpec: {image:?} is not a valid repository/tag";
    SwarmKit InvalidArgument mount_point_duplicate(target: &str) "ContainerSpec: duplicate mount point: {target}";
    SwarmKit InvalidArgument health_below_minimum(field: &str) "ContainerSpec: {field} in HealthConfig cannot be less than 1ms";
    SwarmKit InvalidArgument health_retries_negative() "ContainerSpec: Retries in HealthConfig cannot be negative";
    SwarmKit InvalidArgument reference_malformed(kind: ObjectKind) "malformed {kind} reference";
    SwarmKit InvalidArgument reference_without_file_name(kind: ObjectKind) "malformed file {kind} reference, invalid target file name provided";
    SwarmKit InvalidArgument references_conflict(kind: ObjectKind, first: &str, second: &str, target: &str) "{kind} references '{first}' and '{second}' have a conflicting target: '{target}'";
    SwarmKit InvalidArgument reference_not_found(kind: ObjectKind, name: &str) "{kind} not found: {name}";
    SwarmKit InvalidArgument references_not_found(kind: ObjectKind, names: &str) "{kind}s not found: {names}";
}

// Services.
texts! {
    SwarmKit InvalidArgument replicas_negative() "Number of replicas must be non-negative";
    SwarmKit InvalidArgument max_concurrent_negative() "Maximum concurrent jobs must not be negative";
    SwarmKit InvalidArgument total_completions_negative() "Total completed jobs must not be negative";
    Dockerd InvalidArgument replicas_beyond_cluster(most: u64) "Number of replicas must be at most {most}";
    Dockerd InvalidArgument max_concurrent_beyond_cluster(most: u64) "Maximum concurrent jobs must be at most {most}";
    Dockerd InvalidArgument total_completions_beyond_cluster(most: u64) "Total completed jobs must be at most {most}";
    SwarmKit InvalidArgument job_with_update_config() "Jobs may not have an update config";
    SwarmKit InvalidArgument update_delay_negative() "TaskSpec: update-delay cannot be negative";
    SwarmKit InvalidArgument update_monitor_negative() "TaskSpec: update-monitor cannot be negative";
    SwarmKit InvalidArgument failure_ratio_out_of_range() "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1";
    SwarmKit InvalidArgument ingress_port_with_dnsrr() "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
    SwarmKit InvalidArgument published_port_duplicate() "EndpointSpec: duplicate published ports provided";
    SwarmKit InvalidArgument target_port_missing() "EndpointSpec: target port must be provided";
    Dockerd InvalidArgument port_of_the_cluster(port: u16, protocol: &str, who: &str) "port {port}/{protocol} can't be published: {who}";
    SwarmKit InvalidArgument port_in_use_by_host(port: u16, service: &str, id: ServiceId) "port '{port}' is already in use by service '{service}' ({id}) as a host-published port";
    SwarmKit InvalidArgument port_in_use_by_ingress(port: u16, service: &str, id: ServiceId) "port '{port}' is already in use by service '{service}' ({id}) as an ingress port";
    SwarmKit InvalidArgument attached_to_ingress(network: &str) "Service cannot be explicitly attached to the ingress network {network:?}";
    Dockerd InvalidArgument attached_twice(network: &str) "service is attached to network {network} more than once";
    Dockerd InvalidArgument label_refused(refusal: &Refusal) "{refusal}";
    SwarmKit FailedPrecondition ingress_missing() "service needs ingress network, but no ingress network is present";
    SwarmKit Unimplemented mode_change() "service mode change is not allowed";
    SwarmKit Unimplemented rename() "renaming services is not supported";
    SwarmKit FailedPrecondition no_previous_spec(service: ServiceId) "service {service} does not have a previous spec";
    Dockerd InvalidArgument no_previous_auth() "service does not have a previous spec";
}

// Secrets and configs.
texts! {
    SwarmKit InvalidArgument data_size(kind: ObjectKind, limit: usize) "{kind} data must be larger than 0 and less than {limit} bytes";
    SwarmKit InvalidArgument driver_without_name() "secret driver must have a name";
    SwarmKit InvalidArgument only_labels() "only updates to Labels are allowed";
    Dockerd InvalidArgument rotation_too_large(kind: ObjectKind, size: usize, limit: usize) "{kind} can't take the place of the one before it in all services that ask for that: it takes {size} bytes, and at most {limit} fit into an entry of the cluster's log";
    SwarmKit InvalidArgument payload_in_use_by_one(kind: ObjectKind, name: &str, service: &str) "{kind} '{name}' is in use by the following service: {service}";
    SwarmKit InvalidArgument payload_in_use(kind: ObjectKind, name: &str, services: &str) "{kind} '{name}' is in use by the following services: {services}";
}

// Networks.
texts! {
    Dockerd PermissionDenied network_predefined(name: &str) "{name} is a pre-defined network and cannot be created";
    SwarmKit PermissionDenied predefined_label() "label com.docker.swarm.predefined is for internally created predefined networks and cannot be applied by users";
    SwarmKit InvalidArgument ingress_attachable() "ingress network cannot be attachable";
    SwarmKit Unimplemented ingress_driver() "only overlay driver is currently supported for ingress network";
    Dockerd NotFound driver_not_found(driver: &str) "plugin {driver:?} not found";
    SwarmKit InvalidArgument ipam_driver_not_found(driver: &str) "error during lookup of plugin {driver}";
    SwarmKit AlreadyExists ingress_exists(id: NetworkId) "ingress network ({id}) is already present";
    SwarmKit InvalidArgument subnet_missing() "ipam configuration: invalid subnet ";
    SwarmKit InvalidArgument subnet_too_small(subnet: &dyn Display) "ipam configuration: subnet {subnet} is too small for a network";
    SwarmKit InvalidArgument subnet_without_range(subnet: &dyn Display, range: &dyn Display) "ipam configuration: subnet {subnet} does not contain range {range}";
    SwarmKit InvalidArgument subnet_without_gateway(subnet: &dyn Display, gateway: &dyn Display) "ipam configuration: subnet {subnet} does not contain gateway {gateway}";
    SwarmKit InvalidArgument subnet_without_reserved(subnet: &dyn Display, address: &dyn Display) "ipam configuration: subnet {subnet} does not contain reserved address {address}";
    SwarmKit InvalidArgument subnets_of_one_family() "ipam configuration: a network has at most one subnet of each address family";
    SwarmKit InvalidArgument subnet_overlaps() "invalid pool request: Pool overlaps with other one on this address space";
    SwarmKit FailedPrecondition network_in_use_by_service(network: NetworkId, service: ServiceId) "network {network} is in use by service {service}";
    SwarmKit FailedPrecondition network_in_use_by_task(network: NetworkId, task: TaskId) "network {network} is in use by task {task}";
    SwarmKit FailedPrecondition ingress_in_use(service: ServiceId) "ingress network cannot be removed because service {service} depends on it";
    SwarmKit FailedPrecondition predefined_not_removable(network: NetworkId, name: &str) "network {network} ({name}) is a swarm predefined network and cannot be removed";
    SwarmKit NotFound network_to_attach_not_found(network: &str) "network {network} not found";
    SwarmKit PermissionDenied network_not_attachable(network: &str) "network {network} not manually attachable";
    SwarmKit FailedPrecondition too_many_attachments(most: usize) "containers of this node have {most} places in networks of the cluster, as many as a node may have";
    SwarmKit NotFound attachment_not_found(task: TaskId) "attachment {task} not found";
    SwarmKit PermissionDenied attachment_of_another_node(task: TaskId) "attachment {task} doesn't belong to this node";
}

// Nodes and the cluster.
texts! {
    SwarmKit FailedPrecondition last_manager() "attempting to demote the last manager of the swarm";
    SwarmKit NotFound manager_not_in_raft() "can't find manager in raft memberlist";
    SwarmKit FailedPrecondition quorum_would_be_lost() "can't remove member from the raft: this would result in a loss of quorum";
    SwarmKit FailedPrecondition node_is_manager(node: NodeId) "node {node} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal";
    SwarmKit FailedPrecondition node_not_down(node: NodeId) "node {node} is not down and can't be removed";
    Dockerd InvalidArgument cluster_renamed() "swarm spec must be named \"default\"";
    SwarmKit InvalidArgument certificate_expiry_too_short() "minimum certificate expiry time is: 1h0m0s";
    SwarmKit InvalidArgument heartbeat_negative() "heartbeat time period cannot be a negative duration";
    Dockerd InvalidArgument heartbeat_out_of_range() "heartbeat period must be from 100ms to 1h0m0s";
    Dockerd Unknown stored_token_unreadable(reason: &JoinTokenError) "the cluster's own join token can't be read: {reason}";
    Dockerd Unknown root_not_made(reason: &dyn Display) "the next root certificate can't be made: {reason}";
    SwarmKit InvalidArgument root_not_taken(reason: &dyn Display) "{reason}";
    SwarmKit InvalidArgument root_key_alone() "if a signing CA key is provided, the signing CA cert must also be provided";
    SwarmKit InvalidArgument root_certificate_alone() "there must be at least one valid, reachable external CA corresponding to the desired CA certificate";
    Dockerd InvalidArgument election_before_heartbeat() "election tick must be greater than heartbeat tick";
}

/// A name that another object of its kind has.
pub(super) fn name_conflict(kind: ObjectKind, name: &str) -> ControlError {
    match kind {
        ObjectKind::Service => service_exists(name),
        ObjectKind::Network => network_exists(name),
        _ => payload_exists(kind, name),
    }
}

#[cfg(test)]
mod tests;
