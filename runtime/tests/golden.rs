//! `oci-bundles/*/config.json` -> `plan.json`: what ketch would do with each bundle, on a host with cgroup v2.
//!
//! A difference is either a fault or a decision. After a decision: `KETCH_BLESS=1 cargo test -p ketch --test golden`,
//! and read the diff before committing it. Pure: needs no privileges and no rootfs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use ketch::host::HostFacts;
use ketch::plan::cgroup::{CgroupLayout, Privilege, UserNamespace};
use ketch::plan::rootfs::RootEntry;
use ketch::plan::{Caller, KeyringChoice, Plan, PlanOptions};
use ketch::seccomp::FilterFlags;
use ketch::spec::{Spec, SpecFacts, ValidationContext, validate_with};
use serde_json::Value;

const UNIFIED: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
const LEGACY: &str = "25 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    26 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    27 1 0:24 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
    28 1 0:25 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";

fn bundles() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oci-bundles");
    let mut bundles: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    bundles.sort();
    bundles
}

fn host(mountinfo: &str, own_cgroup: &str) -> HostFacts {
    HostFacts {
        cgroups: CgroupLayout::parse(mountinfo, own_cgroup),
        caller: Caller::Root,
        user_namespace: UserNamespace::Initial,
        seccomp_flags: FilterFlags::SPEC_ALLOW,
        systemd: None,
    }
}

fn plan(bundle: &Path, host: &HostFacts) -> Value {
    let name = bundle.file_name().unwrap().to_str().unwrap();
    let at = Path::new("/bundles").join(name);
    let spec = Spec::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let valid = validate_with(spec, &ValidationContext::new(&at), &SpecFacts::default()).unwrap();
    assert_eq!(valid.warnings(), [""; 0], "{name}");
    let options = PlanOptions {
        id: name,
        bundle: &at,
        entry: RootEntry::PivotRoot,
        keyring: KeyringChoice::New,
        privilege: Privilege::Root,
    };
    let planned = Plan::new(valid, host, &options).unwrap();
    let json = serde_json::to_value(&planned.plan).unwrap();
    let again: Plan = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(again, planned.plan, "{name}: a plan survives being written");
    json
}

#[test]
fn every_bundle_has_the_plan_beside_it() {
    let host = host(UNIFIED, "0::/\n");
    let mut differing = Vec::new();
    for bundle in bundles() {
        let plan = plan(&bundle, &host);
        let golden = bundle.join("plan.json");
        if std::env::var_os("KETCH_BLESS").is_some() {
            fs::write(&golden, serde_json::to_string_pretty(&plan).unwrap() + "\n").unwrap();
        }
        let expected: Value =
            serde_json::from_slice(&fs::read(&golden).unwrap_or_default()).unwrap_or_default();
        differing.extend(differences(&expected, &plan, &golden.display().to_string()));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_bundle_has_a_plan_on_cgroup_v1() {
    let host = host(LEGACY, "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n1:devices:/\n");
    for bundle in bundles() {
        plan(&bundle, &host);
    }
}

/// Where two documents differ, one line each.
fn differences(expected: &Value, found: &Value, at: &str) -> Vec<String> {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            let child = |map: &serde_json::Map<String, Value>, key: &String| {
                map.get(key).cloned().unwrap_or_default()
            };
            keys.into_iter()
                .flat_map(|key| differences(&child(a, key), &child(b, key), &format!("{at}: {key}")))
                .collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .flat_map(|(index, (a, b))| differences(a, b, &format!("{at}[{index}]")))
            .collect(),
        _ if expected == found => Vec::new(),
        _ => vec![format!("{at}: expected {expected}, found {found}")],
    }
}
