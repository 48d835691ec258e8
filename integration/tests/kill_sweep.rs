//! kill -9 of the runtime at every system call of a command, then `delete --force`: nothing may remain.
//!
//! strace delivers the signal at the n-th system call of the runtime's own process, so that each step between two calls
//! is hit once; the leak check of the harness and the checks here see what stays. Only for a runtime whose calls come
//! from one thread: in a Go program the n-th call is another one each time.

use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::{Bundle, Case, Container, probe, tests};

tests![create, run, start, delete, exec, every_process_of_run_at_its_own_step];

/// The step between two kills: 1 for `make soak`; in the ordinary suite, which has no hour for it, `usual`.
fn stride(usual: usize) -> usize {
    if std::env::var_os("KETCH_SOAK_CYCLES").is_some() { 1 } else { usual }
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

/// One command, killed at one step after another.
struct Sweep<'a> {
    bundle: &'a Bundle<'a>,
    /// Every how many steps, in the ordinary suite.
    stride: usize,
    /// Makes what the command needs.
    prepare: &'a dyn Fn(),
    command: &'a dyn Fn() -> Invocation,
}

impl Sweep<'_> {
    /// Goes on until one run of the command gets through.
    fn run(&self) {
        let case = self.bundle.case;
        let mut killed = 0;
        for step in (1..).step_by(stride(self.stride)) {
            (self.prepare)();
            let out = killed_at(case, step, (self.command)(), &[]).run();
            clear(case, self.bundle, step);
            if out.code != 137 {
                break;
            }
            killed += 1;
            assert!(step < 20_000, "no end of the system calls");
        }
        assert!(killed > 1, "only {killed} steps were hit");
    }
}

fn create(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let command = || bundle.create_command().arg(&bundle.id);
    Sweep { bundle, stride: 9, prepare: &|| {}, command: &command }.run();
}

fn run(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle();
    let command = || bundle.run_command().arg(&bundle.id);
    Sweep { bundle, stride: 9, prepare: &|| {}, command: &command }.run();
}

fn start(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || drop(bundle.create_command().arg(&bundle.id).run().ok());
    let command = || case.ketch().args(["start", &bundle.id]);
    Sweep { bundle, stride: 3, prepare: &prepare, command: &command }.run();
}

fn delete(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["kill", &bundle.id, "KILL"]).run().ok();
        Container::adopt(case, &bundle.id).wait_status_and_keep("stopped");
    };
    let command = || case.ketch().args(["delete", &bundle.id]);
    Sweep { bundle, stride: 3, prepare: &prepare, command: &command }.run();
}

fn exec(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["start", &bundle.id]).run().ok();
    };
    let command = || case.ketch().args(["exec", &bundle.id, "/bin/true"]);
    Sweep { bundle, stride: 9, prepare: &prepare, command: &command }.run();
}

fn every_process_of_run_at_its_own_step(case: &Case) {
    sweepable(case);
    let bundle = case.bundle();
    for step in (1..600).step_by(stride(23)) {
        // Followed children count their own calls: the first process that comes to its n-th one dies, be it the runtime
        // or the container's.
        drop(killed_at(case, step, bundle.run_command().arg(&bundle.id), &["-f"]).run());
        clear(case, &bundle, step);
    }
}
