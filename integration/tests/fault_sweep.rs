//! Every system call of create, run, start, exec and delete fails once, with each of the usual errors: the command ends,
//! says which call it was, and nothing is left behind.
//!
//! Drives a build of its own, whose calls all pass one door (`ketch-sys`, feature `fault-injection`); the release has
//! none. `make soak` tries every call with every error, the ordinary suite a sample, of which the seed and size are printed
//! (KETCH_FAULT_SEED=<n> repeats one).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ketch_integration::leak::Leaks;
use ketch_integration::runtime::{Invocation, Kind};
use ketch_integration::{Bundle, Case, Container, Output, tests, wait_until};

mod tolerated;

use tolerated::{BEFORE_MAIN, errno, is_named, kernels_name, tolerated};

tests![create, create_in_a_joined_pid_namespace, run, start, exec, delete, every_call_passes_the_door, the_release_has_no_door];

/// What the kernel answers when memory or a disk fails, when a policy forbids, and when a signal interrupts.
const ERRNOS: [(i32, &str); 5] = [
    (errno::EIO, "input/output error"),
    (errno::ENOMEM, "cannot allocate memory"),
    (errno::EPERM, "operation not permitted"),
    (errno::EACCES, "permission denied"),
    (errno::EINTR, "interrupted system call"),
];

/// How many faults of a command the ordinary suite tries.
const SAMPLE: usize = 60;

/// Longer than any command takes here, in seconds; a command that still runs then hangs.
const DEADLINE: &str = "30";

/// The build with the door, made by `make fault-injection`.
fn binary(case: &Case) -> PathBuf {
    case.needs(case.runtime.kind == Kind::Ketch, "only for ketch, which has a build with fault injection");
    case.not_sanitised("drives a build of its own");
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/fault-injection/x86_64-unknown-linux-gnu/quick/ketch"
    );
    case.needs(fs::exists(path).unwrap_or(false), "no build with fault injection (`make fault-injection`)");
    path.into()
}

/// A system call: which process makes it (1 is the runtime, 11 its first child, ...), its place there, its name.
#[derive(Clone, Debug)]
struct Call {
    process: String,
    number: String,
    name: String,
    /// A path, or a number that says which call of the name it is.
    operand: String,
}

/// What a run with a log has called, in the order of each process.
fn calls(case: &Case, command: Invocation) -> Vec<Call> {
    let log = case.dir.join("calls");
    let _ = fs::remove_file(&log);
    let _ = command.env("KETCH_FAULT_LOG", &log).run().ok();
    read_log(&log).into_iter().map(|(call, _)| call).collect()
}

/// The log's calls, and whether each was made to fail. The first eight bytes are its length.
fn read_log(log: &std::path::Path) -> Vec<(Call, bool)> {
    let bytes = fs::read(log).expect("read the log of calls");
    let text = String::from_utf8_lossy(&bytes[8..]).into_owned();
    text.trim_end_matches('\0')
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(4, ' ').map(str::to_owned);
            let (process, number) = (words.next()?, words.next()?);
            let failed = number.starts_with('!');
            let number = number.trim_start_matches('!').to_owned();
            Some((Call { process, number, name: words.next()?, operand: words.next()? }, failed))
        })
        .collect()
}

/// A sequence that looks random and is the same for a seed: the high bits of a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

fn seed() -> u64 {
    let given = std::env::var("KETCH_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_secs())
    })
}

/// All faults, or a sample of them.
fn chosen(name: &str, calls: &[Call]) -> Vec<(Call, (i32, &'static str))> {
    let mut all: Vec<_> =
        calls.iter().flat_map(|call| ERRNOS.map(|error| (call.clone(), error))).collect();
    let everything = std::env::var_os("KETCH_SOAK_CYCLES").is_some();
    if everything {
        println!("fault_sweep::{name}: all {} faults of {} calls", all.len(), calls.len());
        return all;
    }
    let (seed, total) = (seed(), all.len());
    let mut numbers = Numbers(seed);
    let sample: Vec<_> =
        (0..SAMPLE.min(total)).map(|_| all.swap_remove(numbers.below(all.len()))).collect();
    println!("fault_sweep::{name}: {} of {total} faults, KETCH_FAULT_SEED={seed}", sample.len());
    sample
}

/// A command whose calls fail one after another.
struct Sweep<'a> {
    name: &'static str,
    bundle: &'a Bundle<'a>,
    /// The exit code of its failure.
    fails_with: i32,
    /// Makes what the command needs, when it is not there.
    prepare: &'a dyn Fn(),
    command: &'a dyn Fn() -> Invocation,
    /// What it must have left behind, if anything, after a success or a failure; takes it away again.
    check: &'a dyn Fn(&Output) -> Result<(), String>,
}

impl Sweep<'_> {
    fn run(&self) {
        let case = self.bundle.case;
        // The first run makes mount points in the rootfs that the later ones find.
        for _ in 0..2 {
            (self.prepare)();
            let _ = calls(case, (self.command)());
            clear(case, self.bundle).unwrap_or_else(|left| panic!("without any fault: {left}"));
        }
        (self.prepare)();
        let calls = calls(case, (self.command)());
        clear(case, self.bundle).unwrap_or_else(|left| panic!("without any fault: {left}"));
        let mut outcomes = BTreeMap::<&str, usize>::new();
        let mut wrong = Vec::new();
        for (call, error) in chosen(self.name, &calls) {
            (self.prepare)();
            match self.try_one(&call, error) {
                Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
                Err(why) => {
                    wrong.push(why);
                    // The next fault starts clean.
                    let _ = clear(case, self.bundle);
                    Leaks::find(&case.tag, &case.state_root()).sweep();
                }
            }
        }
        for (outcome, count) in outcomes {
            println!("fault_sweep::{}: {count} {outcome}", self.name);
        }
        assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// Lets one call fail; what came of it.
    fn try_one(&self, call: &Call, (number, text): (i32, &str)) -> Result<&'static str, String> {
        let case = self.bundle.case;
        let log = case.dir.join("calls");
        let _ = fs::remove_file(&log);
        let fault = format!("{}:{}:{number}", call.process, call.number);
        let command = (self.command)().env("KETCH_FAULT", &fault).env("KETCH_FAULT_LOG", &log);
        let out = with_deadline(case, command).run();
        // From run to run a wait may take a call more or less, so that it is another call, or none.
        let hit = read_log(&log).into_iter().find(|(_, failed)| *failed).map(|(call, _)| call);
        let outcome = match &hit {
            None => Ok("were not reached"),
            Some(hit) => self.judge(hit, number, text, &out),
        };
        let outcome = (self.check)(&out).and(outcome);
        let Call { process, number: at, name, operand } = hit.unwrap_or_else(|| call.clone());
        outcome.map_err(|why| {
            let said = out.stderr.trim_end();
            format!("{name} {operand} {process}:{at}:{number} ({text}): {why}: {} {said}", out.code)
        })
    }

    fn judge(&self, call: &Call, number: i32, text: &str, out: &Output) -> Result<&'static str, String> {
        if out.code == 0 {
            if is_named(call, text, &out.stderr.to_lowercase()) {
                return Ok("were told in a warning");
            }
            return tolerated(call, number).ok_or_else(|| "a failure was passed over".to_owned());
        }
        // In the foreground, the process that has its start is the container's: 255 is its exit code.
        let runs = self.name == "run" && call.process != "1" && out.code == 255;
        if out.code != self.fails_with && !runs {
            return Err("another exit code".to_owned());
        }
        let said = out.stderr.to_lowercase();
        if !is_named(call, text, &said) {
            return Err("the call or its error is not named".to_owned());
        }
        Ok("ended in an error that names the call")
    }
}

fn with_deadline(case: &Case, command: Invocation) -> Invocation {
    let mut limited = case.program("/usr/bin/timeout").args(["--signal=KILL", DEADLINE]);
    limited.env = command.env;
    limited.arg(&command.program).args(command.args)
}

/// `delete --force` takes all away.
fn clear(case: &Case, bundle: &Bundle<'_>) -> Result<(), String> {
    let out = case.ketch().args(["delete", "--force", &bundle.id]).run();
    if out.code != 0 {
        return Err(format!("delete --force: {out}"));
    }
    clean(case)
}

/// Nothing of the case is there. A killed process is gone a moment after the kill.
fn clean(case: &Case) -> Result<(), String> {
    for _ in 0..200 {
        if Leaks::find(&case.tag, &case.state_root()).is_empty() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err(Leaks::find(&case.tag, &case.state_root()).to_string())
}

fn create(case: &Case) {
    let binary = binary(case);
    let bundle = &case.bundle().sleeper();
    let command = || with_program(bundle.create_command(), &binary).arg(&bundle.id);
    let check = |out: &Output| if out.code == 0 { clear(case, bundle) } else { clean(case) };
    Sweep { name: "create", bundle, fails_with: 1, prepare: &|| {}, command: &command, check: &check }.run();
}

/// The holder of the namespace is there all the time: it has no mark of the case, and is none of what is left behind.
fn create_in_a_joined_pid_namespace(case: &Case) {
    let binary = binary(case);
    let holder = ["--pid", "--fork", "--kill-child", "/bin/sleep", "1000"];
    let mut holder = std::process::Command::new("/usr/bin/unshare").args(holder).spawn().expect("make a namespace");
    let path = format!("/proc/{}/ns/pid_for_children", holder.id());
    wait_until("the new namespace", || {
        let seen = fs::read_link(&path).map_err(|error| error.to_string())?;
        let own = fs::read_link("/proc/self/ns/pid").expect("our own");
        if seen == own { Err(format!("{seen:?}")) } else { Ok(()) }
    });
    let bundle = &case.bundle().sleeper().namespace("pid", Some(&path));
    let command = || with_program(bundle.create_command(), &binary).arg(&bundle.id);
    let check = |out: &Output| if out.code == 0 { clear(case, bundle) } else { clean(case) };
    Sweep { name: "create_in_a_joined_pid_namespace", bundle, fails_with: 1, prepare: &|| {}, command: &command, check: &check }
        .run();
    holder.kill().and_then(|()| holder.wait()).expect("end the holder");
}

fn run(case: &Case) {
    let binary = binary(case);
    let bundle = &case.bundle();
    let command = || with_program(bundle.run_command(), &binary).arg(&bundle.id);
    Sweep { name: "run", bundle, fails_with: 1, prepare: &|| {}, command: &command, check: &|_| clean(case) }
        .run();
}

fn start(case: &Case) {
    let binary = binary(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || drop(bundle.create_command().arg(&bundle.id).run().ok());
    let command = || with_program(case.ketch(), &binary).args(["start", &bundle.id]);
    let check = |_: &Output| clear(case, bundle);
    Sweep { name: "start", bundle, fails_with: 1, prepare: &prepare, command: &command, check: &check }.run();
}

fn exec(case: &Case) {
    let binary = binary(case);
    let bundle = &case.bundle().sleeper();
    let prepare = || {
        if !case.state_root().join(&bundle.id).exists() {
            let _ = bundle.create_command().arg(&bundle.id).run().ok();
            let _ = case.ketch().args(["start", &bundle.id]).run().ok();
        }
    };
    let command = || with_program(case.ketch(), &binary).args(["exec", &bundle.id, "/bin/true"]);
    // The container's own shell and its sleep, and nobody else.
    let check = |_: &Output| {
        let mut seen = String::new();
        for _ in 0..200 {
            let out = case.ketch().args(["ps", "--format", "json", &bundle.id]).run();
            if out.code != 0 {
                return Err(format!("the container is gone: {out}"));
            }
            seen = out.stdout.clone();
            if out.json().as_array().is_some_and(|pids| pids.len() == 2) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Err(format!("left in the container: {seen}"))
    };
    Sweep { name: "exec", bundle, fails_with: 255, prepare: &prepare, command: &command, check: &check }.run();
    clear(case, bundle).unwrap_or_else(|left| panic!("{left}"));
}

fn delete(case: &Case) {
    let binary = binary(case);
    let bundle = &case.bundle();
    let prepare = || {
        let _ = bundle.create_command().arg(&bundle.id).run().ok();
        let _ = case.ketch().args(["kill", &bundle.id, "KILL"]).run().ok();
        Container::adopt(case, &bundle.id).wait_status_and_keep("stopped");
    };
    let command = || with_program(case.ketch(), &binary).args(["delete", &bundle.id]);
    let check = |_: &Output| clear(case, bundle);
    Sweep { name: "delete", bundle, fails_with: 1, prepare: &prepare, command: &command, check: &check }.run();
}

/// The same command line of another binary.
fn with_program(mut command: Invocation, program: &std::path::Path) -> Invocation {
    command.program = program.to_owned();
    command
}

/// What strace sees of the runtime's own process and the log does not have: none but what the door says it lets pass.
fn every_call_passes_the_door(case: &Case) {
    let binary = binary(case);
    case.needs(case.has_program("strace"), "no strace program");
    let bundle = case.bundle();
    let (log, trace) = (case.dir.join("calls"), case.dir.join("trace"));
    let strace = case.program("/usr/bin/strace").env("KETCH_FAULT_LOG", &log).args(["-qq", "-o"]).arg(&trace);
    let command = bundle.run_command().arg(&bundle.id);
    let _ = strace.arg(&binary).args(command.args).run().ok();
    let mut seen = BTreeMap::<&str, usize>::new();
    let text = fs::read_to_string(&trace).expect("read the trace");
    for name in text.lines().filter_map(|line| Some(line.split_once('(')?.0)).filter(|name| !name.contains(' ')) {
        *seen.entry(name).or_default() += 1;
    }
    let mut logged = BTreeMap::<&str, usize>::new();
    let calls = read_log(&log);
    for (call, _) in calls.iter().filter(|(call, _)| call.process == "1") {
        *logged.entry(kernels_name(&call.name)).or_default() += 1;
    }
    let past: Vec<String> = seen
        .iter()
        .filter(|(name, count)| {
            let before_main = BEFORE_MAIN.iter().find(|(known, _)| known == *name).map_or(0, |(_, count)| *count);
            **count > logged.get(*name).copied().unwrap_or(0) + before_main
        })
        .map(|(name, count)| format!("{name}: {count}, logged {}", logged.get(name).copied().unwrap_or(0)))
        .collect();
    assert!(past.is_empty(), "past the door: {past:?}");
    let total = calls.iter().filter(|(call, _)| call.process == "1").count();
    println!("fault_sweep::every_call_passes_the_door: {total} calls of the runtime's own process");
}

/// The binary under test is the release, which has none of the words.
fn the_release_has_no_door(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "only for ketch, which has a build with fault injection");
    case.not_sanitised("drives a build of its own");
    let release = fs::read(&case.runtime.path).expect("read the binary");
    assert!(!release.windows(11).any(|bytes| bytes == b"KETCH_FAULT"), "the binary under test has the door");
}
