//! Memory, idle and with many containers; the list of a thousand; the engine's return with two hundred that run.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::contender::{self, Contender, body};
use super::samples::{Samples, milliseconds};
use super::{Extent, PEER, knob};

/// What a program makes of standing idle counts, whoever's it is: ours lets its pages go, Go's collects its garbage.
const IDLE: Duration = Duration::from_secs(5);

/// PSS of the engine's own processes, in MiB, once it has stood idle.
fn weight(contender: &Contender<'_>) -> f64 {
    std::thread::sleep(IDLE);
    contender.pids().into_iter().map(pss).sum()
}

/// A process's memory in MiB, its share of what it shares.
pub(crate) fn pss(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
}

/// Each engine with one image and nothing to do.
pub(crate) fn idle(contenders: &mut [Contender<'_>], _extent: Extent, samples: &mut Samples) {
    for one in contenders.iter() {
        samples.keep("memory when idle, PSS, MiB", one.key, weight(one));
    }
}

/// Made, by sixteen clients at once; started, if that is wanted.
fn many(contender: &Contender<'_>, count: usize, started: bool) {
    let asked = body("bridge", &["/bin/sleep", "1000000"], &Value::Null);
    std::thread::scope(|scope| {
        for client in 0..16 {
            let (asked, mut http) = (&asked, contender.engine.http());
            let _thread = scope.spawn(move || {
                for _ in (client..count).step_by(16) {
                    if started {
                        let _id = contender::start(&mut http, asked);
                    } else {
                        let _made = contender::call(&mut http, "POST", "/containers/create", asked);
                    }
                }
            });
        }
    });
}

fn running(contender: &Contender<'_>) -> usize {
    contender.call("GET", "/containers/json", &Value::Null).as_array().map_or(0, Vec::len)
}

/// Two hundred that run; a thousand in the list; the return after SIGTERM and after SIGKILL.
pub(crate) fn measure(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let (run, all) = (knob("MANY", 200), knob("LISTED", 1000));
    for one in contenders.iter_mut() {
        // Two hundred of the peer's take minutes, and nothing is promised of it.
        if one.key == PEER && (extent.quick || knob("PEER_CROWD", 1) == 0) {
            continue;
        }
        many(one, run, true);
        assert_eq!(running(one), run);
        samples.keep(&format!("memory with {run} running, PSS, MiB"), one.key, weight(one));
        if one.key != PEER {
            for round in 0..extent.heavy * 2 {
                if round % 2 == 0 {
                    one.engine.kill()
                } else {
                    one.engine.stop()
                }
                let since = Instant::now();
                one.engine.come_back();
                let taken = milliseconds(since);
                one.reconnect();
                assert_eq!(running(one), run, "all run on");
                samples.keep(&format!("return with {run} running, until the API serves, ms"), one.key, taken);
            }
            samples.keep(
                &format!("memory after a return with {run} running, PSS, MiB"),
                one.key,
                weight(one),
            );
        }
        many(one, all.saturating_sub(run), false);
        for _ in 0..extent.rounds {
            let since = Instant::now();
            let list = one.call("GET", "/containers/json?all=1", &Value::Null);
            samples.keep(
                &format!("list of {all} containers, {run} of them running, ms"),
                one.key,
                milliseconds(since),
            );
            assert_eq!(list.as_array().map(Vec::len), Some(all));
        }
        one.remove_all();
    }
}
