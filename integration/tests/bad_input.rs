//! Bad input: malformed specs, ids, folders and command lines, each refused by name and without a trace.

use std::fs;

use ketch_integration::{Bundle, Case, tests};
use serde_json::json;

tests![
    a_missing_bundle,
    a_missing_config,
    config_that_is_no_json,
    config_cut_short,
    a_field_of_the_wrong_type_is_named,
    no_process,
    empty_args,
    a_missing_rootfs_is_named,
    a_rootfs_that_is_a_file,
    a_root_path_that_is_empty,
    an_unknown_version,
    a_relative_cwd,
    a_relative_mount_destination,
    ids_that_break_the_rules,
    ids_that_keep_the_rules,
    unknown_fields_are_tolerated,
    too_few_arguments,
    too_many_arguments,
    an_unknown_flag,
    an_unknown_command,
    a_pid_file_that_cannot_be_written,
];

/// Writes `text` as config.json and runs it.
fn with_config(bundle: &Bundle<'_>, text: &str) -> ketch_integration::Output {
    let command = bundle.run_command();
    fs::write(bundle.dir.join("config.json"), text).expect("write config.json");
    command.arg(&bundle.id).run()
}

fn a_missing_bundle(case: &Case) {
    case.ketch().args(["run", "--bundle", "/no/such/bundle", &case.fresh_id()]).run().refuses(&["/no/such/bundle"]);
}

fn a_missing_config(case: &Case) {
    let folder = case.folder("empty");
    let out = case.ketch().arg("run").arg("--bundle").arg(folder).arg(case.fresh_id()).run();
    out.refuses(&["JSON specification file config.json not found"]);
}

fn config_that_is_no_json(case: &Case) {
    let _ = with_config(&case.bundle(), "this is no JSON").exits(1);
    let _ = with_config(&case.bundle(), "").exits(1);
    let _ = with_config(&case.bundle(), "[]").exits(1);
}

fn config_cut_short(case: &Case) {
    let bundle = case.bundle();
    let text = bundle.spec.to_string();
    let _ = with_config(&bundle, &text[..text.len() / 2]).exits(1);
}

fn a_field_of_the_wrong_type_is_named(case: &Case) {
    let fields = [
        ("/process/args", json!("not a list"), "args"),
        ("/process/user/uid", json!("root"), "uid"),
        ("/root/readonly", json!("yes"), "readonly"),
        ("/linux/resources/pids", json!({ "limit": "many" }), "limit"),
        ("/mounts", json!({ "destination": "/x" }), "mounts"),
        ("/linux/namespaces", json!("all"), "namespaces"),
    ];
    for (pointer, value, field) in fields {
        case.bundle().set(pointer, value).run().refuses(&[field]);
    }
}

fn no_process(case: &Case) {
    let bundle = case.bundle().edit(|spec| drop(spec.as_object_mut().unwrap().remove("process")));
    bundle.run().refuses(&["process property must not be empty"]);
}

fn empty_args(case: &Case) {
    case.bundle().command(&[]).run().refuses(&["args must not be empty"]);
}

fn a_missing_rootfs_is_named(case: &Case) {
    case.bundle().set("/root/path", json!("/no/such/rootfs")).run().refuses(&["/no/such/rootfs", "no such file or directory"]);
}

fn a_rootfs_that_is_a_file(case: &Case) {
    let _ = case.bundle().set("/root/path", json!("config.json")).run().exits(1);
}

fn a_root_path_that_is_empty(case: &Case) {
    let _ = case.bundle().edit(|spec| drop(spec.as_object_mut().unwrap().remove("root"))).run().exits(1);
}

fn an_unknown_version(case: &Case) {
    // runc does not look at the version; what counts is that nothing breaks.
    let _ = case.bundle().set("/ociVersion", json!("1.99.0")).run();
}

fn a_relative_cwd(case: &Case) {
    case.bundle().set("/process/cwd", json!("tmp")).run().refuses(&["must be an absolute path"]);
}

fn a_relative_mount_destination(case: &Case) {
    let bundle = case.bundle().mount(json!({ "destination": "mnt", "type": "tmpfs", "source": "tmpfs" }));
    let out = bundle.run();
    // Deprecated: some versions warn and take it as absolute.
    assert!(out.code == 0 || out.stderr.contains("mnt"), "{out}");
}

fn ids_that_break_the_rules(case: &Case) {
    let bundle = case.bundle();
    for id in ["a/b", "..", ".", "with space", "semi;colon", "ünicode"] {
        bundle.run_command().arg(id).run().refuses(&["invalid container ID format"]);
    }
    let _ = bundle.run_command().arg("").run().exits(1);
}

fn ids_that_keep_the_rules(case: &Case) {
    let bundle = case.bundle();
    let id = format!("{}-a_B+c.d-1", case.fresh_id());
    let _ = bundle.run_command().arg(id).run().ok();
}

fn unknown_fields_are_tolerated(case: &Case) {
    let bundle = case.bundle().set("/noSuchField", json!({ "a": 1 })).set("/linux/noSuchField", json!([1]));
    let _ = bundle.set("/process/noSuchField", json!("x")).run().ok();
}

fn too_few_arguments(case: &Case) {
    for command in ["create", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume", "update", "events"] {
        let out = case.ketch().arg(command).run();
        assert!(matches!(out.code, 1 | 255), "{command}: {out}");
        let text = format!("{}{}", out.stdout, out.stderr);
        assert!(text.contains("requires") || text.contains("Incorrect Usage") || text.contains("cannot be empty"), "{command}: {out}");
    }
}

fn too_many_arguments(case: &Case) {
    let out = case.ketch().args(["state", "one", "two"]).run().exits(1);
    assert!(out.stderr.contains("requires exactly 1 argument(s)"), "{out}");
}

fn an_unknown_flag(case: &Case) {
    let out = case.ketch().args(["state", "--no-such-flag", "id"]).run().exits(1);
    let text = format!("{}{}", out.stdout, out.stderr);
    assert!(text.contains("flag provided but not defined: -no-such-flag"), "{out}");
}

fn an_unknown_command(case: &Case) {
    let out = case.ketch().arg("no-such-command").run();
    assert!(out.code != 0, "{out}");
}

fn a_pid_file_that_cannot_be_written(case: &Case) {
    let bundle = case.bundle().sleeper();
    let out = bundle.create_command().args(["--pid-file", "/no/such/folder/pid"]).arg(&bundle.id).run();
    out.refuses(&["/no/such/folder"]);
    assert!(!case.state_root().join(&bundle.id).exists());
}
