//! `linux.memoryPolicy`: on which NUMA nodes a process gets its memory.

use std::fs;

use ketch_integration::{Bundle, Case, Container, tests, wait_until};
use serde_json::{Value, json};

tests![each_mode_is_set, a_mode_flag_is_set, exec_has_the_policy, an_unknown_mode_is_refused, a_missing_node_is_refused];

fn with<'a>(case: &'a Case, policy: &Value) -> Bundle<'a> {
    case.needs_runc(1, 5, "does not know memoryPolicy");
    case.not_on_crun("does not know memoryPolicy");
    case.needs(fs::exists("/proc/self/numa_maps").unwrap_or(false), "the kernel has no NUMA");
    case.bundle().sleeper().set("/linux/memoryPolicy", policy.clone())
}

fn needs_two_nodes(case: &Case) {
    case.needs(fs::exists("/sys/devices/system/node/node1").unwrap_or(false), "the machine has one NUMA node");
}

/// The policy that the kernel shows for memory that has no policy of its own.
fn policy_of(container: &Container<'_>, pid: i32) -> String {
    let mut seen = String::new();
    wait_until("the program", || {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if program.ends_with("bin/busybox") { Ok(()) } else { Err(container.status()) }
    });
    wait_until("a mapping with memory", || {
        let text = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap_or_default();
        let line = text.lines().find(|line| line.contains("heap") || line.contains("stack"));
        seen = line.and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        if seen.is_empty() { Err(text) } else { Ok(()) }
    });
    seen
}

fn each_mode_is_set(case: &Case) {
    needs_two_nodes(case);
    for (mode, nodes, shown) in [
        ("MPOL_BIND", "1", "bind:1"),
        ("MPOL_PREFERRED", "1", "prefer:1"),
        ("MPOL_INTERLEAVE", "0-1", "interleave:0-1"),
        ("MPOL_PREFERRED_MANY", "0-1", "prefer (many):0-1"),
        ("MPOL_LOCAL", "", "local"),
    ] {
        let mut policy = json!({ "mode": mode });
        if !nodes.is_empty() {
            policy["nodes"] = json!(nodes);
        }
        let container = with(case, &policy).start();
        let seen = policy_of(&container, container.pid());
        assert!(shown.starts_with(&seen), "{mode} is {seen}, not {shown}");
    }
}

fn a_mode_flag_is_set(case: &Case) {
    needs_two_nodes(case);
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] });
    let container = with(case, &policy).start();
    assert_eq!(policy_of(&container, container.pid()), "bind=static:0-1");
}

fn exec_has_the_policy(case: &Case) {
    needs_two_nodes(case);
    let container = with(case, &json!({ "mode": "MPOL_BIND", "nodes": "1" })).start();
    let seen = container.sh("grep -m 1 stack /proc/self/numa_maps");
    assert!(seen.contains("bind:1"), "{seen}");
}

fn an_unknown_mode_is_refused(case: &Case) {
    with(case, &json!({ "mode": "MPOL_NO_SUCH", "nodes": "0" })).run().refuses(&["MPOL_NO_SUCH"]);
}

fn a_missing_node_is_refused(case: &Case) {
    let out = with(case, &json!({ "mode": "MPOL_BIND", "nodes": "61" })).run();
    assert_ne!(out.code, 0, "{out}");
}
