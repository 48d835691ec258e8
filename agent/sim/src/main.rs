//! `ketch-sim [linear] [--first N] [--seeds N] [--seconds N] [--seed N] [--hunt]`: runs seeds one after another on each processor, each tenth one
//! twice, and ends with 1 when one fails; that one's last events are printed, and `--seed N` replays it with all of them. After
//! so many `--seconds` no seed begins any more.
//! `linear` checks histories of objects instead of services.
//!
//! Each run is a process of its own (`--one N`): the `select!` of futures-util, which openraft uses, draws from a state of the
//! process that nothing can reset.

#[cfg(feature = "faults")]
mod hunt;

use std::io;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ketch_sim::{Outcome, Play, run};

/// Each so many seeds are run twice, and must come to the same.
const TWICE: u64 = 10;
/// The word for [`Play::Linear`].
const LINEAR: &str = "linear";

#[derive(Debug)]
struct Options {
    play: Play,
    first: u64,
    seeds: u64,
    time: Duration,
    /// That seed in this process; `loud`: with all its events.
    here: Option<(u64, Volume)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volume {
    Quiet,
    Loud,
}

fn main() -> ExitCode {
    #[cfg(feature = "faults")]
    if let Err(error) = choose_fault() {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let hunts = arguments.len();
    arguments.retain(|it| it != "--hunt");
    let hunts = arguments.len() < hunts;
    match options(arguments.into_iter()) {
        #[cfg(feature = "faults")]
        Ok(options) if hunts => hunt::all(&options),
        Ok(_) if hunts => {
            eprintln!("--hunt is of the build with the feature faults");
            ExitCode::from(2)
        }
        Ok(Options { here: Some((seed, volume)), play, .. }) => here(seed, play, volume),
        Ok(options) => all(&options),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// The one that `KETCH_FAULT` names; none without it.
#[cfg(feature = "faults")]
fn choose_fault() -> Result<(), String> {
    use ketch_cluster::fault::{FAULTS, choose};
    let Ok(name) = std::env::var("KETCH_FAULT") else { return Ok(()) };
    let known = FAULTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, fault)| choose(*fault)).ok_or_else(|| format!("KETCH_FAULT={name} is not known"))
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { play: Play::Services, first: 1, seeds: 200, time: Duration::MAX, here: None };
    while let Some(name) = arguments.next() {
        if name == LINEAR {
            options.play = Play::Linear;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
        let value = value.parse().map_err(|error| format!("{name} {value}: {error}"))?;
        match name.as_str() {
            "--first" => options.first = value,
            "--seeds" => options.seeds = value,
            "--seconds" => options.time = Duration::from_secs(value),
            "--seed" => options.here = Some((value, Volume::Loud)),
            "--one" => options.here = Some((value, Volume::Quiet)),
            _ => {
                return Err(format!(
                    "{name} is not known: linear, --first N, --seeds N, --seconds N, --seed N"
                ));
            }
        }
    }
    Ok(options)
}

fn all(options: &Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let (failures, ran) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let repeats = if options.time == Duration::MAX { Repeats::Judged } else { Repeats::Told };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while began.elapsed() < options.time {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.first + options.seeds {
                        return;
                    }
                    ran.fetch_add(1, Ordering::Relaxed);
                    if !passes(seed, options.play, repeats) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable();
    let target = if options.play == Play::Linear { "sim-linear" } else { "sim" };
    for seed in &failures {
        println!("again: make {target} SEED={seed}");
    }
    let ran = ran.into_inner();
    println!("{ran} seeds from {} in {:.0} s", options.first, began.elapsed().as_secs_f64());
    println!("{} passed, {} failed, 0 skipped", ran - failures.len() as u64, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn here(seed: u64, play: Play, volume: Volume) -> ExitCode {
    match run(seed, play, volume == Volume::Loud) {
        Ok(Outcome { hash, events, time }) => {
            println!("seed {seed}: {events} events, {:.2} s simulated, {hash:016x}", time.as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// What comes of a repeated seed whose runs differ.
#[derive(Clone, Copy, PartialEq)]
enum Repeats {
    /// It has failed.
    Judged,
    /// It is told: of a sample, whose other purpose is that no invariant breaks. `DESIGN.md` says how often that is.
    Told,
}

/// Runs a seed, and says how it went.
fn passes(seed: u64, play: Play, repeats: Repeats) -> bool {
    let began = Instant::now();
    let first = apart(seed, play, None);
    let took = began.elapsed().as_secs_f64();
    match first {
        Ok((true, said)) if seed.is_multiple_of(TWICE) => {
            let again = apart(seed, play, None).map_or_else(|error| error.to_string(), |(_, again)| again);
            let is_same = again == said;
            println!("{said} ({took:.1} s)");
            if !is_same {
                println!("seed {seed}: two runs differ, and the other one is:\n{again}");
            }
            is_same || repeats == Repeats::Told
        }
        Ok((passed, said)) => {
            println!("{said} ({took:.1} s)");
            passed
        }
        Err(error) => {
            println!("seed {seed}: can't be run: {error}");
            false
        }
    }
}

/// Runs a seed in a process of its own, with a fault if there is to be one: whether it passes, and what it says.
fn apart(seed: u64, play: Play, fault: Option<&str>) -> io::Result<(bool, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    if play == Play::Linear {
        command.arg(LINEAR);
    }
    command.args(["--one", &seed.to_string()]).envs(fault.map(|name| ("KETCH_FAULT", name)));
    let child = command.output()?;
    let said = String::from_utf8_lossy(&child.stdout).trim_end().to_owned();
    let said = if said.is_empty() { format!("seed {seed}: {}", child.status) } else { said };
    Ok((child.status.success(), said))
}
