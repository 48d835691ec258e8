//! `features`: what the document claims is what the runtime-spec's matrix lists for runc, and what it claims is true.

use std::collections::BTreeSet;

use ketch_integration::{Case, tests};
use serde_json::{Value, json};

tests![
    every_feature_of_the_matrix_is_claimed,
    unsafe_annotations_are_told,
    the_build_is_told,
    claimed_mount_options_are_taken,
    checkpoint_is_claimed_and_there,
];

fn document(case: &Case) -> Value {
    case.needs_runc(1, 4, "has fewer features, and claims fewer");
    case.bare().arg("features").run().ok().json()
}

fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn every_feature_of_the_matrix_is_claimed(case: &Case) {
    let document = document(case);
    let linux = &document["linux"];
    for (list, wanted) in [
        (&document["hooks"], "prestart createRuntime createContainer startContainer poststart poststop"),
        (&linux["namespaces"], "cgroup ipc mount network pid time user uts"),
        (&document["mountOptions"], "bind rbind ro rro rnosuid rnodev rnoexec tmpcopyup rslave rshared"),
        (
            &linux["seccomp"]["actions"],
            "SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_LOG \
             SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP",
        ),
        (
            &linux["seccomp"]["archs"],
            "SCMP_ARCH_X86 SCMP_ARCH_X86_64 SCMP_ARCH_X32 SCMP_ARCH_ARM SCMP_ARCH_AARCH64 SCMP_ARCH_PPC64LE \
             SCMP_ARCH_RISCV64 SCMP_ARCH_S390X",
        ),
        (
            &linux["seccomp"]["knownFlags"],
            "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_LOG \
             SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ),
        (&linux["memoryPolicy"]["modes"], "MPOL_BIND MPOL_INTERLEAVE MPOL_PREFERRED MPOL_LOCAL MPOL_DEFAULT"),
    ] {
        let missing: Vec<&str> = wanted.split_whitespace().filter(|name| !names(list).contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?} in {list}");
    }
    for claim in [
        "/cgroup/v1", "/cgroup/v2", "/cgroup/systemd", "/cgroup/systemdUser", "/cgroup/rdma", "/seccomp/enabled",
        "/apparmor/enabled", "/selinux/enabled", "/intelRdt/enabled", "/mountExtensions/idmap/enabled",
        "/netDevices/enabled",
    ] {
        assert_eq!(linux.pointer(claim), Some(&json!(true)), "{claim}");
    }
}

/// Who runs a configuration of somebody else's asks which annotations to take out of it: none that is obeyed may be missing.
fn unsafe_annotations_are_told(case: &Case) {
    let document = document(case);
    let unsafe_ones = names(&document["potentiallyUnsafeConfigAnnotations"]);
    assert_eq!(unsafe_ones, BTreeSet::from(["bundle", "org.criu.config", "org.systemd.property."]));
}

/// The same commit and version as `--version` tells.
fn the_build_is_told(case: &Case) {
    let document = document(case);
    let version = case.bare().arg("--version").run().ok().stdout;
    let told = |line: &str| version.lines().find_map(|text| text.strip_prefix(line)).map(str::to_owned);
    let annotations = &document["annotations"];
    assert_eq!(annotations["org.opencontainers.runc.commit"].as_str(), told("commit: ").as_deref());
    assert_eq!(annotations["org.opencontainers.runc.version"].as_str(), told("runc version ").as_deref());
}

/// A bind with each option: what would not be known would go to the file system as data, and be refused by it.
fn claimed_mount_options_are_taken(case: &Case) {
    let document = document(case);
    // These are not of a mount that is bound.
    let apart = ["tmpcopyup", "defaults", "remount", "mand", "nomand"];
    let options: Vec<&str> = names(&document["mountOptions"]).into_iter().filter(|name| !apart.contains(name)).collect();
    assert!(options.len() > 40, "{options:?}");
    let source = case.folder("source");
    let mut bundle = case.bundle().command(&["/bin/true"]);
    for (number, option) in options.iter().enumerate() {
        let (source, destination) = (source.display().to_string(), format!("/options/{number}"));
        bundle = bundle.mount(json!({ "source": source, "destination": destination, "options": ["bind", option] }));
    }
    let _ = bundle.run().ok();
}

fn checkpoint_is_claimed_and_there(case: &Case) {
    let document = document(case);
    assert_eq!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
    let _ = case.bare().args(["checkpoint", "--help"]).run().ok();
}
