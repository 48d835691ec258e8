//! `ketch-sim [--first N] [--seeds N] [--seed N]`: runs seeds one after another on each processor, each tenth one twice, and
//! ends with 1 when one fails; that one's last events are printed, and `--seed N` replays it with all of them.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ketch_sim::{Failure, Outcome, run};

/// Each so many seeds are run twice, and must come to the same.
const TWICE: u64 = 10;

struct Options {
    first: u64,
    seeds: u64,
    loud: bool,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(options) => all(&options),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { first: 1, seeds: 200, loud: false };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
        let value = value.parse().map_err(|error| format!("{name} {value}: {error}"))?;
        match name.as_str() {
            "--first" => options.first = value,
            "--seeds" => options.seeds = value,
            "--seed" => options = Options { first: value, seeds: 1, loud: true },
            _ => return Err(format!("{name} is not known: --first N, --seeds N, --seed N")),
        }
    }
    Ok(options)
}

fn all(options: &Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.first + options.seeds {
                        return;
                    }
                    if let Err(failure) = one(seed, options.loud) {
                        println!("{failure}\n");
                        failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!(
        "{} seeds from {}, {} failed, {:.0} s",
        options.seeds,
        options.first,
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    for seed in &failures {
        println!("again: ketch-sim --seed {seed}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, loud: bool) -> Result<Outcome, Failure> {
    let first = run(seed, loud)?;
    if seed.is_multiple_of(TWICE) {
        let second = run(seed, false)?;
        if second != first {
            let why = format!("two runs differ: {first:?}, {second:?}");
            return Err(Failure { seed, why, events: String::new() });
        }
    }
    println!(
        "seed {seed}: {} events, {:.0} s simulated, {:016x}",
        first.events,
        first.time.as_secs_f64(),
        first.hash
    );
    Ok(first)
}
