//! `ketch-sim [--first N] [--seeds N] [--seconds N] [--seed N]`: runs seeds one after another on each processor, each tenth one
//! twice, and ends with 1 when one fails; that one's last events are printed, and `--seed N` replays it with all of them. After
//! so many `--seconds` no seed begins any more.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ketch_sim::{Failure, Outcome, run};

/// Each so many seeds are run twice, and must come to the same.
const TWICE: u64 = 10;

struct Options {
    first: u64,
    seeds: u64,
    time: Duration,
    loud: bool,
}

fn main() -> ExitCode {
    #[cfg(feature = "faults")]
    if let Err(error) = choose_fault() {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    match options(std::env::args().skip(1)) {
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
    let mut options = Options { first: 1, seeds: 200, time: Duration::MAX, loud: false };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
        let value = value.parse().map_err(|error| format!("{name} {value}: {error}"))?;
        match name.as_str() {
            "--first" => options.first = value,
            "--seeds" => options.seeds = value,
            "--seconds" => options.time = Duration::from_secs(value),
            "--seed" => options = Options { first: value, seeds: 1, loud: true, ..options },
            _ => return Err(format!("{name} is not known: --first N, --seeds N, --seconds N, --seed N")),
        }
    }
    Ok(options)
}

fn all(options: &Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let (failures, ran) = (Mutex::new(Vec::new()), AtomicU64::new(0));
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
                    if let Err(failure) = one(seed, options.loud) {
                        println!("{failure}\n");
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable();
    for seed in &failures {
        println!("again: make sim SEED={seed}");
    }
    let ran = ran.into_inner();
    println!("{ran} seeds from {} in {:.0} s", options.first, began.elapsed().as_secs_f64());
    println!("{} passed, {} failed, 0 skipped", ran - failures.len() as u64, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, loud: bool) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let first = run(seed, loud)?;
    let took = began.elapsed();
    if seed % TWICE == 0 {
        let second = run(seed, loud)?;
        if second != first {
            let why = format!("two runs differ: {first:?}, {second:?}");
            return Err(Failure { seed, why, events: String::new() });
        }
    }
    println!(
        "seed {seed}: {} events, {:.0} s simulated in {:.1} s, {:016x}",
        first.events,
        first.time.as_secs_f64(),
        took.as_secs_f64(),
        first.hash
    );
    Ok(first)
}
