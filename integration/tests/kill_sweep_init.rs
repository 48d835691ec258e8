//! kill -9 of the container's own processes at every system call on their way to execve: its first process, and the two
//! that `exec` makes. The runtime must end by itself and say what happened, and `delete --force` clears the rest.
//!
//! `step_killer` delivers the signal; `kill_sweep` does the same to the runtime.

use std::path::PathBuf;

use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::sample::Sample;
use ketch_integration::{Bundle, Case, Container, Output, probe, tests};

tests![create, create_in_a_joined_user_namespace, create_in_a_joined_pid_namespace, run, start, exec_stage, exec];

/// What the runtime says of a process that was killed before it could say anything itself.
const KILLED: &str = "the process was killed by signal 9 before it was ready";

/// What a process says its last word by, on x86-64: init's `Created` is its last write(2), and so is the `Pid` of who may
/// have its filter; a stage's is its last sendmsg(2).
const CREATED: i64 = 1;
const PID: i64 = 46;

/// One command; one of the processes around it is killed at one step after another.
struct Sweep<'a> {
    bundle: &'a Bundle<'a>,
    /// Every how many steps, in the ordinary suite.
    stride: usize,
    /// Makes what the command needs.
    prepare: &'a dyn Fn(),
    /// As `step_killer` names it.
    victim: &'a dyn Fn() -> String,
    command: &'a dyn Fn() -> Invocation,
    /// Whether the command's end is the right one for this death.
    ended_well: &'a dyn Fn(&Output, &Death) -> bool,
}

/// How far the victim got; lines of `step_killer`'s report.
struct Death {
    /// All that it calls when it is left alone.
    whole: Vec<String>,
    /// What it called this time. It was killed as it entered the last of these, and did not do that.
    steps: Vec<String>,
}

impl Death {
    /// Whether it had said its last word: what is left to it is the wait for the start, or its own end.
    fn is_after(&self, last_word: i64) -> bool {
        let said = |steps: &[String]| steps.iter().filter(|step| number(step) == last_word).count();
        let done = self.steps.split_last().map_or(&[][..], |(_, done)| done);
        said(done) == said(&self.whole)
    }
}

/// The number of a step's system call.
fn number(step: &str) -> i64 {
    step.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(-1)
}

impl Sweep<'_> {
    fn run(&self) {
        let case = self.bundle.case;
        case.needs(case.runtime.kind == Kind::Ketch, "only for a single-threaded runtime");
        case.not_sanitised("the search for leaks does not work under ptrace");
        let _ = self.killed_at(0);
        let whole = self.steps();
        clear(case, self.bundle, 0);
        let sample = Sample::of(case, whole.len(), self.stride);
        let mut hit = 0;
        for number in sample.numbers().map(|number| number + 1) {
            let out = self.killed_at(number);
            // The way may be a call shorter than the first time.
            let death = Death { whole: whole.clone(), steps: self.steps() };
            if death.steps.len() == number {
                hit += 1;
                assert!((self.ended_well)(&out, &death), "killed at step {number}: {out}");
            }
            clear(case, self.bundle, number);
        }
        sample.tell(hit);
        let taken = sample.numbers().count();
        assert!(taken - hit <= 1 + taken / 5, "only {hit} of {taken} were hit");
    }

    fn report(&self) -> PathBuf {
        self.bundle.case.dir.join("steps")
    }

    /// What the victim called up to its end.
    fn steps(&self) -> Vec<String> {
        probe::read(self.report()).lines().map(str::to_owned).collect()
    }

    fn killed_at(&self, step: usize) -> Output {
        (self.prepare)();
        let command = (self.command)();
        let killer = self.bundle.case.program(env!("CARGO_BIN_EXE_step_killer"));
        let killer = killer.arg(self.report()).arg((self.victim)()).arg(step.to_string());
        killer.arg(&command.program).args(command.args).run()
    }
}

fn clear(case: &Case, bundle: &Bundle<'_>, step: usize) {
    let out = case.ketch().args(["delete", "--force", &bundle.id]).run();
    assert!(out.code == 0, "step {step}: {out}");
    assert!(!case.state_root().join(&bundle.id).exists(), "step {step}: the state folder stays");
    assert!(!bundle.cgroup("pids").exists(), "step {step}: the cgroup stays");
    assert!(!probe::read("/proc/self/mountinfo").contains(&bundle.id), "step {step}: a mount stays");
}

fn failed_with_the_reason(out: &Output) -> bool {
    out.code != 0 && out.stderr.contains(KILLED)
}

/// `create` has failed and cleaned up, but for a process that was killed as it waited for the start: that container was
/// created, and is stopped.
fn create_ended_well(case: &Case, bundle: &Bundle<'_>, out: &Output, death: &Death) -> bool {
    if !death.is_after(CREATED) {
        return failed_with_the_reason(out) && !case.state_root().join(&bundle.id).exists();
    }
    if out.code == 0 {
        Container::adopt(case, &bundle.id).wait_status_and_keep("stopped");
    }
    out.code == 0
}

/// The command of a first process has failed, but where that had told, by its `last` word, of the process that it made.
fn first_ended_well(out: &Output, death: &Death, last: i64) -> bool {
    if death.is_after(last) { out.code == 0 } else { failed_with_the_reason(out) }
}

fn create(case: &Case) {
    let bundle = &case.bundle().sleeper();
    Sweep {
        bundle,
        stride: 13,
        prepare: &|| {},
        victim: &|| "child:1".into(),
        command: &|| bundle.create_command().arg(&bundle.id),
        ended_well: &|out, death| create_ended_well(case, bundle, out, death),
    }
    .run();
}

/// A first process makes the second, and ends: each is killed, with a stride of its own.
fn create_in_two(case: &Case, bundle: &Bundle<'_>, (first, second): (usize, usize), last: i64) {
    for (victim, stride) in [("child:1", first), ("child:2", second)] {
        Sweep {
            bundle,
            stride,
            prepare: &|| {},
            victim: &|| victim.into(),
            command: &|| bundle.create_command().arg(&bundle.id),
            ended_well: &|out, death| match victim {
                "child:1" => first_ended_well(out, death, last),
                _ => create_ended_well(case, bundle, out, death),
            },
        }
        .run();
    }
}

/// There the first process is a stage.
fn create_in_a_joined_user_namespace(case: &Case) {
    let holder = case.bundle().user_namespace(100_000).sleeper().start();
    let path = format!("/proc/{}/ns/user", holder.pid());
    let joined = |spec: &mut serde_json::Value| {
        for mappings in ["uidMappings", "gidMappings"] {
            let _ = spec["linux"].as_object_mut().unwrap().remove(mappings);
        }
    };
    let bundle = case.bundle().user_namespace(100_000).edit(joined).namespace("user", Some(&path));
    let bundle = &bundle.sleeper();
    create_in_two(case, bundle, (7, 29), PID);
}

/// There the first process makes the second at its very end.
fn create_in_a_joined_pid_namespace(case: &Case) {
    let holder = case.bundle().sleeper().start();
    let path = format!("/proc/{}/ns/pid", holder.pid());
    let bundle = &case.bundle().sleeper().namespace("pid", Some(&path));
    create_in_two(case, bundle, (13, 1), CREATED);
    assert_eq!(holder.status(), "running");
}

fn run(case: &Case) {
    let bundle = &case.bundle();
    Sweep {
        bundle,
        stride: 13,
        prepare: &|| {},
        victim: &|| "child:1".into(),
        command: &|| bundle.run_command().arg(&bundle.id),
        // Once it may run, its end is the container's.
        ended_well: &|out, _| failed_with_the_reason(out) || out.code == 137 || out.stderr.contains("has stopped"),
    }
    .run();
}

fn start(case: &Case) {
    let bundle = &case.bundle().sleeper();
    Sweep {
        bundle,
        stride: 1,
        prepare: &|| drop(bundle.create_command().arg(&bundle.id).run().ok()),
        victim: &|| {
            let state = case.ketch().args(["state", &bundle.id]).run().ok().json();
            format!("pid:{}", state["pid"])
        },
        command: &|| case.ketch().args(["start", &bundle.id]),
        // `start` is done with its byte; what it has started is seen to be gone.
        ended_well: &|_, _| {
            Container::adopt(case, &bundle.id).wait_status_and_keep("stopped");
            true
        },
    }
    .run();
}

fn exec_of(case: &Case, victim: &str, stride: usize, ended_well: &dyn Fn(&Output, &Death) -> bool) {
    let bundle = &case.bundle().sleeper();
    Sweep {
        bundle,
        stride,
        prepare: &|| {
            let _ = bundle.create_command().arg(&bundle.id).run().ok();
            let _ = case.ketch().args(["start", &bundle.id]).run().ok();
        },
        victim: &|| victim.into(),
        command: &|| case.ketch().args(["exec", &bundle.id, "/bin/true"]),
        ended_well: &|out, death| {
            let container = Container::adopt(case, &bundle.id);
            let lives = container.status() == "running" && container.exec(&["/bin/true"]).code == 0;
            std::mem::forget(container);
            lives && ended_well(out, death)
        },
    }
    .run();
}

/// What is born outside of the container's pid namespace, and makes the process there.
fn exec_stage(case: &Case) {
    exec_of(case, "child:1", 11, &|out, death| first_ended_well(out, death, CREATED));
}

fn exec(case: &Case) {
    // Once it may run, its end is that of the program.
    exec_of(case, "child:2", 1, &|out, _| failed_with_the_reason(out) || out.code == 137);
}
