//! JSON that no object can hold, and the words for it: as dockerd 28.5 said them, but where `texts::conversion` tells.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

use ketch_cluster::control::{ControlError, ErrorKind};
use ketch_cluster::objects::node::Availability;
use ketch_cluster::objects::{ClusterSpec, ServiceSpec};
use ketch_cluster::store::Store;
use ketch_cluster::view::{Observed, View};
use ketch_convert::{Refusal, cluster, config, network, node, secret, service};
use ketch_engine_api::network::NetworkCreateRequest;
use ketch_engine_api::swarm::cluster::InitRequest;
use serde::de::DeserializeOwned;

fn parsed<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn spec_of(text: &str) -> Result<ServiceSpec, Refusal> {
    let (store, observed) = (Store::default(), Observed::default());
    service::spec_of(&View::new(&store, &observed), parsed(text), None)
}

fn refused<T: std::fmt::Debug>(result: Result<T, ControlError>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind(), error.to_string())
}

/// A text of SwarmKit's.
fn rpc(text: &str) -> String {
    format!("rpc error: code = InvalidArgument desc = {text}")
}

fn container(fields: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"a",{fields}}}}}}}"#)
}

fn task(fields: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"a"}},{fields}}}}}"#)
}

fn of_service(fields: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"a"}}}},{fields}}}"#)
}

#[test]
fn of_containers() {
    for (fields, text) in [
        (r#""Mounts":[{"Type":"x"}]"#, r#"invalid MountType: "x""#.to_owned()),
        (r#""Mounts":[{"BindOptions":{"Propagation":"x"}}]"#, r#"invalid MountPropagation: "x""#.to_owned()),
        (r#""Configs":[{"ConfigID":"a","ConfigName":"b"}]"#, "invalid Config: either File or Runtime should be set".to_owned()),
        (r#""Configs":[{"File":{},"Runtime":{}}]"#, "invalid Config: cannot specify both File and Runtime".to_owned()),
        (r#""Configs":[{"ConfigID":"x","ConfigName":"y","Runtime":{}}]"#, rpc("config not found: y")),
        (r#""Secrets":[{"SecretID":"x","SecretName":"y"}]"#, rpc("malformed secret reference, no target provided")),
        (r#""Secrets":[{"SecretID":"","SecretName":"y","File":{}}]"#, rpc("malformed secret reference")),
        (r#""Secrets":[{"SecretID":"x","SecretName":"y","File":{}}]"#, rpc("secret not found: y")),
        (
            r#""Secrets":[{"SecretID":"x","SecretName":"y","File":{}},{"SecretID":"z","SecretName":"y2","File":{}}]"#,
            rpc("secrets not found: y, y2"),
        ),
        (
            r#""Privileges":{"CredentialSpec":{}}"#,
            r#"invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec"#.to_owned(),
        ),
        (
            r#""Privileges":{"CredentialSpec":{"Config":"a","File":"b"}}"#,
            r#"invalid CredentialSpec: cannot specify both "config" and "file" credential specs"#.to_owned(),
        ),
        (
            r#""Privileges":{"CredentialSpec":{"Config":"a","File":"b","Registry":"c"}}"#,
            r#"invalid CredentialSpec: cannot specify both "config", "file", and "registry" credential specs"#.to_owned(),
        ),
        (r#""Privileges":{"Seccomp":{"Mode":"x"}}"#, r#"invalid Seccomp mode: "x""#.to_owned()),
        (r#""Privileges":{"Seccomp":{"Mode":"custom","Profile":"!"}}"#, "invalid JSON: Profile: illegal base64 data".to_owned()),
        (r#""Privileges":{"AppArmor":{"Mode":"x"}}"#, r#"invalid AppArmor mode: "x""#.to_owned()),
        (r#""Healthcheck":{"Interval":-1}"#, rpc("ContainerSpec: Interval in HealthConfig cannot be less than 1ms")),
        (r#""Healthcheck":{"Retries":-1}"#, rpc("ContainerSpec: Retries in HealthConfig cannot be negative")),
        (r#""DNSConfig":{"Nameservers":["x"]}"#, r#"invalid nameserver: "x" is no IP address"#.to_owned()),
    ] {
        assert_eq!(refused(spec_of(&container(fields))), (ErrorKind::InvalidArgument, text), "{fields}");
    }
}

#[test]
fn of_tasks() {
    for (body, text) in [
        ("{}".to_owned(), "mismatched Runtime and *Spec fields".to_owned()),
        (
            r#"{"TaskTemplate":{"Runtime":"plugin","PluginSpec":{}}}"#.to_owned(),
            "unsupported runtime".to_owned(),
        ),
        (task(r#""Runtime":"attachment""#), "unsupported runtime".to_owned()),
        (task(r#""RestartPolicy":{"Condition":"x"}"#), r#"invalid RestartCondition: "x""#.to_owned()),
        (task(r#""RestartPolicy":{"Delay":-1}"#), rpc("TaskSpec: restart-delay cannot be negative")),
        (task(r#""RestartPolicy":{"Window":-1}"#), rpc("TaskSpec: restart-window cannot be negative")),
        (
            task(r#""Resources":{"Limits":{"MemoryBytes":-5}}"#),
            rpc("invalid memory value -5: Must be at least 4MiB"),
        ),
        (
            task(r#""Resources":{"Limits":{"NanoCPUs":-5}}"#),
            rpc("invalid cpu value -5e-09: Must be at least 0.001"),
        ),
        (
            task(r#""Resources":{"Reservations":{"MemoryBytes":-5}}"#),
            rpc("invalid memory value -5: Must be at least 4MiB"),
        ),
        (
            task(
                r#""Resources":{"Reservations":{"GenericResources":[{"DiscreteResourceSpec":{"Kind":"a","Value":-1}}]}}"#,
            ),
            rpc("invalid argument for resource a"),
        ),
        (
            // dockerd's connection breaks.
            task(r#""Resources":{"Reservations":{"GenericResources":[{}]}}"#),
            rpc("invalid argument for resource "),
        ),
        (task(r#""Networks":[{"Target":""}]"#), "network  not found".to_owned()),
        (task(r#""Networks":[{"Target":"nope"}]"#), "network nope not found".to_owned()),
        (
            task(r#""Networks":[{"Target":"none"}]"#),
            "could not find the corresponding predefined swarm network: network none not found".to_owned(),
        ),
    ] {
        let kind = if text.contains("network") { ErrorKind::NotFound } else { ErrorKind::InvalidArgument };
        assert_eq!(refused(spec_of(&body)), (kind, text), "{body}");
    }
}

#[test]
fn of_services() {
    for (fields, text) in [
        (r#""Mode":{"Global":{},"Replicated":{}}"#, "must specify only one service mode".to_owned()),
        (r#""UpdateConfig":{"FailureAction":"x"}"#, "unrecognized update failure action x".to_owned()),
        (r#""UpdateConfig":{"Order":"x"}"#, "unrecognized update order x".to_owned()),
        (r#""UpdateConfig":{"Delay":-1}"#, rpc("TaskSpec: update-delay cannot be negative")),
        (r#""UpdateConfig":{"Monitor":-1}"#, rpc("TaskSpec: update-monitor cannot be negative")),
        (r#""EndpointSpec":{"Mode":"VIP"}"#, r#"invalid resolution mode: "VIP""#.to_owned()),
        (r#""EndpointSpec":{"Ports":[{"Protocol":"x"}]}"#, r#"invalid Protocol: "x""#.to_owned()),
        (r#""EndpointSpec":{"Ports":[{"PublishMode":"x"}]}"#, r#"invalid PublishMode: "x""#.to_owned()),
        (
            r#""EndpointSpec":{"Ports":[{"TargetPort":70000}]}"#,
            "invalid port 70000: it must be at most 65535".to_owned(),
        ),
    ] {
        assert_eq!(refused(spec_of(&of_service(fields))), (ErrorKind::InvalidArgument, text), "{fields}");
    }
}

#[test]
fn of_nodes_and_payloads() {
    let role = node::spec_of(parsed(r#"{"Role":"x","Availability":"active"}"#));
    assert_eq!(refused(role).1, r#"invalid Role: "x""#);
    assert_eq!(refused(node::spec_of(parsed("{}"))).1, r#"invalid Role: """#);
    let availability = node::spec_of(parsed(r#"{"Role":"worker"}"#));
    assert_eq!(refused(availability).1, r#"invalid Availability: """#);
    for result in [
        secret::spec_of(parsed(r#"{"Data":"!"}"#)).map(drop),
        config::spec_of(parsed(r#"{"Data":"!"}"#)).map(drop),
    ] {
        assert_eq!(refused(result).1, "invalid JSON: Data: illegal base64 data");
    }
}

#[test]
fn of_networks() {
    let of = |text: &str| network::spec_of(parsed::<NetworkCreateRequest>(text));
    let no_ipv4 = refused(of(r#"{"EnableIPv4":false}"#));
    assert_eq!(no_ipv4.1, "IPv4 cannot be disabled in a Swarm scoped network");
    for (config, faults) in [
        (r#"{"Subnet":"x"}"#, "invalid subnet x: invalid CIDR block notation"),
        (r#"{"Subnet":"10.9.0.5/24"}"#, "invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24"),
        (r#"{"Subnet":"10.9.0.0/24","Gateway":"x"}"#, "invalid gateway x: invalid address"),
        (r#"{"Subnet":"10.9.0.0/24","IPRange":"x"}"#, "invalid ip-range x: invalid CIDR block notation"),
        (
            r#"{"Subnet":"10.9.0.0/24","AuxiliaryAddresses":{"a":"x"}}"#,
            "invalid auxiliary address a: invalid address",
        ),
        (
            r#"{"Subnet":"x","Gateway":"y"}"#,
            "invalid subnet x: invalid CIDR block notation\ninvalid gateway y: invalid address",
        ),
    ] {
        let text = format!("invalid network config:\n{faults}");
        let result = of(&format!(r#"{{"IPAM":{{"Config":[{config}]}}}}"#));
        assert_eq!(refused(result), (ErrorKind::InvalidArgument, text), "{config}");
    }
}

#[test]
fn of_clusters() {
    let of = |text: &str| cluster::new_of(&parsed::<InitRequest>(text));
    for (body, text) in [
        (r#"{"DefaultAddrPool":["x"]}"#, "invalid base pool x: invalid CIDR address: x".to_owned()),
        (
            r#"{"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":4}"#,
            r#"invalid CIDR: "10.0.0.0/8". Subnet size is too small for pool: 4"#.to_owned(),
        ),
        (r#"{"SubnetSize":64}"#, "subnet size is out of range: 64".to_owned()),
        (r#"{"DataPathPort":80}"#, "Datapath port number is not in valid range (1024-49151) : 80".to_owned()),
        (r#"{"Availability":"x"}"#, r#"invalid Availability: "x""#.to_owned()),
        (r#"{"Spec":{"CAConfig":{"NodeCertExpiry":-1}}}"#, rpc("minimum certificate expiry time is: 1h0m0s")),
        (
            r#"{"Spec":{"Dispatcher":{"HeartbeatPeriod":-1}}}"#,
            rpc("heartbeat time period cannot be a negative duration"),
        ),
    ] {
        assert_eq!(refused(of(body)), (ErrorKind::InvalidArgument, text), "{body}");
    }
    for body in [
        r#"{"Spec":{"CAConfig":{"ExternalCAs":[{"Protocol":"cfssl","URL":"u"}]}}}"#,
        r#"{"Spec":{"CAConfig":{"SigningCACert":"c","SigningCAKey":"k"}}}"#,
    ] {
        assert_eq!(refused(of(body)).0, ErrorKind::Unimplemented, "{body}");
    }
}

#[test]
fn an_init_request_that_says_nothing_is_a_cluster_of_defaults() {
    let new = cluster::new_of(&InitRequest::default()).unwrap();
    assert_eq!((new.spec, new.availability), (ClusterSpec::default(), Availability::Active));
    assert_eq!(new.networking, Default::default());
    let given = r#"{"DefaultAddrPool":["10.1.0.0/16"],"SubnetSize":26,"DataPathPort":7777,"AutoLockManagers":true,"Availability":"DRAIN"}"#;
    let new = cluster::new_of(&parsed(given)).unwrap();
    assert_eq!((new.networking.subnet_size, new.networking.data_path_port), (26, 7777));
    assert_eq!(new.networking.address_pools[0].to_string(), "10.1.0.0/16");
    assert_eq!((new.spec.autolock, new.availability), (true, Availability::Drain));
}
