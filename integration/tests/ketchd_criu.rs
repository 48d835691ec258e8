//! Checkpoints of containers by criu, over the API: what ends or is left running goes on where it was.
//!
//! criu 3.17 does not run on the test machines' kernel: these run in the VM (`make vm-test FILTER=ketchd_criu`), where no
//! dockerd 28.5 is to prove them on. dockerd's own test of it has been switched off since 2019 (moby issue 38963). What can be
//! asked of dockerd is in `ketchd_checkpoint`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};
use serde_json::json;

use crate::checkpoint::needs_criu;
use crate::ketchd_checkpoint::{COUNTS, experimental, listed, own, run};

tests![
    it_ends_and_goes_on_where_it_was,
    one_that_is_left_running,
    a_terminal_and_a_folder_of_the_clients_own,
];

/// The lines of the log are numbers, each the one after that before it.
#[track_caller]
fn consecutive(engine: &Engine<'_>) -> u64 {
    let log = engine.docker("logs box").ok();
    let lines: Vec<u64> = log.text().lines().map(|line| line.trim().parse().expect("a number")).collect();
    for pair in lines.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "{log}");
    }
    *lines.last().expect("a line")
}

/// Waits for a number in the log beyond this one.
#[track_caller]
fn wait_beyond(engine: &Engine<'_>, number: u64) {
    wait_until(&format!("a number beyond {number}"), || {
        let now = consecutive(engine);
        if now > number { Ok(()) } else { Err(now.to_string()) }
    });
}

fn it_ends_and_goes_on_where_it_was(case: &Case) {
    needs_criu(case);
    let engine = experimental(case);
    let script = format!("mkdir /tmp/w; echo page >/tmp/w/x; httpd -p 80 -h /tmp/w; {COUNTS}");
    run(&engine, "--restart always -p 127.0.0.1::80", &script);
    let fetch = || engine.sh("busybox wget -qO- http://$(docker port box 80 | head -n 1)/x").ok().text().to_owned();
    wait_beyond(&engine, 10);
    assert_eq!(fetch(), "page");
    let started = engine.inspect("box", "{{.State.StartedAt}}");
    assert_eq!(engine.docker("checkpoint create box one").ok().text(), "one");
    // It was stopped: its policy starts it no more.
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"), "exited 137 0");
    let last = consecutive(&engine);
    assert_eq!(listed(&engine, ""), json!([{"Name": "one"}]));
    let mode = fs::metadata(own(&engine).join("one")).expect("look at the checkpoint").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "memory is nobody else's");
    let _ = engine.docker("start --checkpoint one box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}{{.State.Error}}"), "running 0 0");
    assert_ne!(engine.inspect("box", "{{.State.StartedAt}}"), started);
    wait_beyond(&engine, last);
    assert_eq!(fetch(), "page");
    assert_eq!(engine.docker("exec box cat /proc/1/comm").ok().text(), "sh");
    assert_eq!(engine.inspect("box", "{{.State.Pid}}"), engine.docker("top box -o pid,comm").ok().text().lines().nth(1).and_then(|line| line.split_whitespace().next().map(str::to_owned)).expect("a process"));
    let seen = engine.sh("docker events --since 1 --until $(($(date +%s) + 1)) --filter container=box --format '{{.Action}}' | xargs").ok();
    let actions: Vec<_> = seen.text().split(' ').filter(|action| matches!(*action, "start" | "die" | "checkpoint")).collect();
    assert_eq!(actions, ["start", "checkpoint", "die", "start"]);
    // Once more, from the same one: it is as it was then.
    let _ = engine.docker("kill box").ok();
    let _ = engine.docker("start --checkpoint one box").ok();
    assert_eq!(fetch(), "page");
    let _ = engine.docker("checkpoint rm box one").ok();
    assert_eq!(listed(&engine, ""), json!([]));
    // What was restored is stopped and started as any other.
    let _ = engine.docker("restart -t 0 box").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}}"), "running");
    engine.end();
}

fn one_that_is_left_running(case: &Case) {
    needs_criu(case);
    let engine = experimental(case);
    run(&engine, "--network none --health-cmd true --health-interval 1h", COUNTS);
    wait_beyond(&engine, 10);
    let before = engine.inspect("box", "{{.State.Pid}} {{.State.StartedAt}}");
    let _ = engine.docker("checkpoint create --leave-running box one").ok();
    let _ = engine.docker("pause box").ok();
    let _ = engine.docker("checkpoint create --leave-running box frozen").ok();
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}"), format!("paused {before}"));
    let _ = engine.docker("unpause box").ok();
    wait_beyond(&engine, consecutive(&engine));
    assert_eq!(listed(&engine, ""), json!([{"Name": "frozen"}, {"Name": "one"}]));
    // A name is taken once.
    engine.docker("checkpoint create box one").refuses(&["checkpoint with name one already exists for container box"]);
    let _ = engine.docker("kill box").ok();
    let last = consecutive(&engine);
    let _ = engine.docker("start --checkpoint one box").ok();
    let log = || engine.docker("logs box").ok().text().lines().count();
    let lines = log();
    wait_until("two more lines", || if log() > lines + 1 { Ok(()) } else { Err(log().to_string()) });
    let numbers = engine.docker("logs box").ok();
    let after = numbers.text().lines().nth(usize::try_from(last).unwrap() + 1).and_then(|line| line.parse::<u64>().ok());
    assert!(after.is_some_and(|number| number > 10 && number <= last + 1), "{after:?}, where {last} was the last");
    engine.end();
}

fn a_terminal_and_a_folder_of_the_clients_own(case: &Case) {
    needs_criu(case);
    let engine = experimental(case);
    run(&engine, "-t -i --network none --init", COUNTS);
    wait_beyond(&engine, 10);
    let folder = engine.site.path("deep/folder");
    let at = folder.display();
    let _ = engine.docker(&format!("checkpoint create --checkpoint-dir {at} --leave-running box one")).ok();
    assert!(folder.join("one/inventory.img").exists());
    assert_eq!(fs::read_dir(&folder).expect("list the folder").count(), 1);
    assert_eq!(listed(&engine, ""), json!([]));
    assert_eq!(listed(&engine, &format!("?dir={at}")), json!([{"Name": "one"}]));
    let _ = engine.docker(&format!("checkpoint rm --checkpoint-dir {at} box one")).ok();
    assert_eq!(listed(&engine, &format!("?dir={at}")), json!([]));
    let _ = engine.docker("checkpoint create box one").ok();
    let last = consecutive(&engine);
    let _ = engine.docker("start --checkpoint one box").ok();
    wait_beyond(&engine, last);
    engine.end();
}
