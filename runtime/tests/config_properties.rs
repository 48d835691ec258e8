//! Whatever stands in a `config.json`, it is taken or refused, from its bytes to its plan: nothing panics, and both the
//! configuration and the plan survive being written. `make fuzz` runs these with very many cases.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

mod mutation;

use std::path::Path;

use ketch::host::HostFacts;
use ketch::plan::cgroup::{CgroupLayout, Privilege, UserNamespace};
use ketch::plan::rootfs::RootEntry;
use ketch::plan::{Caller, KeyringChoice, Plan, PlanOptions};
use ketch::seccomp::FilterFlags;
use ketch::spec::{
    ContainerId, MountOptions, Spec, SpecFacts, ValidSpec, ValidationContext, facts, id_list, validate_with,
};
use mutation::replace;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u32..100).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any_text(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Words that mean something somewhere, and words that don't.
fn any_text() -> impl Strategy<Value = String> {
    let words = [
        "type",
        "path",
        "args",
        "cwd",
        "user",
        "uid",
        "namespaces",
        "pid",
        "mount",
        "time",
        "network",
        "destination",
        "options",
        "bind",
        "idmap",
        "rro",
        "ro",
        "rshared",
        "gid=5",
        "size=1k",
        "/",
        "..",
        "net.core.somaxconn",
        "kernel.shmmax",
        "net/ipv4/a.b",
        "MPOL_BIND",
        "SCHED_FIFO",
        "0-3,7",
        "-",
        "a:b:c",
        "\0",
        "",
    ];
    prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(String::from), 1 => any::<String>()]
}

/// A configuration that uses every part of the model.
fn full() -> Value {
    serde_json::from_str(include_str!("full.json")).unwrap()
}

fn take_or_refuse(json: &[u8]) {
    let Ok(spec) = Spec::from_slice(json) else { return };
    let written = serde_json::to_vec(&spec).unwrap();
    assert_eq!(Spec::from_slice(&written).unwrap(), spec, "{}", String::from_utf8_lossy(&written));
    let mut contexts = vec![ValidationContext::new("/bundle")];
    contexts.push(ValidationContext {
        rootless: true,
        rootless_cgroups: true,
        systemd_cgroup: true,
        no_pivot: true,
        ..ValidationContext::new("/bundle")
    });
    for context in contexts {
        match validate_with(spec.clone(), &context, &SpecFacts::default()) {
            Ok(valid) => {
                assert!(valid.rootfs().is_absolute());
                plan_or_refuse(valid, &context);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn plan_or_refuse(valid: ValidSpec, context: &ValidationContext) {
    const UNIFIED: &str = "25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const LEGACY: &str = "25 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        28 1 0:25 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
    for (mountinfo, own) in [(UNIFIED, "0::/a/b\n"), (LEGACY, "4:memory:/\n1:devices:/\n")] {
        let host = HostFacts {
            cgroups: CgroupLayout::parse(mountinfo, own),
            caller: if context.rootless { Caller::User } else { Caller::Root },
            user_namespace: UserNamespace::Initial,
            seccomp_flags: FilterFlags::SPEC_ALLOW,
            systemd: None,
        };
        let options = PlanOptions {
            id: "x",
            bundle: Path::new("/bundle"),
            entry: if context.no_pivot { RootEntry::MoveMount } else { RootEntry::PivotRoot },
            keyring: KeyringChoice::New,
            privilege: if context.rootless { Privilege::Rootless } else { Privilege::Root },
        };
        match Plan::new(valid.clone(), &host, &options) {
            Ok(planned) => {
                let written = serde_json::to_vec(&planned.plan).unwrap();
                let read: Plan = serde_json::from_slice(&written).unwrap();
                assert_eq!(read, planned.plan);
                let root = &planned.plan.rootfs;
                for mount in &root.mounts {
                    assert!(mount.target.is_absolute(), "{mount:?}");
                    assert!(!mount.target.components().any(|part| part.as_os_str() == ".."), "{mount:?}");
                }
                for group in &planned.plan.cgroup.groups {
                    assert!(Path::new(&group.path).starts_with(&group.mountpoint), "{group:?}");
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn the_full_configuration_is_valid_and_nothing_of_it_is_lost() {
    let json = full();
    let spec = Spec::from_slice(json.to_string().as_bytes()).unwrap();
    let valid =
        validate_with(spec.clone(), &ValidationContext::new("/bundle"), &SpecFacts::default()).unwrap();
    assert_eq!(valid.into_spec(), spec);
    let mut written = serde_json::to_value(&spec).unwrap();
    // Empty lists mean the same as none, and are not written; `"flags": []` of seccomp does not, and is.
    let capabilities = json!({"bounding": ["CAP_KILL"]});
    assert_eq!(written.pointer("/process/capabilities"), Some(&capabilities));
    assert_eq!(written.pointer("/linux/seccomp/flags"), Some(&json!([])));
    let mut expected = json;
    for value in [&mut written, &mut expected] {
        *value.pointer_mut("/process/capabilities").unwrap() = Value::Null;
        value.pointer_mut("/linux/personality").unwrap().as_object_mut().unwrap().remove("flags");
    }
    assert_eq!(written, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        take_or_refuse(&bytes);
    }

    #[test]
    fn no_json_panics(json in any_json()) {
        take_or_refuse(json.to_string().as_bytes());
    }

    #[test]
    fn no_change_of_a_valid_configuration_panics(
        changes in prop::collection::vec((prop::collection::vec(any::<usize>(), 1..6), any_json()), 1..4)
    ) {
        let mut json = full();
        for (steps, by) in &changes {
            replace(&mut json, steps, by);
        }
        take_or_refuse(json.to_string().as_bytes());
    }

    #[test]
    fn no_truncated_configuration_is_taken(cut in any::<prop::sample::Index>()) {
        let text = full().to_string();
        let cut = cut.index(text.len());
        prop_assert!(Spec::from_slice(&text.as_bytes()[..cut]).is_err());
    }

    #[test]
    fn a_refusal_of_a_change_names_a_field_of_the_change(step in any::<usize>(), field in 0_usize..6) {
        let names = ["args", "cwd", "user", "env", "rlimits", "terminal"];
        let mut json = full();
        json["process"][names[field]] = json!({"nothing": step});
        if let Err(error) = Spec::from_slice(json.to_string().as_bytes()) {
            let wanted = format!("process.{}", names[field]);
            prop_assert!(error.to_string().contains(&wanted), "{}", error);
        }
    }

    #[test]
    fn lists_ids_and_options_never_panic(text in any_text(), more in any::<String>()) {
        for text in [&text, &more] {
            if let Ok(ranges) = id_list::parse(text) {
                prop_assert!(id_list::count(&ranges) <= id_list::MAX as usize + 1);
            }
            if let Ok(id) = ContainerId::new(text.clone()) {
                prop_assert!(!id.as_str().contains('/'));
            }
            let rootfs = facts::rootfs_path(Path::new("/b"), text);
            prop_assert!(rootfs.is_absolute());
        }
        let _ = MountOptions::parse(&[text, more]);
    }
}
