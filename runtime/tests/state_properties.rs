//! Whatever stands in a `state.json`, it is read or refused: a file that a crash or a hand has damaged must not make
//! `list` or `delete` panic. `make fuzz` runs these with very many cases.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

mod mutation;

use std::fs;
use std::path::{Path, PathBuf};

use ketch::state::{State, StateDir};
use mutation::replace;
use proptest::prelude::*;
use serde_json::{Value, json};

fn full() -> Value {
    json!({
        "id": "x", "init_process_pid": 12, "init_process_start": 345, "created": "2026-11-22T10:00:00.5Z",
        "config": {
            "rootfs": "/b/rootfs", "labels": ["bundle=/b", "a=b=c", "no separator"], "version": "1.3.0",
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/ns"}],
            "uid_mappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gid_mappings": [],
            "hooks": {"poststop": [{"path": "/h"}]}, "resources": {"pids": {"limit": 5}},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}}, "no_new_keyring": false
        },
        "rootless": false, "cgroup_paths": {"": "/sys/fs/cgroup/x"},
        "namespace_paths": {"NEWPID": "/proc/12/ns/pid"}, "external_descriptors": ["/dev/null"],
        "intel_rdt_path": ""
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["="])),
    ]
}

fn read_or_refuse(text: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(text) else { return };
    let written = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<State>(&written).unwrap(), state);
    assert!(!state.config.annotations().contains_key("bundle"));
    let _bundle = state.config.bundle();
}

#[test]
fn a_whole_state_is_read() {
    let state: State = serde_json::from_value(full()).unwrap();
    assert_eq!(state.config.bundle(), "/b");
    assert_eq!(state.config.annotations().get("a"), Some(&"b=c"));
    read_or_refuse(full().to_string().as_bytes());
}

/// A state root of this test, and its end.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_damaged_file_is_refused_by_name() {
    let root = Root(std::env::temp_dir().join(format!("ketch-state-{}", std::process::id())));
    fs::create_dir(&root.0).unwrap();
    let dir = StateDir::create(&root.0, "x").unwrap();
    let file = Path::new(dir.path()).join("state.json");
    let whole = full().to_string();
    for text in [&whole[..0], &whole[..1], &whole[..whole.len() / 2], "null", "[]", "\0"] {
        fs::write(&file, text).unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(dir.load().unwrap().id, "x");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_or_refuse(&bytes);
    }

    #[test]
    fn no_change_of_a_state_panics(
        changes in prop::collection::vec((prop::collection::vec(any::<usize>(), 1..5), any_value()), 1..4)
    ) {
        let mut json = full();
        for (steps, by) in &changes {
            replace(&mut json, steps, by);
        }
        read_or_refuse(json.to_string().as_bytes());
    }
}
