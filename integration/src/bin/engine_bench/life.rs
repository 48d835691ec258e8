//! Containers' lives: run, exec, a hundred at once, and a steady rate.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ketch_integration::ketchd::Http;
use serde_json::{Value, json};

use super::contender::{self, Contender, body, call};
use super::samples::{Samples, median, milliseconds};
use super::{Extent, OURS, knob};

const WARM_UPS: usize = 2;

/// Parts of a run, in order.
const PARTS: [&str; 4] = ["create", "start", "wait", "remove"];

/// A run of /bin/true: what each call has taken.
fn run(contender: &Contender<'_>, network: &str) -> [f64; 4] {
    let asked = body(network, &["/bin/true"], &Value::Null);
    let since = Instant::now();
    let made = contender.call("POST", "/containers/create", &asked);
    let id = made["Id"].as_str().expect("an id");
    let created = milliseconds(since);
    let _none = contender.call("POST", &format!("/containers/{id}/start"), &Value::Null);
    let started = milliseconds(since);
    let ended = contender.call("POST", &format!("/containers/{id}/wait"), &Value::Null);
    let waited = milliseconds(since);
    assert_eq!(ended["StatusCode"], 0, "{ended}");
    let _none = contender.call("DELETE", &format!("/containers/{id}"), &Value::Null);
    let removed = milliseconds(since);
    [created, started - created, waited - started, removed - waited]
}

/// An exec of /bin/true: made, its stream read to the end, its status asked for.
fn exec(contender: &Contender<'_>, container: &str) -> f64 {
    let since = Instant::now();
    let asked = json!({ "Cmd": ["/bin/true"], "AttachStdout": true, "AttachStderr": true });
    let made = contender.call("POST", &format!("/containers/{container}/exec"), &asked);
    let id = made["Id"].as_str().expect("an id");
    // Its connection is the stream, and ends with it.
    let mut http = contender.engine.http();
    let kind = ["Content-Type: application/json"];
    http.ask("POST", &format!("/exec/{id}/start"), &kind, r#"{"Detach":false}"#);
    let answer = http.head();
    assert_eq!(answer.status, 200, "{answer:?}");
    let _nothing = http.rest();
    let seen = contender.call("GET", &format!("/exec/{id}/json"), &Value::Null);
    assert_eq!(seen["ExitCode"], 0, "{seen}");
    milliseconds(since)
}

fn command_line(contender: &Contender<'_>, line: &str) -> f64 {
    let since = Instant::now();
    drop(contender.engine.docker(line).ok());
    milliseconds(since)
}

/// Run and exec in turns, then a hundred at once.
pub(crate) fn measure(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let asked = body("bridge", &["/bin/sleep", "1000000"], &Value::Null);
    let beside: Vec<String> = contenders.iter().map(|one| one.started(&asked)).collect();
    for turn in 0..extent.rounds + WARM_UPS {
        for offset in 0..contenders.len() {
            // Each turn another one is first.
            let at = (turn + offset) % contenders.len();
            let one = &contenders[at];
            let mut keep = |case: &str, value: f64| {
                if turn >= WARM_UPS {
                    samples.keep(case, one.key, value);
                }
            };
            for (network, name) in [("bridge", "run"), ("none", "run --network none")] {
                let parts = run(one, network);
                keep(&format!("{name}, ms"), parts.iter().sum());
                for (part, value) in PARTS.iter().zip(parts) {
                    keep(&format!("  {name}: {part}"), value);
                }
            }
            keep("exec, ms", exec(one, &beside[at]));
            if turn % 4 == 0 {
                keep("docker run --rm, ms", command_line(one, "run --rm busybox /bin/true"));
                let line = format!("exec {} /bin/true", beside[at]);
                keep("docker exec, ms", command_line(one, &line));
            }
        }
    }
    for _ in 0..extent.heavy {
        for one in contenders.iter() {
            samples.keep("100 created and started, 16 at once, ms", one.key, burst(one, 100, 16));
        }
    }
    contenders.iter().zip(&beside).for_each(|(one, id)| one.remove(id));
}

/// So many started by so many clients; they are removed before it returns.
fn burst(contender: &Contender<'_>, count: usize, clients: usize) -> f64 {
    let asked = body("bridge", &["/bin/sleep", "1000000"], &Value::Null);
    let ids = Mutex::new(Vec::new());
    let connections: Vec<Http> = (0..clients).map(|_| contender.engine.http()).collect();
    let next = AtomicUsize::new(0);
    let since = Instant::now();
    std::thread::scope(|scope| {
        for mut http in connections {
            let (next, ids, asked) = (&next, &ids, &asked);
            let _thread = scope.spawn(move || {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let id = contender::start(&mut http, asked);
                    ids.lock().expect("the ids").push(id);
                }
            });
        }
    });
    let taken = milliseconds(since);
    let ids = ids.into_inner().expect("the ids");
    std::thread::scope(|scope| {
        for part in ids.chunks(ids.len().div_ceil(8)) {
            let mut http = contender.engine.http();
            let _thread = scope.spawn(move || {
                for id in part {
                    let _none = call(&mut http, "DELETE", &format!("/containers/{id}?force=1"), &Value::Null);
                }
            });
        }
    });
    taken
}

/// Thirty a second with a network of their own, a published port, and a name to be resolved; each is waited for and removed.
pub(crate) fn rate(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let seconds = knob("RATE_SECONDS", if extent.quick { 10 } else { 60 });
    let wanted = knob("RATE", 30);
    for one in contenders.iter().filter(|one| one.key != super::PEER) {
        let _made = one.call("POST", "/networks/create", &json!({ "Name": "rate" }));
        let target = one.engine.client();
        drop(
            target
                .args([
                    "run",
                    "-d",
                    "--name",
                    "target",
                    "--network",
                    "rate",
                    "busybox",
                    "/bin/sleep",
                    "1000000",
                ])
                .run()
                .ok(),
        );
        let (latencies, failed) = steadily(one, wanted, seconds);
        let count = wanted * seconds;
        let timely = latencies.iter().filter(|latency| **latency < 1000.0).count();
        let share = |part: usize| f64::from(u32::try_from(part).unwrap_or(0));
        samples.keep(
            &format!("{wanted} starts a second for {seconds} s: started within 1 s, of all"),
            one.key,
            share(timely) / share(count),
        );
        samples.keep("  median from when it was due, ms", one.key, median(&latencies));
        let mut sorted = latencies.clone();
        sorted.sort_by(f64::total_cmp);
        samples.keep("  99th percentile, ms", one.key, sorted[(sorted.len() - 1) * 99 / 100]);
        samples.keep("  failed, or found no name", one.key, share(failed));
        one.remove("target");
        let _gone = one.call("DELETE", "/networks/rate", &Value::Null);
    }
    if !contenders.iter().any(|one| one.key == OURS) {
        eprintln!("rate: ketchd only");
    }
}

/// Latencies of starts from when each was due, and how many containers failed.
fn steadily(contender: &Contender<'_>, wanted: usize, seconds: usize) -> (Vec<f64>, usize) {
    let more = json!({
        "ExposedPorts": { "80/tcp": {} },
        "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "" }] } },
    });
    let asked = body("rate", &["/bin/nslookup", "-type=a", "target"], &more);
    let (next, latencies, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    let begin = Instant::now() + Duration::from_millis(100);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            let (next, latencies, failed, asked) = (&next, &latencies, &failed, &asked);
            let mut http = contender.engine.http();
            let _thread = scope.spawn(move || {
                loop {
                    let number = u32::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
                    if number as usize >= wanted * seconds {
                        return;
                    }
                    let due = begin + Duration::from_secs(1) * number / u32::try_from(wanted).unwrap_or(1);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let id = contender::start(&mut http, asked);
                    latencies.lock().expect("the latencies").push(milliseconds(due));
                    let ended = call(&mut http, "POST", &format!("/containers/{id}/wait"), &Value::Null);
                    if ended["StatusCode"] != 0 {
                        let _before = failed.fetch_add(1, Ordering::Relaxed);
                    }
                    let _none = call(&mut http, "DELETE", &format!("/containers/{id}"), &Value::Null);
                }
            });
        }
    });
    (latencies.into_inner().expect("the latencies"), failed.into_inner())
}
