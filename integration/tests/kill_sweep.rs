//! kill -9 of the runtime at every system call of a command, then `delete --force`: nothing may remain.
//!
//! strace delivers the signal at the n-th system call of the runtime's own process, so that each step between two calls
//! is hit once; the leak check of the harness and the checks here see what stays. Only for a runtime whose calls come
//! from one thread: in a Go program the n-th call is another one each time.

use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::{Bundle, Case, Container, probe, tests};

tests![create, run, start, delete, exec, kill_of_the_init_process_during_create];

/// The step between two kills: 1 for `make soak`, more in the ordinary suite, which has no hour for it.
fn stride() -> usize {
    if std::env::var_os("KETCH_SOAK_CYCLES").is_some() { 1 } else { 9 }
}

fn sweepable(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "only for a single-threaded runtime");
    case.needs(case.has_program("strace"), "no strace program");
}

/// The command under strace, killed as it enters its `step`th system call.
fn killed_at(case: &Case, step: usize, command: Invocation, follow: &[&str]) -> Invocation {
    let inject = format!("inject=all:signal=KILL:when={step}");
    let strace = case.program("/usr/bin/strace").args(follow).args(["-qq", "-o", "/dev/null", "-e", &inject]);
    strace.arg(&command.program).args(command.args)
}

fn clear(case: &Case, bundle: &Bundle<'_>, step: usize) {
    let out = case.ketch().args(["delete", "--force", &bundle.id]).run();
    assert!(out.code == 0, "step {step}: {out}");
    assert!(!case.state_root().join(&bundle.id).exists(), "step {step}: the state folder stays");
    assert!(!bundle.cgroup("pids").exists(), "step {step}: the cgroup stays");
    assert!(!probe::read("/proc/self/mountinfo").contains(&case.tag), "step {step}: a mount stays");
}

/// Kills `command` at every step until one run of it gets through.
fn sweep(case: &Case, bundle: &Bundle<'_>, follow: &[&str], prepare: impl Fn(), command: impl Fn() -> Invocation) {
    let mut killed = 0;
    for step in (1..).step_by(stride()) {
        prepare();
        let out = killed_at(case, step, command(), follow).run();
        clear(case, bundle, step);
        if out.code != 137 && killed > 0 {
            break;
        }
        killed += usize::from(out.code == 137);
        assert!(step < 20_000, "no end of the system calls");
    }
    assert!(killed > 3, "only {killed} steps were hit");
}

fn create(case: &Case) {
    sweepable(case);
    let bundle = case.bundle().sleeper();
    sweep(case, &bundle, &[], || {}, || bundle.create_command().arg(&bundle.id));
}

fn run(case: &Case) {
    sweepable(case);
    let bundle = case.bundle();
    sweep(case, &bundle, &[], || {}, || bundle.run_command().arg(&bundle.id));
}

fn start(case: &Case) {
    sweepable(case);
    let bundle = case.bundle().sleeper();
    let prepare = || drop(bundle.create_command().arg(&bundle.id).run().ok());
    sweep(case, &bundle, &[], prepare, || case.ketch().args(["start", &bundle.id]));
}

fn delete(case: &Case) {
    sweepable(case);
    let bundle = case.bundle();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["kill", &bundle.id, "KILL"]).run().ok();
        Container::adopt(case, &bundle.id).wait_status_and_keep("stopped");
    };
    sweep(case, &bundle, &[], prepare, || case.ketch().args(["delete", &bundle.id]));
}

fn exec(case: &Case) {
    sweepable(case);
    let bundle = case.bundle().sleeper();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["start", &bundle.id]).run().ok();
    };
    sweep(case, &bundle, &[], prepare, || case.ketch().args(["exec", &bundle.id, "/bin/true"]));
}

fn kill_of_the_init_process_during_create(case: &Case) {
    sweepable(case);
    let bundle = case.bundle().sleeper();
    for step in (1..400).step_by(stride() * 3) {
        // Followed children count their own calls, so that the init process dies at its n-th one; the runtime, whose
        // n-th call may come first, is then the one to die. Either way nothing may remain.
        let out = killed_at(case, step, bundle.create_command().arg(&bundle.id), &["-f"]).run();
        clear(case, &bundle, step);
        drop(out);
    }
}
