//! Attacks on whoever is born in a pid namespace that others are in already: a container that joins another's
//! (`shareProcessNamespace`, `--pid=container:`), and a process of `exec`.
//!
//! The attacker is a container with CAP_SYS_PTRACE, whose pid namespace the others join; it looks for a canary in the
//! host's tree, and for capabilities that the others do not have.

use std::fs;

use ketch_integration::{Bundle, Case, Container, Race, tests, wait_until};
use serde_json::json;

tests![
    the_host_behind_a_container_that_joins,
    the_host_behind_one_with_a_user_namespace,
    the_host_behind_one_in_the_same_user_namespace,
    rights_of_a_container_that_joins,
    rights_of_one_with_a_filter,
    rights_of_an_entering_process,
];

/// CAP_KILL (capability.h), all that those who join have.
const OF_JOINING: (&str, &str) = ("CAP_KILL", "20");

/// What the intruder has, and those who enter it.
const OF_INTRUDER: ([&str; 4], &str) =
    (["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SYS_PTRACE"], "80026");

/// The container that looks.
fn intruder<'a>(case: &'a Case, change: impl FnOnce(Bundle<'a>) -> Bundle<'a>) -> Container<'a> {
    intruder_allowing(case, OF_JOINING.1, change)
}

fn intruder_allowing<'a>(
    case: &'a Case,
    allowed: &str,
    change: impl FnOnce(Bundle<'a>) -> Bundle<'a>,
) -> Container<'a> {
    let secret = case.dir.join("secret");
    fs::write(&secret, "secret of the host").expect("write");
    let probe = json!({
        "destination": "/bin/probe", "type": "bind", "source": env!("CARGO_BIN_EXE_container_probe"), "options": ["bind", "ro"]
    });
    let command = ["/bin/probe", "intrude", &secret.display().to_string(), allowed];
    let bundle = case.bundle().mount(probe).command(&command);
    let container = change(bundle.capabilities(&OF_INTRUDER.0)).start();
    container.wait_stdout("intruding");
    container
}

/// A container that joins the intruder's pid namespace, and ends at once.
fn joining<'a>(container: &Container<'a>) -> Bundle<'a> {
    let namespace = format!("/proc/{}/ns/pid", container.pid());
    let bundle = container.case.bundle().command(&["/bin/true"]).capabilities(&[OF_JOINING.0]);
    bundle.namespace("pid", Some(&namespace))
}

/// Has processes born until the intruder has printed `word`, and gives all that it has. It has got hold of a process at
/// least once.
fn printed_of(intruder: &Container<'_>, bear: impl Fn(), word: &str) -> String {
    for _ in Race::of(intruder.case, 100) {
        bear();
        if intruder.stdout().contains(word) {
            break;
        }
    }
    wait_until("the intruder has got hold of a process", || {
        let printed = intruder.stdout();
        if printed.contains("held") {
            return Ok(());
        }
        bear();
        Err(printed)
    });
    intruder.stdout()
}

/// # Panics
/// When the intruder came to see the canary.
fn holds(intruder: &Container<'_>, bundle: &Bundle<'_>) {
    let printed = printed_of(intruder, || drop(bundle.run().ok()), "the canary");
    assert!(!printed.contains("the canary"), "the host's tree is seen: {printed}");
}

const SEEN: [(&str, &str); 4] = {
    const WHY: &str = "its process is seen with the host's root";
    [
        ("runc version 1.1", WHY),
        ("runc version 1.3", WHY),
        ("crun version 1.8", WHY),
        ("crun version 1.28", WHY),
    ]
};

/// Open in every runc; closed by crun 1.31.
pub(crate) fn the_host_behind_a_container_that_joins(case: &Case) {
    case.falls(&SEEN);
    let intruder = intruder(case, |bundle| bundle);
    holds(&intruder, &joining(&intruder));
}

/// A user namespace of its own, which has no say in the pid namespace: so it can't mount a procfs of that.
fn the_host_behind_one_with_a_user_namespace(case: &Case) {
    case.falls(&SEEN);
    let intruder = intruder(case, |bundle| bundle);
    let bundle = joining(&intruder).user_namespace(100_000).edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.insert(
            0,
            json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
        );
    });
    holds(&intruder, &bundle);
}

/// As in a pod with `hostUsers: false`.
fn the_host_behind_one_in_the_same_user_namespace(case: &Case) {
    case.falls(&SEEN);
    let intruder = intruder(case, |bundle| bundle.user_namespace(100_000));
    let namespace = format!("/proc/{}/ns/user", intruder.pid());
    holds(&intruder, &joining(&intruder).user_namespace(100_000).namespace("user", Some(&namespace)));
}

const TRACED: [(&str, &str); 3] = {
    const WHY: &str = "its process is traced with the runtime's capabilities";
    [("runc version 1.1", WHY), ("runc version 1.3", WHY), ("crun version", WHY)]
};

/// Docker's default profile.
pub(crate) fn dockers_filter() -> serde_json::Value {
    serde_json::from_str(include_str!("../../oci-bundles/docker-default/seccomp.json")).expect("JSON")
}

/// # Panics
/// When the intruder had hold of a process with rights that the container does not have.
fn has_no_rights(intruder: &Container<'_>, bundle: &Bundle<'_>) {
    let printed = printed_of(intruder, || drop(bundle.run().ok()), "by ptrace");
    assert!(!printed.contains("by ptrace"), "the runtime's rights are to be had: {printed}");
}

/// What the runtime may, and the container may not.
pub(crate) fn rights_of_a_container_that_joins(case: &Case) {
    case.falls(&TRACED);
    let intruder = intruder(case, |bundle| bundle);
    has_no_rights(&intruder, &joining(&intruder));
}

/// Docker's default: a filter, which takes CAP_SYS_ADMIN to load without `no_new_privs`.
fn rights_of_one_with_a_filter(case: &Case) {
    case.falls(&TRACED);
    let intruder = intruder(case, |bundle| bundle);
    let docker = dockers_filter();
    for no_new_privileges in [false, true] {
        let bundle = joining(&intruder).set("/process/noNewPrivileges", json!(no_new_privileges));
        has_no_rights(&intruder, &bundle.set("/linux/seccomp", docker.clone()));
    }
}

/// `exec`, for whose process the container's filter is as ever.
pub(crate) fn rights_of_an_entering_process(case: &Case) {
    case.falls(&TRACED);
    let docker = dockers_filter();
    let attack = |intruder: Container<'_>| {
        let printed = printed_of(&intruder, || drop(intruder.exec(&["/bin/true"]).ok()), "by ptrace");
        intruder.stop();
        assert!(!printed.contains("by ptrace"), "the runtime's rights are to be had: {printed}");
    };
    attack(intruder_allowing(case, OF_INTRUDER.1, |bundle| bundle));
    for no_new_privileges in [false, true] {
        attack(intruder_allowing(case, OF_INTRUDER.1, |bundle| {
            bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).set("/linux/seccomp", docker.clone()).edit(
                |spec| {
                    let rules = spec["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
                    rules.push(json!({ "names": ["ptrace"], "action": "SCMP_ACT_ALLOW" }));
                },
            )
        }));
    }
}
