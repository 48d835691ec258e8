//! list and ps, as tables and as JSON.

use ketch_integration::{Caller, Case, tests, user};

tests![
    list_table,
    list_json,
    list_quiet,
    list_of_an_empty_root,
    list_of_a_missing_root,
    ps_json,
    ps_table,
    ps_passes_options_on,
    ps_of_an_unknown_container,
    an_unknown_format_is_refused,
];

fn list_table(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let out = case.ketch().arg("list").run().ok();
    let lines: Vec<Vec<_>> = out.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let pid = container.pid().to_string();
    assert_eq!(lines[1][..4], [bundle.id.as_str(), &pid, "running", bundle.dir.to_str().expect("a path")]);
    let owner = if case.caller == Caller::User { user::NAME } else { "root" };
    assert_eq!(lines[1][5], owner);
}

fn list_json(case: &Case) {
    let one = case.bundle().sleeper().start();
    let two = case.bundle().sleeper().create();
    let list = case.ketch().args(["list", "--format", "json"]).run().ok().json();
    let mut found: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| (entry["id"].as_str().expect("an id").to_owned(), entry["status"].as_str().expect("a status").to_owned()))
        .collect();
    found.sort();
    assert_eq!(found, [(one.id.clone(), "running".to_owned()), (two.id.clone(), "created".to_owned())]);
}

fn list_quiet(case: &Case) {
    let container = case.bundle().sleeper().create();
    assert_eq!(case.ketch().args(["list", "-q"]).run().ok().stdout, format!("{}\n", container.id));
}

fn list_of_an_empty_root(case: &Case) {
    assert_eq!(case.ketch().args(["list", "-f", "json"]).run().ok().text(), "null");
    assert_eq!(case.ketch().args(["list", "-q"]).run().ok().stdout, "");
}

fn list_of_a_missing_root(case: &Case) {
    case.needs_runc(1, 2, "lists a missing root as an empty one");
    let missing = case.dir.join("no-such-root");
    case.bare().arg("--root").arg(missing).arg("list").run().refuses(&["no-such-root"]);
}

fn ps_json(case: &Case) {
    case.needs_own_cgroup();
    let container = case.bundle().sleeper().start();
    let pids = case.ketch().args(["ps", "--format", "json", &container.id]).run().ok().json();
    let pids: Vec<i64> = pids.as_array().expect("a list").iter().map(|pid| pid.as_i64().expect("a pid")).collect();
    assert!(pids.contains(&i64::from(container.pid())), "{pids:?}");
}

fn ps_table(case: &Case) {
    case.needs_own_cgroup();
    case.needs(case.has_program("ps"), "no ps program");
    let container = case.bundle().sleeper().start();
    let out = case.ketch().args(["ps", &container.id]).run().ok();
    assert!(out.stdout.starts_with("UID "), "{out}");
    assert!(out.stdout.contains(&container.pid().to_string()), "{out}");
}

fn ps_passes_options_on(case: &Case) {
    case.needs_own_cgroup();
    case.needs(case.has_program("ps"), "no ps program");
    let container = case.bundle().sleeper().start();
    let out = case.ketch().args(["ps", &container.id, "-e", "-x"]).run().ok();
    assert!(out.stdout.trim_start().starts_with("PID "), "{out}");
    assert!(out.stdout.contains(&container.pid().to_string()), "{out}");
}

fn ps_of_an_unknown_container(case: &Case) {
    case.ketch().args(["ps", "no-such"]).run().refuses(&["container does not exist"]);
}

fn an_unknown_format_is_refused(case: &Case) {
    let _container = case.bundle().sleeper().create();
    case.ketch().args(["list", "--format", "yaml"]).run().refuses(&["invalid format option"]);
}
