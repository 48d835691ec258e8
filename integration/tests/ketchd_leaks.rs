//! Many containers that come and go, with all that a container can have: nothing piles up on the machine or in the daemon. A few here,
//! as many as `KETCH_SOAK_CYCLES` says in `make soak`.

use std::fs;

use ketch_integration::ketchd::traces::Traces;
use ketch_integration::ketchd::{Engine, Http};
use ketch_integration::{Case, tests, wait_until};
use serde_json::json;

tests![run_and_remove, exec_and_logs, networks_and_volumes];

fn cycles() -> usize {
    std::env::var("KETCH_SOAK_CYCLES").ok().and_then(|number| number.parse().ok()).unwrap_or(12)
}

/// The daemon's open files, and its resident memory in KiB.
fn size(engine: &Engine<'_>) -> (usize, u64) {
    let files = fs::read_dir(format!("/proc/{}/fd", engine.pid())).expect("list its files").count();
    let status = fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("read its status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    (files, resident.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// Does it so often, after a few times that make what stays.
fn cycle(engine: &Engine<'_>, mut once: impl FnMut(&mut Http)) {
    let mut http = engine.http();
    for _ in 0..3 {
        once(&mut http);
    }
    let before = Traces::settled(engine);
    let (files, memory) = size(engine);
    for _ in 0..cycles() {
        once(&mut http);
    }
    before.wait_same(engine, "after the last of them");
    wait_until("as many open files as before", || match size(engine) {
        // Threads of a pool, and the connection of a client that has just gone.
        (now, _) if now <= files + 4 => Ok(()),
        (now, _) => Err(format!("{now}, {files} before")),
    });
    let (files_now, memory_now) = size(engine);
    println!(
        "{}: {} cycles; files {files} -> {files_now}, resident {memory} -> {memory_now} KiB",
        engine.site.case.name,
        cycles()
    );
}

fn call(http: &mut Http, method: &str, path: &str, body: &serde_json::Value, status: u16) -> serde_json::Value {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let headers: &[&str] = if body.is_null() { &[] } else { &["Content-Type: application/json"] };
    let answer = http.call(method, path, headers, &text).is(status);
    if answer.body.is_empty() { serde_json::Value::Null } else { answer.json() }
}

fn run_and_remove(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create net").ok();
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", "echo hello; sleep 0.05"],
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000},
        "HostConfig": {
            "NetworkMode": "net", "Binds": ["named:/named"],
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        },
    });
    cycle(&engine, |http| {
        let made = call(http, "POST", "/containers/create", &body, 201);
        let id = made["Id"].as_str().expect("an id");
        call(http, "POST", &format!("/containers/{id}/start"), &json!(null), 204);
        let ended = call(http, "POST", &format!("/containers/{id}/wait"), &json!(null), 200);
        assert_eq!(ended["StatusCode"], 0);
        call(http, "DELETE", &format!("/containers/{id}?v=1&force=1"), &json!(null), 204);
    });
    let _ = engine.docker("network rm net").ok();
    engine.end();
}

fn exec_and_logs(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("it keeps a file for each exec that has ended for some minutes");
    let _ = engine.docker("run -d --name box --network none busybox sleep 100000").ok();
    let body = json!({"Cmd": ["echo", "hello"], "AttachStdout": true, "AttachStderr": true});
    cycle(&engine, |http| {
        let made = call(http, "POST", "/containers/box/exec", &body, 201);
        let id = made["Id"].as_str().expect("an id");
        // Its stream ends with its connection.
        let mut stream = engine.http();
        let answer = stream.call("POST", &format!("/exec/{id}/start"), &["Content-Type: application/json"], "{}").is(200);
        assert!(answer.body.contains("hello"), "{answer:?}");
        let _ = http.call("GET", "/containers/box/logs?stdout=1", &[], "").is(200);
    });
    engine.end();
}

fn networks_and_volumes(case: &Case) {
    let engine = Engine::start(case);
    cycle(&engine, |http| {
        call(http, "POST", "/networks/create", &json!({"Name": "net"}), 201);
        call(http, "POST", "/volumes/create", &json!({"Name": "vol"}), 201);
        call(http, "DELETE", "/networks/net", &json!(null), 204);
        call(http, "DELETE", "/volumes/vol", &json!(null), 204);
    });
    engine.end();
}
