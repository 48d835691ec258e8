//! events: one sample, the stream, and the notice of an OOM kill.

use ketch_integration::runtime::Kind;
use ketch_integration::{Case, tests, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

tests![
    one_sample,
    a_stream_of_samples,
    an_oom_kill_is_told,
    exceeded_pressure_is_told,
    of_a_stopped_container,
    of_an_unknown_container,
];

fn one_sample(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    let sample = case.ketch().args(["events", "--stats", &container.id]).run().ok().json();
    assert_eq!(sample["type"], "stats");
    assert_eq!(sample["id"], json!(bundle.id));
    assert!(sample["data"]["cpu"]["usage"].is_object(), "{sample}");
    if !case.layout.is_v2() {
        assert_eq!(sample["data"]["pids"]["current"].as_u64().map(|n| n > 0), Some(true), "{sample}");
        assert!(sample["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|n| n > 0), "{sample}");
    }
}

fn a_stream_of_samples(case: &Case) {
    // The stream watches for OOM kills too, in a file of that controller.
    case.needs_controller("memory");
    let container = case.bundle().sleeper().start();
    let running = case.ketch().args(["events", "--interval", "100ms", &container.id]).spawn();
    wait_until("three samples", || {
        let seen = running.stdout_now();
        if seen.lines().count() >= 3 { Ok(()) } else { Err(seen) }
    });
    running.signal(Signal::TERM);
    let out = running.wait();
    for line in out.stdout.lines().take(3) {
        let sample: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        assert_eq!(sample["type"], "stats");
    }
}

fn an_oom_kill_is_told(case: &Case) {
    case.v1_only("the memory controller is on v1 here");
    let bundle = case.bundle().script("read go < /dev/shm/go; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000");
    let bundle = bundle.set("/linux/resources/memory", json!({ "limit": 20 << 20, "swap": 20 << 20 }));
    let bundle = bundle.set("/hooks/startContainer", json!([{ "path": "/bin/mkfifo", "args": ["mkfifo", "/dev/shm/go"] }]));
    let container = bundle.start();
    let running = case.ketch().args(["events", "--interval", "1s", &container.id]).spawn();
    // The first sample shows that it is listening.
    wait_until("the first sample", || {
        let seen = running.stdout_now();
        if seen.contains("stats") { Ok(()) } else { Err(seen + &running.stderr_now()) }
    });
    let _ = container.exec(&["/bin/sh", "-c", "echo go > /dev/shm/go"]).ok();
    wait_until("the notice", || {
        let seen = running.stdout_now();
        if seen.contains(r#""type":"oom""#) { Ok(()) } else { Err(seen) }
    });
    running.signal(Signal::TERM);
    let _ = running.wait();
}

/// Two thresholds of one file, of which one can't be exceeded; the stream ends with the container.
fn exceeded_pressure_is_told(case: &Case) {
    case.v2_only("pressure files");
    case.needs(case.runtime.kind == Kind::Ketch, "only ketch watches pressure");
    case.root_only("sets a threshold in the container's cgroup");
    case.needs(std::fs::read_to_string("/proc/pressure/cpu").is_ok(), "a kernel without PSI");
    // Three that want the same CPU.
    let busy = "for i in 1 2 3; do taskset 1 sh -c 'while :; do :; done' & done; wait";
    let (met, never) = ("some 100000 2000000", "full 2000000 2000000");
    let bundle = case.bundle().script(busy);
    let bundle = bundle.set("/linux/resources/unified", json!({ "cpu.pressure": format!("{met}\n{never}") }));
    let container = bundle.start();
    let running = case.ketch().args(["events", &container.id]).spawn();
    wait_until("the notice", || {
        let seen = running.stdout_now();
        if seen.contains(r#""type":"pressure""#) { Ok(()) } else { Err(seen + &running.stderr_now()) }
    });
    container.stop();
    let out = running.wait().ok();
    let told = out.stdout.lines().filter(|line| line.contains("pressure\",\"id"));
    for line in told {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        assert_eq!(event["id"], json!(bundle.id));
        assert_eq!(event["data"], json!({ "file": "cpu.pressure", "threshold": met }));
    }
}

fn of_a_stopped_container(case: &Case) {
    let container = case.bundle().start();
    container.wait_status("stopped");
    case.ketch().args(["events", "--stats", &container.id]).run().refuses(&["is not running"]);
}

fn of_an_unknown_container(case: &Case) {
    case.ketch().args(["events", "--stats", "no-such"]).run().refuses(&["container does not exist"]);
}
