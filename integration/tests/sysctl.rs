//! Kernel parameters: namespaced ones are set inside only, others are refused.

use ketch_integration::{Case, probe, tests};
use serde_json::json;

tests![
    a_network_parameter_is_set_inside_only,
    an_ipc_parameter_is_set,
    a_network_parameter_needs_a_network_namespace,
    a_host_parameter_is_refused,
    the_hostname_parameter_is_refused,
    an_unknown_parameter_is_named,
    slashes_work_too,
];

fn a_network_parameter_is_set_inside_only(case: &Case) {
    let file = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = probe::read(file);
    let bundle = case.bundle().namespace("network", None).command(&["/bin/cat", file]);
    assert_eq!(bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" })).prints(), "77");
    assert_eq!(probe::read(file), before);
}

fn an_ipc_parameter_is_set(case: &Case) {
    let bundle = case.bundle().command(&["/bin/cat", "/proc/sys/fs/mqueue/queues_max"]);
    assert_eq!(bundle.set("/linux/sysctl", json!({ "fs.mqueue.queues_max": "123" })).prints(), "123");
    let bundle = case.bundle().command(&["/bin/cat", "/proc/sys/kernel/shmmni"]);
    assert_eq!(bundle.set("/linux/sysctl", json!({ "kernel.shmmni": "1234" })).prints(), "1234");
}

fn a_network_parameter_needs_a_network_namespace(case: &Case) {
    let bundle = case.bundle().without_namespace("network").edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
    });
    let bundle = bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }));
    bundle.run().refuses(&["sysctl \"net.ipv4.ip_default_ttl\" not allowed in host network namespace"]);
}

fn a_host_parameter_is_refused(case: &Case) {
    let bundle = case.bundle().set("/linux/sysctl", json!({ "vm.swappiness": "1" }));
    bundle.run().refuses(&["sysctl \"vm.swappiness\" is not in a separate kernel namespace"]);
}

fn the_hostname_parameter_is_refused(case: &Case) {
    let bundle = case.bundle().set("/linux/sysctl", json!({ "kernel.hostname": "other" }));
    bundle.run().refuses(&["sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field"]);
}

fn an_unknown_parameter_is_named(case: &Case) {
    let bundle = case.bundle().namespace("network", None);
    let bundle = bundle.set("/linux/sysctl", json!({ "net.ipv4.no_such": "1" }));
    bundle.run().refuses(&["net/ipv4/no_such"]);
}

fn slashes_work_too(case: &Case) {
    let bundle = case.bundle().namespace("network", None);
    let bundle = bundle.command(&["/bin/cat", "/proc/sys/net/ipv4/ip_default_ttl"]);
    assert_eq!(bundle.set("/linux/sysctl", json!({ "net/ipv4/ip_default_ttl": "78" })).prints(), "78");
}
