//! What the agent's conversion says: of JSON that no object here can hold.
//!
//! dockerd's words where it has any. It takes some of these for a default instead: an unknown protocol for TCP, an unknown
//! mode of seccomp for its own profile. Nobody can mean that, so it is said.

use crate::objects::network::Subnet;

use super::{ControlError, ErrorKind, ObjectKind, Speaker};

// Specs of services.
texts! {
    Dockerd InvalidArgument runtime_mismatched() "mismatched Runtime and *Spec fields";
    Dockerd InvalidArgument modes_too_many() "must specify only one service mode";
    Dockerd InvalidArgument restart_condition(text: &str) "invalid RestartCondition: {text:?}";
    Dockerd InvalidArgument failure_action(text: &str) "unrecognized update failure action {text}";
    Dockerd InvalidArgument update_order(text: &str) "unrecognized update order {text}";
    Dockerd InvalidArgument resolution_mode(text: &str) "invalid resolution mode: {text:?}";
    Dockerd InvalidArgument protocol(text: &str) "invalid Protocol: {text:?}";
    Dockerd InvalidArgument publish_mode(text: &str) "invalid PublishMode: {text:?}";
    Dockerd InvalidArgument port_number(port: u32) "invalid port {port}: it must be at most 65535";
    Dockerd NotFound predefined_network_missing(network: &str) "could not find the corresponding predefined swarm network: network {network} not found";
    Dockerd PermissionDenied network_not_of_swarm(network: &str) "The network {network} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.";
}

// Containers.
texts! {
    Dockerd InvalidArgument mount_kind(text: &str) "invalid MountType: {text:?}";
    Dockerd InvalidArgument mount_propagation(text: &str) "invalid MountPropagation: {text:?}";
    Dockerd InvalidArgument seccomp_mode(text: &str) "invalid Seccomp mode: {text:?}";
    Dockerd InvalidArgument apparmor_mode(text: &str) "invalid AppArmor mode: {text:?}";
    Dockerd InvalidArgument nameserver(text: &str) "invalid nameserver: {text:?} is no IP address";
    Dockerd InvalidArgument credentials_missing() "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential spec";
    Dockerd InvalidArgument credentials_two(first: &str, second: &str) "invalid CredentialSpec: cannot specify both {first:?} and {second:?} credential specs";
    Dockerd InvalidArgument credentials_three() "invalid CredentialSpec: cannot specify both \"config\", \"file\", and \"registry\" credential specs";
    Dockerd InvalidArgument config_without_target() "invalid Config: either File or Runtime should be set";
    Dockerd InvalidArgument config_with_two_targets() "invalid Config: cannot specify both File and Runtime";
    SwarmKit InvalidArgument reference_without_target(kind: ObjectKind) "malformed {kind} reference, no target provided";
    Dockerd InvalidArgument not_base64(field: &str) "invalid JSON: {field}: illegal base64 data";
}

// Nodes, networks and the cluster.
texts! {
    Dockerd InvalidArgument node_role(text: &str) "invalid Role: {text:?}";
    Dockerd InvalidArgument node_availability(text: &str) "invalid Availability: {text:?}";
    Dockerd InvalidArgument network_config(reasons: &str) "invalid network config:\n{reasons}";
    Dockerd InvalidArgument network_without_ipv4() "IPv4 cannot be disabled in a Swarm scoped network";
    Dockerd InvalidArgument address_pool(text: &str) "invalid base pool {text}: invalid CIDR address: {text}";
    Dockerd InvalidArgument subnet_size(size: u32) "subnet size is out of range: {size}";
    Dockerd InvalidArgument subnet_size_of_pool(pool: &Subnet, size: u32) "invalid CIDR: \"{pool}\". Subnet size is too small for pool: {size}";
    Dockerd InvalidArgument data_path_port(port: u32) "Datapath port number is not in valid range (1024-49151) : {port}";
    Dockerd Unimplemented external_ca() "external certificate authorities are not supported: managers sign nodes' certificates themselves";
    Dockerd Unimplemented given_root() "a new cluster makes its root itself: rotate it to your own with docker swarm ca --rotate --ca-cert --ca-key";
}

// Queries.
texts! {
    Dockerd InvalidArgument filters_malformed() "invalid filter";
    Dockerd InvalidArgument version_invalid(kind: &str, text: &str, reason: &str) "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: {reason}";
    Dockerd InvalidArgument payload_version_invalid(kind: &str) "invalid {kind} version";
    Dockerd InvalidArgument flag_invalid(name: &str, text: &str) "invalid value for {name}: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax";
    Dockerd InvalidArgument rotation_flag_invalid(name: &str, text: &str) "invalid value for {name}: {text}";
    Dockerd InvalidArgument auth_source_unknown() "unsupported registryAuthFrom value";
    Dockerd InvalidArgument rollback_unknown(text: &str) "unrecognized rollback option {text}";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_dockers() {
        let invalid: &[(ControlError, &str)] = &[
            (runtime_mismatched(), "mismatched Runtime and *Spec fields"),
            (modes_too_many(), "must specify only one service mode"),
            (restart_condition("x"), r#"invalid RestartCondition: "x""#),
            (failure_action("x"), "unrecognized update failure action x"),
            (update_order("x"), "unrecognized update order x"),
            (resolution_mode("VIP"), r#"invalid resolution mode: "VIP""#),
            (protocol("x"), r#"invalid Protocol: "x""#),
            (publish_mode("x"), r#"invalid PublishMode: "x""#),
            (port_number(70_000), "invalid port 70000: it must be at most 65535"),
            (mount_kind("x"), r#"invalid MountType: "x""#),
            (mount_propagation("x"), r#"invalid MountPropagation: "x""#),
            (seccomp_mode("x"), r#"invalid Seccomp mode: "x""#),
            (apparmor_mode("x"), r#"invalid AppArmor mode: "x""#),
            (nameserver("x"), r#"invalid nameserver: "x" is no IP address"#),
            (
                credentials_missing(),
                r#"invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec"#,
            ),
            (
                credentials_two("config", "file"),
                r#"invalid CredentialSpec: cannot specify both "config" and "file" credential specs"#,
            ),
            (
                credentials_three(),
                r#"invalid CredentialSpec: cannot specify both "config", "file", and "registry" credential specs"#,
            ),
            (config_without_target(), "invalid Config: either File or Runtime should be set"),
            (config_with_two_targets(), "invalid Config: cannot specify both File and Runtime"),
            (
                reference_without_target(ObjectKind::Secret),
                "rpc error: code = InvalidArgument desc = malformed secret reference, no target provided",
            ),
            (not_base64("Data"), "invalid JSON: Data: illegal base64 data"),
            (node_role("x"), r#"invalid Role: "x""#),
            (node_availability("x"), r#"invalid Availability: "x""#),
            (network_config("a\nb"), "invalid network config:\na\nb"),
            (network_without_ipv4(), "IPv4 cannot be disabled in a Swarm scoped network"),
            (address_pool("x"), "invalid base pool x: invalid CIDR address: x"),
            (subnet_size(64), "subnet size is out of range: 64"),
            (
                subnet_size_of_pool(&"10.0.0.0/8".parse().unwrap(), 4),
                r#"invalid CIDR: "10.0.0.0/8". Subnet size is too small for pool: 4"#,
            ),
            (data_path_port(80), "Datapath port number is not in valid range (1024-49151) : 80"),
            (filters_malformed(), "invalid filter"),
            (
                version_invalid("node", "x", "invalid syntax"),
                r#"invalid node version 'x': strconv.ParseUint: parsing "x": invalid syntax"#,
            ),
            (payload_version_invalid("secret"), "invalid secret version"),
            (
                flag_invalid("status", "x"),
                r#"invalid value for status: x: strconv.ParseBool: parsing "x": invalid syntax"#,
            ),
            (rotation_flag_invalid("rotateWorkerToken", "x"), "invalid value for rotateWorkerToken: x"),
            (auth_source_unknown(), "unsupported registryAuthFrom value"),
            (rollback_unknown("x"), "unrecognized rollback option x"),
        ];
        for (error, text) in invalid {
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidArgument, (*text).to_owned()));
        }
        let others = [
            (
                predefined_network_missing("none"),
                ErrorKind::NotFound,
                "could not find the corresponding predefined swarm network: network none not found",
            ),
            (
                network_not_of_swarm("a"),
                ErrorKind::PermissionDenied,
                "The network a cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
            ),
            (
                external_ca(),
                ErrorKind::Unimplemented,
                "external certificate authorities are not supported: managers sign nodes' certificates themselves",
            ),
            (
                given_root(),
                ErrorKind::Unimplemented,
                "a new cluster makes its root itself: rotate it to your own with docker swarm ca --rotate --ca-cert --ca-key",
            ),
        ];
        for (error, kind, text) in others {
            assert_eq!((error.kind(), error.to_string()), (kind, text.to_owned()));
        }
    }
}
