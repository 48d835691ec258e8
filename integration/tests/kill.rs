//! kill: signal names, numbers, whom it reaches, and its errors that callers match.

use ketch_integration::probe::is_dead;
use ketch_integration::{Caller, Case, tests, wait_until};

tests![
    signals_by_name_and_number,
    term_is_the_default,
    an_unknown_signal_is_refused,
    of_a_stopped_container_is_refused,
    of_an_unknown_container_is_refused,
    the_all_flag_is_accepted,
    of_a_created_container,
    without_a_pid_namespace_reaches_every_process,
];

const CATCHER: &str = "trap 'echo HUP' HUP; trap 'echo USR1' USR1; trap 'echo TERM; exit 0' TERM; echo up; \
    while :; do sleep 1000 & wait $!; done";

fn signals_by_name_and_number(case: &Case) {
    let container = case.bundle().script(CATCHER).start();
    container.wait_stdout("up");
    for (signal, count) in [("HUP", 1), ("SIGHUP", 2), ("1", 3), ("sighup", 4)] {
        if signal == "sighup" && case.is_runc_before(1, 1) {
            continue;
        }
        let _ = container.kill(signal).ok();
        wait_until(signal, || {
            let seen = container.stdout();
            if seen.matches("HUP").count() == count { Ok(()) } else { Err(seen) }
        });
    }
    let _ = container.kill("USR1").ok();
    container.wait_stdout("USR1");
}

fn term_is_the_default(case: &Case) {
    let container = case.bundle().script(CATCHER).start();
    container.wait_stdout("up");
    let _ = container.command("kill", &[]).run().ok();
    container.wait_stdout("TERM");
    container.wait_status("stopped");
}

fn an_unknown_signal_is_refused(case: &Case) {
    let container = case.bundle().sleeper().start();
    container.kill("NOSUCH").refuses(&["unknown signal"]);
    assert_eq!(container.status(), "running");
}

fn of_a_stopped_container_is_refused(case: &Case) {
    let container = case.bundle().start();
    container.wait_status("stopped");
    container.kill("KILL").refuses(&["container not running"]);
}

fn of_an_unknown_container_is_refused(case: &Case) {
    case.ketch().args(["kill", "no-such", "KILL"]).run().refuses(&["container does not exist"]);
}

fn the_all_flag_is_accepted(case: &Case) {
    let container = case.bundle().sleeper().start();
    if case.caller == Caller::User {
        // runc 1.1 looks for a cgroup then.
        case.needs_runc(1, 2, "kill --all needs a cgroup");
    }
    let _ = case.ketch().args(["kill", "--all", &container.id, "KILL"]).run().ok();
    container.wait_status("stopped");
    let _ = case.ketch().args(["kill", "-a", &container.id, "KILL"]).run().ok();
}

fn of_a_created_container(case: &Case) {
    let container = case.bundle().sleeper().create();
    let _ = container.kill("KILL").ok();
    container.wait_status("stopped");
}

fn without_a_pid_namespace_reaches_every_process(case: &Case) {
    case.needs_own_cgroup();
    case.needs_runc(1, 2, "kill without --all reaches the first process only");
    let bundle = case.bundle().without_namespace("pid").script("setsid sleep 1000 & echo $!; wait");
    let container = bundle.start();
    container.wait_stdout("\n");
    let pid: i32 = container.stdout().trim().parse().expect("a pid");
    container.stop();
    wait_until("the other process's end", || if is_dead(pid) { Ok(()) } else { Err("alive".into()) });
}
