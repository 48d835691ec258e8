//! `texts`, one case at a time.

use super::*;
use crate::id::SecretId;
use crate::objects::Version;
use crate::store::Store;

fn rpc(code: &str, text: &str) -> String {
    format!("rpc error: code = {code} desc = {text}")
}

fn invalid(text: &str) -> String {
    rpc("InvalidArgument", text)
}

/// Each function once, with its kind and every byte that the client sees.
#[test]
fn the_words_are_dockers() {
    use ErrorKind as Kind;
    let (service, network, node, task) = (ServiceId::of(1), NetworkId::of(2), NodeId::of(3), TaskId::of(4));
    let id = |number: u32| format!("{number:025}");
    let secret = ObjectKind::Secret;
    let table = [
        (no_swarm(), Kind::Unavailable, "This node is not part of a swarm".to_owned()),
        (not_found(ObjectKind::Service, "web"), Kind::NotFound, "service web not found".to_owned()),
        (
            ambiguous(ObjectKind::Node, "a", 2),
            Kind::InvalidArgument,
            "node a is ambiguous (2 matches found)".to_owned(),
        ),
        (filter_unknown("colour"), Kind::InvalidArgument, "invalid filter 'colour'".to_owned()),
        (filter_value("role", "x"), Kind::InvalidArgument, "Invalid role filter: 'x'".to_owned()),
        (out_of_sequence(), Kind::OutOfSequence, rpc("Unknown", "update out of sequence")),
        (gone(&service.into()), Kind::NotFound, rpc("NotFound", &format!("service {} not found", id(1)))),
        (
            store_refused(&StoreError::Exists(SecretId::of(5).into())),
            Kind::Unknown,
            rpc("Unknown", &format!("secret {} already exists", id(5))),
        ),
        (
            too_large(secret, 9, 8),
            Kind::InvalidArgument,
            "secret spec is too large: it takes 9 bytes, and at most 8 fit into the cluster's log".to_owned(),
        ),
        (name_missing(), Kind::InvalidArgument, invalid("meta: name must be provided")),
        (name_no_dns_label(), Kind::InvalidArgument, invalid("name must be valid as a DNS name component")),
        (name_too_long(), Kind::InvalidArgument, invalid("name must be 63 characters or fewer")),
        (payload_name_missing(), Kind::InvalidArgument, invalid("name must be provided")),
        (
            payload_name_invalid(),
            Kind::InvalidArgument,
            invalid(
                "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
            ),
        ),
        (
            service_exists("web"),
            Kind::AlreadyExists,
            rpc("AlreadyExists", "name conflicts with an existing object: service web already exists"),
        ),
        (
            payload_exists(secret, "key"),
            Kind::AlreadyExists,
            rpc("AlreadyExists", "secret key already exists"),
        ),
        (network_exists("net"), Kind::AlreadyExists, "network with name net already exists".to_owned()),
        (
            cpu_below_minimum("0.0005"),
            Kind::InvalidArgument,
            invalid("invalid cpu value 0.0005: Must be at least 0.001"),
        ),
        (
            memory_below_minimum(5),
            Kind::InvalidArgument,
            invalid("invalid memory value 5: Must be at least 4MiB"),
        ),
        (generic_not_a_count("GPU"), Kind::InvalidArgument, invalid("invalid argument for resource GPU")),
        (
            swap_without_limit(),
            Kind::InvalidArgument,
            "memory swap provided, but no memory-limit was set".to_owned(),
        ),
        (
            swappiness_out_of_range(101),
            Kind::InvalidArgument,
            "Invalid value: 101, valid memory swappiness range is 0-100".to_owned(),
        ),
        (
            restart_delay_negative(),
            Kind::InvalidArgument,
            invalid("TaskSpec: restart-delay cannot be negative"),
        ),
        (
            restart_window_negative(),
            Kind::InvalidArgument,
            invalid("TaskSpec: restart-window cannot be negative"),
        ),
        (constraint_invalid(&"key 'a' is invalid"), Kind::Unknown, rpc("Unknown", "key 'a' is invalid")),
        (template_invalid(&"template: x"), Kind::InvalidArgument, invalid("template: x")),
        (runtime_not_supported(), Kind::InvalidArgument, "unsupported runtime".to_owned()),
        (image_missing(), Kind::InvalidArgument, invalid("ContainerSpec: image reference must be provided")),
        (
            image_invalid("A"),
            Kind::InvalidArgument,
            invalid("ContainerSpec: \"A\" is not a valid repository/tag"),
        ),
        (
            mount_point_duplicate("/a"),
            Kind::InvalidArgument,
            invalid("ContainerSpec: duplicate mount point: /a"),
        ),
        (
            health_below_minimum("Timeout"),
            Kind::InvalidArgument,
            invalid("ContainerSpec: Timeout in HealthConfig cannot be less than 1ms"),
        ),
        (
            health_retries_negative(),
            Kind::InvalidArgument,
            invalid("ContainerSpec: Retries in HealthConfig cannot be negative"),
        ),
        (reference_malformed(secret), Kind::InvalidArgument, invalid("malformed secret reference")),
        (
            reference_without_file_name(secret),
            Kind::InvalidArgument,
            invalid("malformed file secret reference, invalid target file name provided"),
        ),
        (
            references_conflict(secret, "a", "b", "t"),
            Kind::InvalidArgument,
            invalid("secret references 'a' and 'b' have a conflicting target: 't'"),
        ),
        (reference_not_found(secret, "a"), Kind::InvalidArgument, invalid("secret not found: a")),
        (references_not_found(secret, "a, b"), Kind::InvalidArgument, invalid("secrets not found: a, b")),
        (replicas_negative(), Kind::InvalidArgument, invalid("Number of replicas must be non-negative")),
        (
            max_concurrent_negative(),
            Kind::InvalidArgument,
            invalid("Maximum concurrent jobs must not be negative"),
        ),
        (
            total_completions_negative(),
            Kind::InvalidArgument,
            invalid("Total completed jobs must not be negative"),
        ),
        (job_with_update_config(), Kind::InvalidArgument, invalid("Jobs may not have an update config")),
        (
            update_delay_negative(),
            Kind::InvalidArgument,
            invalid("TaskSpec: update-delay cannot be negative"),
        ),
        (
            update_monitor_negative(),
            Kind::InvalidArgument,
            invalid("TaskSpec: update-monitor cannot be negative"),
        ),
        (
            failure_ratio_out_of_range(),
            Kind::InvalidArgument,
            invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"),
        ),
        (
            ingress_port_with_dnsrr(),
            Kind::InvalidArgument,
            invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode"),
        ),
        (
            published_port_duplicate(),
            Kind::InvalidArgument,
            invalid("EndpointSpec: duplicate published ports provided"),
        ),
        (target_port_missing(), Kind::InvalidArgument, invalid("EndpointSpec: target port must be provided")),
        (
            port_in_use_by_host(80, "web", service),
            Kind::InvalidArgument,
            invalid(&format!(
                "port '80' is already in use by service 'web' ({}) as a host-published port",
                id(1)
            )),
        ),
        (
            port_in_use_by_ingress(80, "web", service),
            Kind::InvalidArgument,
            invalid(&format!("port '80' is already in use by service 'web' ({}) as an ingress port", id(1))),
        ),
        (
            attached_to_ingress("in"),
            Kind::InvalidArgument,
            invalid("Service cannot be explicitly attached to the ingress network \"in\""),
        ),
        (
            attached_twice("net"),
            Kind::InvalidArgument,
            "service is attached to network net more than once".to_owned(),
        ),
        (
            label_refused(&Refusal { label: "ketch.fence".to_owned(), reason: "x".to_owned() }),
            Kind::InvalidArgument,
            "label ketch.fence: x".to_owned(),
        ),
        (
            ingress_missing(),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", "service needs ingress network, but no ingress network is present"),
        ),
        (
            replicas_beyond_cluster(9),
            Kind::InvalidArgument,
            "Number of replicas must be at most 9".to_owned(),
        ),
        (
            max_concurrent_beyond_cluster(9),
            Kind::InvalidArgument,
            "Maximum concurrent jobs must be at most 9".to_owned(),
        ),
        (
            total_completions_beyond_cluster(9),
            Kind::InvalidArgument,
            "Total completed jobs must be at most 9".to_owned(),
        ),
        (
            constraints_too_many(1, 2),
            Kind::InvalidArgument,
            "a service may have at most 1 placement constraints, and has 2".to_owned(),
        ),
        (
            preferences_too_many(1, 2),
            Kind::InvalidArgument,
            "a service may have at most 1 placement preferences, and has 2".to_owned(),
        ),
        (
            heartbeat_out_of_range(),
            Kind::InvalidArgument,
            "heartbeat period must be from 100ms to 1h0m0s".to_owned(),
        ),
        (mode_change(), Kind::Unimplemented, rpc("Unimplemented", "service mode change is not allowed")),
        (rename(), Kind::Unimplemented, rpc("Unimplemented", "renaming services is not supported")),
        (
            no_previous_spec(service),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", &format!("service {} does not have a previous spec", id(1))),
        ),
        (no_previous_auth(), Kind::InvalidArgument, "service does not have a previous spec".to_owned()),
        (
            data_size(secret, 512_000),
            Kind::InvalidArgument,
            invalid("secret data must be larger than 0 and less than 512000 bytes"),
        ),
        (driver_without_name(), Kind::InvalidArgument, invalid("secret driver must have a name")),
        (only_labels(), Kind::InvalidArgument, invalid("only updates to Labels are allowed")),
        (
            rotation_too_large(ObjectKind::Secret, 9, 8),
            Kind::InvalidArgument,
            "secret can't take the place of the one before it in all services that ask for that: it takes 9 bytes, and at most 8 fit into an entry of the cluster's log".to_owned(),
        ),
        (
            payload_in_use_by_one(secret, "key", "web"),
            Kind::InvalidArgument,
            invalid("secret 'key' is in use by the following service: web"),
        ),
        (
            payload_in_use(secret, "key", "a, b"),
            Kind::InvalidArgument,
            invalid("secret 'key' is in use by the following services: a, b"),
        ),
        (
            network_predefined("host"),
            Kind::PermissionDenied,
            "host is a pre-defined network and cannot be created".to_owned(),
        ),
        (
            predefined_label(),
            Kind::PermissionDenied,
            rpc(
                "PermissionDenied",
                "label com.docker.swarm.predefined is for internally created predefined networks and cannot be applied by users",
            ),
        ),
        (ingress_attachable(), Kind::InvalidArgument, invalid("ingress network cannot be attachable")),
        (
            ingress_driver(),
            Kind::Unimplemented,
            rpc("Unimplemented", "only overlay driver is currently supported for ingress network"),
        ),
        (driver_not_found("weave"), Kind::NotFound, "plugin \"weave\" not found".to_owned()),
        (ipam_driver_not_found("dhcp"), Kind::InvalidArgument, invalid("error during lookup of plugin dhcp")),
        (
            ingress_exists(network),
            Kind::AlreadyExists,
            rpc("AlreadyExists", &format!("ingress network ({}) is already present", id(2))),
        ),
        (subnet_missing(), Kind::InvalidArgument, invalid("ipam configuration: invalid subnet ")),
        (
            subnet_too_small(&"10.0.0.0/31"),
            Kind::InvalidArgument,
            invalid("ipam configuration: subnet 10.0.0.0/31 is too small for a network"),
        ),
        (
            subnet_without_range(&"10.0.0.0/24", &"10.1.0.0/24"),
            Kind::InvalidArgument,
            invalid("ipam configuration: subnet 10.0.0.0/24 does not contain range 10.1.0.0/24"),
        ),
        (
            subnet_without_gateway(&"10.0.0.0/24", &"10.1.0.1"),
            Kind::InvalidArgument,
            invalid("ipam configuration: subnet 10.0.0.0/24 does not contain gateway 10.1.0.1"),
        ),
        (subnet_without_reserved(&"10.0.0.0/24", &"10.1.0.9"), Kind::InvalidArgument, invalid("ipam configuration: subnet 10.0.0.0/24 does not contain reserved address 10.1.0.9")),
        (
            subnets_of_one_family(),
            Kind::InvalidArgument,
            invalid("ipam configuration: a network has at most one subnet of each address family"),
        ),
        (
            subnet_overlaps(),
            Kind::InvalidArgument,
            invalid("invalid pool request: Pool overlaps with other one on this address space"),
        ),
        (
            network_in_use_by_service(network, service),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", &format!("network {} is in use by service {}", id(2), id(1))),
        ),
        (
            network_in_use_by_task(network, task),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", &format!("network {} is in use by task {}", id(2), id(4))),
        ),
        (
            ingress_in_use(service),
            Kind::FailedPrecondition,
            rpc(
                "FailedPrecondition",
                &format!("ingress network cannot be removed because service {} depends on it", id(1)),
            ),
        ),
        (
            predefined_not_removable(network, "host"),
            Kind::FailedPrecondition,
            rpc(
                "FailedPrecondition",
                &format!("network {} (host) is a swarm predefined network and cannot be removed", id(2)),
            ),
        ),
        (
            network_to_attach_not_found("net"),
            Kind::NotFound,
            rpc("NotFound", "network net not found"),
        ),
        (
            network_not_attachable("net"),
            Kind::PermissionDenied,
            rpc("PermissionDenied", "network net not manually attachable"),
        ),
        (
            too_many_attachments(1024),
            Kind::FailedPrecondition,
            rpc(
                "FailedPrecondition",
                "containers of this node have 1024 places in networks of the cluster, as many as a node may have",
            ),
        ),
        (
            attachment_not_found(task),
            Kind::NotFound,
            rpc("NotFound", &format!("attachment {} not found", id(4))),
        ),
        (
            attachment_of_another_node(task),
            Kind::PermissionDenied,
            rpc("PermissionDenied", &format!("attachment {} doesn't belong to this node", id(4))),
        ),
        (
            last_manager(),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", "attempting to demote the last manager of the swarm"),
        ),
        (manager_not_in_raft(), Kind::NotFound, rpc("NotFound", "can't find manager in raft memberlist")),
        (
            quorum_would_be_lost(),
            Kind::FailedPrecondition,
            rpc(
                "FailedPrecondition",
                "can't remove member from the raft: this would result in a loss of quorum",
            ),
        ),
        (
            node_is_manager(node),
            Kind::FailedPrecondition,
            rpc(
                "FailedPrecondition",
                &format!(
                    "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
                    id(3)
                ),
            ),
        ),
        (
            node_not_down(node),
            Kind::FailedPrecondition,
            rpc("FailedPrecondition", &format!("node {} is not down and can't be removed", id(3))),
        ),
        (cluster_renamed(), Kind::InvalidArgument, "swarm spec must be named \"default\"".to_owned()),
        (
            certificate_expiry_too_short(),
            Kind::InvalidArgument,
            invalid("minimum certificate expiry time is: 1h0m0s"),
        ),
        (
            heartbeat_negative(),
            Kind::InvalidArgument,
            invalid("heartbeat time period cannot be a negative duration"),
        ),
        (stored_token_unreadable(&JoinTokenError::Prefix), Kind::Unknown, "the cluster's own join token can't be read: invalid join token: it does not start with SWMTKN-1-".to_owned()),
        (
            root_not_made(&"no randomness"),
            Kind::Unknown,
            "the next root certificate can't be made: no randomness".to_owned(),
        ),
        (
            root_not_taken(&"certificate key mismatch"),
            Kind::InvalidArgument,
            "rpc error: code = InvalidArgument desc = certificate key mismatch".to_owned(),
        ),
        (
            root_key_alone(),
            Kind::InvalidArgument,
            "rpc error: code = InvalidArgument desc = if a signing CA key is provided, the signing CA cert must also be provided".to_owned(),
        ),
        (
            root_certificate_alone(),
            Kind::InvalidArgument,
            "rpc error: code = InvalidArgument desc = there must be at least one valid, reachable external CA corresponding to the desired CA certificate".to_owned(),
        ),
        (
            election_before_heartbeat(),
            Kind::InvalidArgument,
            "election tick must be greater than heartbeat tick".to_owned(),
        ),
    ];
    for (error, kind, text) in table {
        assert_eq!((error.kind(), error.to_string()), (kind, text));
    }
}

#[test]
fn what_the_store_refuses_is_told_in_the_same_words() {
    let missing = crate::store::StoreAction::Remove(SecretId::of(5).into());
    let error = Store::default().apply(Version(1), &[missing]).unwrap_err();
    assert_eq!(ControlError::from(error), gone(&SecretId::of(5).into()));
    let id = ServiceId::of(1).into();
    assert_eq!(ControlError::from(StoreError::OutOfSequence(id)), out_of_sequence());
    for (kind, error) in [
        (ObjectKind::Service, service_exists("a")),
        (ObjectKind::Network, network_exists("a")),
        (ObjectKind::Config, payload_exists(ObjectKind::Config, "a")),
    ] {
        assert_eq!(ControlError::from(StoreError::NameConflict { kind, name: "a".to_owned() }), error);
    }
}
