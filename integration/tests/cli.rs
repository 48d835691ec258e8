//! The rest of the command line: version, help, spec, features, the log, single-dash flags.

use ketch_integration::{Caller, Case, tests};
use serde_json::{Value, json};

tests![
    version,
    help_of_every_command,
    spec_makes_a_bundle_that_runs,
    spec_does_not_overwrite,
    spec_rootless,
    features,
    log_as_json,
    log_as_text,
    errors_go_to_stderr_too,
    single_dash_flags,
    flags_with_equals,
    the_bundle_is_the_current_folder_by_default,
    debug_tells_the_steps_of_a_start,
];

fn version(case: &Case) {
    let out = case.bare().arg("--version").run().ok();
    assert!(out.stdout.contains("version") && out.stdout.contains("spec: "), "{out}");
    assert_eq!(case.bare().arg("-v").run().ok().stdout, out.stdout);
}

fn help_of_every_command(case: &Case) {
    let _ = case.bare().arg("--help").run().ok();
    for command in [
        "create", "start", "run", "exec", "state", "kill", "delete", "list", "ps", "pause", "resume", "update", "events", "spec",
        "features", "checkpoint", "restore",
    ] {
        let out = case.bare().args([command, "--help"]).run().ok();
        assert!(out.stdout.contains(command), "{out}");
    }
}

fn spec_makes_a_bundle_that_runs(case: &Case) {
    let bundle = case.bundle();
    std::fs::remove_file(bundle.write().join("config.json")).expect("remove");
    let rootless = if case.caller == Caller::User { Some("--rootless") } else { None };
    let _ = case.bare().arg("spec").args(rootless).arg("--bundle").arg(&bundle.dir).run().ok();
    let text = std::fs::read_to_string(bundle.dir.join("config.json")).expect("spec wrote it");
    let mut spec: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/echo", "ran"]);
    if case.caller == Caller::Root {
        spec["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    }
    std::fs::write(bundle.dir.join("config.json"), spec.to_string()).expect("write");
    let out = case.ketch().arg("run").arg("-b").arg(&bundle.dir).arg(&bundle.id).run().ok();
    assert_eq!(out.stdout, "ran\n");
}

fn spec_does_not_overwrite(case: &Case) {
    let folder = case.folder("spec");
    let _ = case.bare().arg("spec").cwd(&folder).run().ok();
    case.bare().arg("spec").cwd(&folder).run().refuses(&["config.json exists"]);
}

fn spec_rootless(case: &Case) {
    let folder = case.folder("spec");
    let _ = case.bare().args(["spec", "--rootless"]).cwd(&folder).run().ok();
    let spec: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).expect("read")).expect("JSON");
    assert!(spec["linux"]["uidMappings"].is_array(), "{spec}");
}

fn features(case: &Case) {
    let features = case.bare().arg("features").run().ok().json();
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
    for list in ["hooks", "mountOptions"] {
        assert!(features[list].as_array().is_some_and(|l| !l.is_empty()), "{list}");
    }
    let linux = &features["linux"];
    assert_eq!(linux["cgroup"]["v1"], true);
    assert_eq!(linux["cgroup"]["v2"], true);
    assert_eq!(linux["seccomp"]["enabled"], true);
    for list in ["namespaces", "capabilities"] {
        assert!(linux[list].as_array().is_some_and(|l| !l.is_empty()), "{list}");
    }
}

fn log_as_json(case: &Case) {
    let log = case.dir.join("log.json");
    let out = case.ketch().arg("--log").arg(&log).args(["--log-format", "json", "state", "no-such"]).run();
    let _ = out.exits(1);
    let text = std::fs::read_to_string(&log).expect("the log");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert_eq!(last["msg"], "container does not exist");
    // containerd decodes this field as RFC 3339 and drops the message when it cannot.
    let time = last["time"].as_str().expect("a time");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time}");
}

fn log_as_text(case: &Case) {
    let log = case.dir.join("log");
    let _ = case.ketch().arg("--log").arg(&log).args(["state", "no-such"]).run().exits(1);
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.contains("level=error msg=\"container does not exist\""), "{text}");
}

fn errors_go_to_stderr_too(case: &Case) {
    let log = case.dir.join("log");
    let out = case.ketch().arg("--log").arg(&log).args(["state", "no-such"]).run();
    out.refuses(&["container does not exist"]);
}

fn single_dash_flags(case: &Case) {
    let bundle = case.bundle().script("echo ran");
    bundle.write();
    let out = case.bare().arg("-root").arg(case.state_root()).args(["run", "-no-new-keyring", "-bundle"]);
    assert_eq!(out.arg(&bundle.dir).arg(&bundle.id).run().ok().stdout, "ran\n");
}

fn flags_with_equals(case: &Case) {
    let bundle = case.bundle().script("echo ran");
    bundle.write();
    let run = case.bare().arg(format!("--root={}", case.state_root().display())).arg("run");
    let run = run.arg(format!("--bundle={}", bundle.dir.display())).args(["--no-pivot=false", &bundle.id]);
    assert_eq!(run.run().ok().stdout, "ran\n");
}

fn the_bundle_is_the_current_folder_by_default(case: &Case) {
    let bundle = case.bundle().script("echo ran");
    bundle.write();
    assert_eq!(case.ketch().args(["run", &bundle.id]).cwd(&bundle.dir).run().ok().stdout, "ran\n");
}

/// In runc's words, which people search a debug log for.
fn debug_tells_the_steps_of_a_start(case: &Case) {
    let bundle = case.bundle().script("sleep 1000");
    let log = case.dir.join("log");
    let words = |args: &[&str]| {
        let _old = std::fs::remove_file(&log);
        let _ = case.ketch().arg("--debug").arg("--log").arg(&log).args(args).run().ok();
        std::fs::read_to_string(&log).expect("the log")
    };
    let tells = |text: &str, steps: &[&str]| {
        for step in steps {
            assert!(text.lines().any(|line| line.contains("level=debug") && line.contains(step)), "{step}: {text}");
        }
    };
    bundle.write();
    let folder = bundle.dir.display().to_string();
    let text = words(&["run", "-d", "-b", &folder, &bundle.id]);
    let end = "init: closing the pipe to signal completion";
    tells(&text, &["nsexec container setup", "child process in init()", end]);

    let process = case.dir.join("process.json");
    let affinity = r#"{"args": ["/bin/true"], "cwd": "/", "execCPUAffinity": {"initial": "0"}}"#;
    std::fs::write(&process, affinity).expect("the process's file");
    let text = words(&["exec", "--process", &process.display().to_string(), &bundle.id]);
    let end = "setns_init: about to exec";
    tells(&text, &["nsexec container setup", ": affinity: 0x1", "child process in init()", end]);
    let _ = case.ketch().args(["delete", "--force", &bundle.id]).run().ok();
}
