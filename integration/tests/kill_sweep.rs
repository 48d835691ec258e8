//! kill -9 of the runtime at every system call of a command, then `delete --force`: nothing may remain.
//!
//! strace delivers the signal at the n-th system call of the runtime's own process, so that each step between two calls
//! is hit once; the leak check of the harness and the checks here see what stays. Only for a runtime whose calls come
//! from one thread: in a Go program the n-th call is another one each time.

use std::collections::HashMap;

use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::sample::Sample;
use ketch_integration::{Bundle, Case, Container, probe, tests};

tests![create, create_in_a_joined_pid_namespace, run, start, delete, exec];

fn sweepable(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "only for a single-threaded runtime");
    case.needs(case.has_program("strace"), "no strace program");
    case.not_sanitised("the search for leaks does not work under ptrace");
}

/// A system call by its name, and the how-manieth of that name in its process: strace counts each name by itself.
type Step = (String, usize);

/// The steps of a command that is left alone, in their order.
fn steps(case: &Case, command: Invocation) -> Vec<Step> {
    let trace = case.dir.join("trace");
    let strace = case.program("/usr/bin/strace").arg("-qq").arg("-o").arg(&trace);
    let _ = strace.arg(&command.program).args(command.args).run().ok();
    let mut counts = HashMap::<String, usize>::new();
    let mut found = Vec::new();
    for line in probe::read(&trace).lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        found.push((name.to_owned(), *count));
    }
    // The first is the execve of strace itself.
    found.split_off(1)
}

/// The command under strace, killed as it enters that call.
fn killed_at(case: &Case, (name, count): &Step, command: Invocation) -> Invocation {
    let inject = format!("inject={name}:signal=KILL:when={count}");
    let strace = case.program("/usr/bin/strace").args(["-qq", "-o", "/dev/null", "-e", &inject]);
    strace.arg(&command.program).args(command.args)
}

fn clear(case: &Case, bundle: &Bundle<'_>, step: &Step) {
    let out = case.ketch().args(["delete", "--force", &bundle.id]).run();
    assert!(out.code == 0, "step {step:?}: {out}");
    assert!(!case.state_root().join(&bundle.id).exists(), "step {step:?}: the state folder stays");
    assert!(!bundle.cgroup("pids").exists(), "step {step:?}: the cgroup stays");
    assert!(!probe::read("/proc/self/mountinfo").contains(&case.tag), "step {step:?}: a mount stays");
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
    fn run(&self) {
        let case = self.bundle.case;
        (self.prepare)();
        let steps = steps(case, (self.command)());
        let _ = case.ketch().args(["delete", "--force", &self.bundle.id]).run().ok();
        let sample = Sample::of(case, steps.len(), self.stride);
        let mut killed = 0;
        for number in sample.numbers() {
            let step = &steps[number];
            (self.prepare)();
            let out = killed_at(case, step, (self.command)()).run();
            clear(case, self.bundle, step);
            killed += usize::from(out.code == 137);
        }
        sample.tell(killed);
        // A wait may take one call more or less from run to run.
        assert!(killed * 10 >= sample.numbers().count() * 8, "only {killed} of {} were hit", sample.numbers().count());
    }
}

fn create(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let command = || bundle.create_command().arg(&bundle.id);
    Sweep { bundle, stride: 11, prepare: &|| {}, command: &command }.run();
}

fn create_in_a_joined_pid_namespace(case: &Case) {
    sweepable(case);
    let holder = case.bundle().sleeper().start();
    let path = format!("/proc/{}/ns/pid", holder.pid());
    let bundle = &case.bundle().sleeper().namespace("pid", Some(&path));
    let command = || bundle.create_command().arg(&bundle.id);
    Sweep { bundle, stride: 17, prepare: &|| {}, command: &command }.run();
    assert_eq!(holder.status(), "running");
}

fn run(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle();
    let command = || bundle.run_command().arg(&bundle.id);
    Sweep { bundle, stride: 11, prepare: &|| {}, command: &command }.run();
}

fn start(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || drop(bundle.create_command().arg(&bundle.id).run().ok());
    let command = || case.ketch().args(["start", &bundle.id]);
    Sweep { bundle, stride: 5, prepare: &prepare, command: &command }.run();
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
    Sweep { bundle, stride: 5, prepare: &prepare, command: &command }.run();
}

fn exec(case: &Case) {
    sweepable(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["start", &bundle.id]).run().ok();
    };
    let command = || case.ketch().args(["exec", &bundle.id, "/bin/true"]);
    Sweep { bundle, stride: 11, prepare: &prepare, command: &command }.run();
}
