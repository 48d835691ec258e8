//! The layering rules of DESIGN.md sections 3 and 8 that no compiler holds: who may depend on whom, what a file may
//! name, and names that are banned. Part of `make check`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate's direct dependencies, development ones included. A new one is added here with its use, or not at all.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    (
        "ketch",
        &[
            "ketch-sys",
            "caps",
            "clap",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "thiserror",
            "proptest",
            "clap_complete",
            "clap_mangen",
        ],
    ),
    ("ketch-sys", &["libc", "nix", "thiserror"]),
    ("ketch-runtime-client", &["rustix", "serde", "serde_json", "thiserror", "tokio"]),
    (
        "containerd-shim-ketch",
        &[
            "ketch-runtime-client",
            "ketch-shim-api",
            "ketch-shim-sys",
            "basic-toml",
            "prost",
            "rustix",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
        ],
    ),
    ("ketch-shim-api", &["prost"]),
    ("ketchd-sys", &["libc"]),
    ("ketch-engine-api", &["serde", "serde_json"]),
    ("ketch-cluster", &["jiff", "serde", "thiserror", "proptest", "serde_json"]),
    ("ketch-convert", &["ketch-cluster", "ketch-engine-api", "base64", "serde", "serde_json"]),
    (
        "ketch-scale",
        &[
            "ketch-ca",
            "ketch-cluster",
            "ketch-node",
            "ketch-raft",
            "futures-util",
            "redb",
            "rustix",
            "serde_json",
            "tokio",
        ],
    ),
    (
        "ketch-sim",
        &[
            "ketch-ca",
            "ketch-cluster",
            "ketch-node",
            "ketch-raft",
            "bytes",
            "futures-util",
            "serde",
            "serde_json",
            "tokio",
            "turmoil",
        ],
    ),
    (
        "ketch-node",
        &[
            "ketch-ca",
            "ketch-cluster",
            "ketch-raft",
            "base64",
            "bytes",
            "futures-util",
            "http-body-util",
            "hyper",
            "hyper-util",
            "redb",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "tracing",
            "proptest",
        ],
    ),
    (
        "ketch-ca",
        &[
            "ketch-cluster",
            "base64",
            "p256",
            "rcgen",
            "ring",
            "rustls",
            "sha2",
            "subtle",
            "thiserror",
            "x509-parser",
            "proptest",
        ],
    ),
    (
        "ketchd",
        &[
            "ketch-ca",
            "ketch-cluster",
            "ketch-convert",
            "ketch-engine-api",
            "ketch-node",
            "ketch-raft",
            "ketch-shim-api",
            "ketchd-sys",
            "bytes",
            "bzip2",
            "flate2",
            "futures-util",
            "http-body-util",
            "hyper",
            "hyper-util",
            "prost",
            "redb",
            "regex-lite",
            "saphyr-parser",
            "rustix",
            "rustix-libc-wrappers",
            "seccompiler",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "tokio-rustls",
            "tracing",
            "tracing-subscriber",
            "proptest",
            "zstd",
            "base64",
            "webpki-roots",
        ],
    ),
    ("ketch-shim-sys", &["rustix", "tokio"]),
    (
        "ketch-raft",
        &[
            "ketch-cluster",
            "chacha20poly1305",
            "futures-util",
            "openraft",
            "openraft-rt",
            "openraft-rt-tokio",
            "redb",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "proptest",
        ],
    ),
    ("ketch-integration", &["bytes", "h2", "http", "nix", "rustix", "serde", "serde_json", "tokio"]),
];

const UNSAFE: &[&str] = &["unsafe {", "unsafe fn", "unsafe impl"];

/// What a node reaches by its world and its executor only, so that the simulation can be both.
const MACHINE: &[&str] =
    &["tokio::net", "tokio::fs", "std::net::Tcp", "std::fs", "std::time::Instant", "SystemTime", "rand::"];
const BY_ITS_WORLD: &str =
    "a node reaches the machine by its world and its executor, which the simulation has too";

/// Under a folder, text that no line of code may hold, and why.
const MUST_NOT_NAME: &[(&str, &[&str], &str)] = &[
    ("runtime/src", &["nix::", "libc::", "rustix::"], "the runtime's only door to the kernel is ketch_sys"),
    (
        "runtime/src",
        &["tokio", "thread::spawn", "thread::scope", "thread::Builder"],
        "the runtime is synchronous and single-threaded",
    ),
    ("runtime/src", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    ("runtime/client", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    ("shim/src", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    ("shim/api", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    ("agent", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    ("agent", &["ketch::", "ketch_sys", "libc::", "nix::"], "the agent drives a shim, and links no runtime"),
    ("agent/src/api", &["crate::network::", "crate::shim::"], "a route translates and calls"),
    (
        "agent/cluster/src",
        &[
            "tokio",
            "std::fs",
            "std::process",
            "std::thread",
            "Instant",
            "SystemTime",
            "rand::",
            "HashMap",
            "HashSet",
        ],
        "the cluster is pure and deterministic: time and the bits of ids are arguments, and no order is a hash's",
    ),
    ("agent/node/src/manager", MACHINE, BY_ITS_WORLD),
    ("agent/node/src/dispatcher", MACHINE, BY_ITS_WORLD),
    ("agent/node/src/worker", MACHINE, BY_ITS_WORLD),
    ("agent/node/src/wire", MACHINE, BY_ITS_WORLD),
    ("agent/node/src/node", MACHINE, BY_ITS_WORLD),
    ("integration", UNSAFE, "`unsafe` lives in runtime/sys, shim/sys and agent/sys only"),
    (
        "shim",
        &["thread::spawn", "thread::scope", "thread::Builder", "spawn_blocking", "new_multi_thread"],
        "a shim is one thread: another would cost memory in each of hundreds",
    ),
    ("shim", &["ketch::", "ketch_sys", "libc::", "nix::"], "the shim executes a runtime, and links none"),
    ("shim", &["set_no_new_privs", "seccomp"], "every container would inherit it"),
    (
        "runtime/src/plan",
        &["ketch_sys", "crate::init", "crate::rootfs", "crate::cgroup", "std::fs", "std::process"],
        "a plan is pure data: it decides, and others do",
    ),
    ("runtime/src/cli", &["ketch_sys"], "a command is flags and one call of the library"),
    ("integration", &["ketch::", "use ketch_sys"], "the integration tests drive built binaries only"),
];

/// A door within a folder of the list above: what is banned there is what it is for.
const DOOR: &str = "agent/sys";

const BANNED_FILE_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "core", "impl"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("integration/ is in the workspace").to_owned()
}

/// All Rust sources below a folder but this one, which names what it bans; none when the folder is not there yet.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests/layering.rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of code with their numbers: neither comments nor what follows `#[cfg(test)]` at the end of a file.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("run cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo prints JSON")
}

fn direct_dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let names = package["dependencies"].as_array().expect("dependencies").iter();
            let names = names.map(|dep| dep["name"].as_str().expect("a name").to_owned()).collect();
            (package["name"].as_str().expect("a name").to_owned(), names)
        })
        .collect()
}

#[test]
fn crates_depend_only_on_what_their_allow_list_names() {
    let mut broken = Vec::new();
    for (package, dependencies) in direct_dependencies() {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| *name == package) else {
            broken.push(format!("{package}: no allow-list in this test"));
            continue;
        };
        let extra = dependencies.iter().filter(|name| !allowed.contains(&name.as_str()));
        broken.extend(extra.map(|name| format!("{package} -> {name}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What is for tests only is a feature that nothing turns on: no default, no dependency, no build of the Makefile's
/// release. That the binary has none of it, fault_sweep::the_release_has_no_door sees.
#[test]
fn no_release_has_a_feature_for_tests() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        assert!(package["features"].get("default").is_none(), "{} has default features", package["name"]);
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let turned_on = dependency["features"].as_array().expect("features");
            assert!(
                !turned_on.iter().any(|name| name == "fault-injection" || name == "faults"),
                "{} turns it on",
                package["name"]
            );
            // The release is built of three packages, none of which is the simulation.
            assert!(
                package["name"] == "ketch-sim" || !turned_on.iter().any(|name| name == "seeded"),
                "{} has keys of a seed",
                package["name"]
            );
        }
    }
    let makefile = fs::read_to_string(root().join("Makefile")).expect("read the Makefile");
    let release = makefile.lines().filter(|line| line.contains("cargo build") && line.contains("--release"));
    assert!(release.clone().count() > 0, "the Makefile builds a release");
    assert!(
        !release.into_iter().any(|line| line.contains("--features")),
        "the release is built without features"
    );
}

#[test]
fn no_file_names_what_is_below_or_beside_its_layer() {
    let mut broken = Vec::new();
    for (folder, names, reason) in MUST_NOT_NAME {
        for file in sources(&root().join(folder)) {
            if file.starts_with(root().join(DOOR)) {
                continue;
            }
            let text = fs::read_to_string(&file).expect("read a source");
            for (number, line) in code_lines(&text) {
                for name in names.iter().filter(|name| names_it(line, name)) {
                    broken.push(format!("{}:{number}: {name}: {reason}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Which of several branches goes first would be tokio's draw, and no run of the simulation like another.
#[test]
fn every_select_of_a_node_is_biased() {
    let mut broken = Vec::new();
    for file in ["agent/node/src", "agent/raft/src", "agent/sim/src"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
    {
        let text = fs::read_to_string(&file).expect("read a source");
        let mut lines = code_lines(&text).peekable();
        while let Some((number, line)) = lines.next() {
            let is_biased = lines.peek().is_some_and(|(_, next)| next.trim() == "biased;");
            if line.contains("select! {") && !is_biased {
                broken.push(format!("{}:{number}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "no `biased;` in {broken:#?}");
}

/// Whether `name` stands in `line` on its own, not as the end of a longer word.
fn names_it(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|before| before.is_alphanumeric() || "_:".contains(before))
    })
}

#[test]
fn no_file_or_function_has_a_banned_name() {
    let mut broken = Vec::new();
    for file in ["runtime", "shim", "agent/cluster", "integration"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
    {
        let stem = file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        if BANNED_FILE_NAMES.contains(&stem.as_str()) {
            broken.push(format!("{}: file name", file.display()));
        }
        let text = fs::read_to_string(&file).expect("read a source");
        broken.extend(
            code_lines(&text)
                .filter(|(_, line)| names_it(line, "fn get_"))
                .map(|(number, line)| format!("{}:{number}: {}", file.display(), line.trim())),
        );
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_module_opens_with_what_it_owns() {
    let missing: Vec<_> = ["runtime", "shim", "agent/cluster", "integration"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .filter(|file| !fs::read_to_string(file).expect("read a source").starts_with("//!"))
        .collect();
    assert!(missing.is_empty(), "no `//!` at the top of {missing:#?}");
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    let mut broken = Vec::new();
    for file in ["runtime/sys/src", "shim/sys/src"].iter().flat_map(|folder| sources(&root().join(folder))) {
        let text = fs::read_to_string(&file).expect("read a source");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let opens = line.contains("unsafe {") && !line.trim_start().starts_with("//");
            let reason = lines[index.saturating_sub(12)..=index].iter().any(|line| line.contains("SAFETY:"));
            if opens && !reason {
                broken.push(format!("{}:{}", file.display(), index + 1));
            }
        }
    }
    assert!(broken.is_empty(), "no SAFETY reason above {broken:#?}");
}
