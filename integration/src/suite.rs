//! The suite's main: picks tests by name, runs each layout, counts, and says why it skipped.
//!
//! `suite [--layout native|v2]... [--as root|user] [--jobs N] [--within SECONDS] [--list] [--without part]... [filter]...`; `RUNTIME` names
//! the binary. A module's tests run side by side, modules one after another, so that a module's wall time means something; modules of tests
//! that wait share their places, so that none of these is empty while one module's longest test is waited for. The last line is
//! `N passed, N failed, N skipped`, which `.ci/run` adds up.
//!
//! With `--within` no test begins after so many seconds, and those that did not are skipped with that reason; the first module is then another
//! one each time, by a seed, so that a slow machine's runs add up to all.

mod queue;

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use self::queue::{Ending, Failure, Queued, run_queue, summed};
use crate::case::{Case, Skip};
use crate::layout::Layout;
use crate::leak::Leaks;
use crate::runtime::Runtime;
use crate::sample;
use crate::user::{self, Caller};
use crate::wait::DEADLINE;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Case),
}

/// The tests of one topic: a file of `integration/tests`.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    pub name: &'static str,
    pub tests: &'static [Test],
    /// Who can run it.
    pub callers: &'static [Caller],
    pub time: Time,
}

/// What a module's tests do most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// They keep a cpu busy: as many run at once as there are cpus.
    Works,
    /// They wait, for clusters that count seconds: half as many more. With twice as many, on a machine that others kept busy, managers
    /// got so little time that they lost each other.
    Waits,
}

/// Lists functions `fn(&Case)` as the tests of a module.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$($crate::Test { name: stringify!($name), run: $name }),*];
    };
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[derive(Debug)]
struct Options {
    layouts: Vec<Layout>,
    caller: Caller,
    inside: bool,
    /// As asked for, whatever the module does.
    jobs: Option<usize>,
    /// No test begins after it.
    until: Option<Instant>,
    list: bool,
    /// Parts of names that are left to another step.
    without: Vec<String>,
    filters: Vec<String>,
}

impl Options {
    /// How many tests of such modules run at once.
    fn jobs_of(&self, time: Time) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.jobs.unwrap_or(match time {
            Time::Works => cpus,
            Time::Waits => cpus + cpus / 2,
        })
    }

    /// A part with `::` in it begins at the module's name: `userns::` is not also `ketchd_userns::`.
    fn selects(&self, module: &str, test: &str) -> bool {
        let name = format!("{module}::{test}");
        let holds = |part: &String| {
            if part.contains("::") { name.starts_with(part.as_str()) } else { name.contains(part.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(holds)) && !self.without.iter().any(holds)
    }
}

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        layouts: Vec::new(),
        caller: Caller::Root,
        inside: false,
        jobs: None,
        until: None,
        list: false,
        without: Vec::new(),
        filters: Vec::new(),
    };
    let mut args = args.skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--layout" => options.layouts.push(value()?.parse()?),
            "--as" => options.caller = value()?.parse()?,
            "--inside" => options.inside = true,
            "--jobs" => options.jobs = Some(value()?.parse().map_err(|e| format!("--jobs: {e}"))?),
            "--within" => {
                let seconds = value()?.parse().map_err(|e| format!("--within: {e}"))?;
                options.until = Some(Instant::now() + Duration::from_secs(seconds));
            }
            "--list" => options.list = true,
            "--without" => options.without.push(value()?),
            flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    if options.layouts.is_empty() {
        options.layouts = vec![Layout::Native, Layout::V2];
    }
    Ok(options)
}

/// Runs the suite with the process's own arguments.
#[must_use]
pub fn main(modules: &[Module]) -> ExitCode {
    let outcome = parse(std::env::args()).and_then(|options| run(modules, &options));
    match outcome {
        Ok(counts) => {
            println!("{counts}");
            if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            eprintln!("suite: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(modules: &[Module], options: &Options) -> Result<Counts, String> {
    let mut counts = Counts::default();
    if options.list {
        for (module, test) in modules.iter().flat_map(|m| m.tests.iter().map(move |t| (m, t))) {
            println!("{}::{}", module.name, test.name);
        }
        return Ok(counts);
    }
    let name = std::env::var("RUNTIME").unwrap_or_else(|_| "target/release/ketch".into());
    let mut runtime = Runtime::find(&name)?;
    for layout in &options.layouts {
        let is_private = *layout == Layout::V2 || options.caller == Caller::User;
        if is_private && !options.inside {
            counts.add(in_private_namespace(options, *layout, &runtime)?);
            continue;
        }
        if *layout == Layout::V2 {
            Layout::enter_v2();
        }
        let folder = PathBuf::from(format!("/tmp/ketch-integration/user{}", std::process::id()));
        if options.caller == Caller::User {
            user::enter(&folder);
            user::open_devices(&folder);
            runtime.path = user::reachable(&runtime.path, &folder);
        }
        println!(
            "# {} ({}), layout {layout}, run by {}",
            runtime.path.display(),
            runtime.version,
            options.caller
        );
        counts.add(run_layout(modules, options, *layout, &runtime));
        if options.caller == Caller::User {
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(counts)
}

/// Starts the suite again in a mount namespace of its own; the last line that it prints is its counts.
fn in_private_namespace(options: &Options, layout: Layout, runtime: &Runtime) -> Result<Counts, String> {
    let own = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(["--inside", "--layout", &layout.to_string(), "--as", &options.caller.to_string()])
        .args(options.jobs.iter().flat_map(|jobs| ["--jobs".to_owned(), jobs.to_string()]))
        .args(options.until.iter().flat_map(|end| {
            ["--within".to_owned(), end.saturating_duration_since(Instant::now()).as_secs().to_string()]
        }))
        .args(options.without.iter().flat_map(|part| ["--without", part]))
        .args(&options.filters)
        .env("RUNTIME", &runtime.path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|e| format!("unshare: {e}"))?;
    let mut last: Option<String> = None;
    let stdout = child.stdout.take().expect("stdout is piped");
    for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
        let line = line.map_err(|e| format!("read the inner suite: {e}"))?;
        if let Some(earlier) = last.replace(line) {
            println!("{earlier}");
        }
    }
    let _ = child.wait();
    let counts = last.as_deref().and_then(parse_counts);
    counts.ok_or_else(|| format!("the inner suite ended without counts; its last line: {last:?}"))
}

fn parse_counts(line: &str) -> Option<Counts> {
    let number = |word: &str| {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("skipped")? })
}

fn run_layout(modules: &[Module], options: &Options, layout: Layout, runtime: &Runtime) -> Counts {
    let mut counts = Counts::default();
    let mut number = 0;
    let mut failures = Vec::new();
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PLACE.with_borrow_mut(|last| *last = place);
    }));
    let mut chosen: Vec<_> = modules
        .iter()
        .filter(|module| module.callers.contains(&options.caller))
        .filter(|module| module.tests.iter().any(|test| options.selects(module.name, test.name)))
        .collect();
    if options.until.is_some() && !chosen.is_empty() {
        let first = sample::seed() % chosen.len();
        chosen.rotate_left(first);
        println!(
            "# the first module is {}, number {first} of {}: KETCH_SWEEP_SEED={first} begins with it",
            chosen[0].name,
            chosen.len()
        );
    }
    for group in chosen.chunk_by(|one, next| (one.time, next.time) == (Time::Waits, Time::Waits)) {
        let queue: VecDeque<Queued> = group
            .iter()
            .flat_map(|module| module.tests.iter().map(move |test| (*module, *test)))
            .filter(|(module, test)| options.selects(module.name, test.name))
            .map(|(module, test)| {
                number += 1;
                Queued { module: module.name, number, test }
            })
            .collect();
        let Some(time) = group.first().map(|module| module.time).filter(|_| !queue.is_empty()) else {
            continue;
        };
        let outcomes = run_queue(queue, options.jobs_of(time), |queued| {
            let name = format!("{}::{}", queued.module, queued.test.name);
            if options.until.is_some_and(|end| Instant::now() >= end) {
                println!("{layout} {name} ... skipped: the time of this step was over");
                return Ending::Skipped;
            }
            run_one(&Case::new(&name, queued.number, layout, options.caller, runtime), queued.test)
        });
        for module in group {
            let Some(mut sum) = summed(module.name, &outcomes) else { continue };
            println!("module {layout} {}: {:.1} s, {}", module.name, sum.seconds, sum.counts);
            counts.add(sum.counts);
            failures.append(&mut sum.failures);
        }
    }
    let _ = std::panic::take_hook();
    for Failure { name, message } in &failures {
        println!("\n---- {layout} {name}\n{message}");
    }
    if !failures.is_empty() {
        println!("\nfailed on {layout}:");
        failures.iter().for_each(|failure| println!("  {}", failure.name));
    }
    counts
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn run_one(case: &Case, test: Test) -> Ending {
    let (name, layout) = (&case.name, case.layout);
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(case)));
    let mut problem = None;
    let mut skipped = None;
    if let Err(thrown) = outcome {
        match thrown.downcast::<Skip>() {
            Ok(skip) => skipped = Some(skip.0),
            Err(thrown) => {
                let mut text = format!("{}\nat {}", message_of(&*thrown), PLACE.take());
                case.notes().iter().for_each(|note| text.push_str(&format!("\n{note}")));
                problem = Some(text);
            }
        }
    }
    if let Some(leaks) = settled_leaks(case) {
        leaks.sweep();
        let text = leaks.to_string();
        problem = Some(problem.map_or_else(|| text.clone(), |first| format!("{first}\n{text}")));
    }
    if problem.is_none() {
        // Kept for a look after a failure.
        let _ = fs::remove_dir_all(&case.dir);
    }
    let time = started.elapsed().as_millis();
    let (line, ending) = match (problem, skipped) {
        (Some(message), _) => {
            let line = format!("FAILED ({time} ms), files in {}", case.dir.display());
            (line, Ending::Failed(Failure { name: name.to_owned(), message }))
        }
        (None, Some(reason)) => (format!("skipped: {reason}"), Ending::Skipped),
        (None, None) => (format!("ok ({time} ms)"), Ending::Passed),
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{layout} {name} ... {line}").and_then(|()| out.flush());
    ending
}

/// A killed process is gone a moment after the kill returns, a longer one on a busy machine; what is still there at the deadline is a
/// leak.
fn settled_leaks(case: &Case) -> Option<Leaks> {
    let end = Instant::now() + DEADLINE;
    loop {
        let leaks = Leaks::find(&case.tag, &case.state_root());
        if leaks.is_empty() {
            return None;
        }
        if Instant::now() >= end {
            return Some(leaks);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn message_of(thrown: &(dyn Any + Send)) -> String {
    thrown
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| thrown.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked with something that is no text".to_owned())
}
