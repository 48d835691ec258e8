//! `ketch-sim --hunt`: makes each fault of ketch-cluster's `fault` in turn, and says which seed is the first to find it.
//!
//! With `KETCH_FAULT=<name>` that one alone. Only in the build with the feature `faults`; the table of `agent/sim/DESIGN.md` is what it prints.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use ketch_cluster::fault::{FAULTS, Fault};
use ketch_sim::Play;

use crate::{Options, apart};

/// Hunts all of them, or the one that is named.
pub(crate) fn all(options: &Options) -> ExitCode {
    let named = std::env::var("KETCH_FAULT").ok();
    let hunted: Vec<_> =
        FAULTS.iter().filter(|(name, _)| named.as_deref().is_none_or(|it| it == *name)).collect();
    println!("| `KETCH_FAULT` | found by |\n|---|---|");
    let hidden = hunted.iter().filter(|(name, fault)| !is_found(name, *fault, options)).count();
    println!("{} of {} faults found", hunted.len() - hidden, hunted.len());
    if hidden == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a fault shows itself in: answers to reads, or anything else.
fn play_for(fault: Fault) -> Play {
    match fault {
        Fault::FollowerRead | Fault::BarrierSkipped => Play::Linear,
        _ => Play::Services,
    }
}

fn is_found(name: &str, fault: Fault, options: &Options) -> bool {
    let play = play_for(fault);
    let (next, first) = (AtomicU64::new(options.first), AtomicU64::new(u64::MAX));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_over =
                        seed >= options.first + options.seeds || seed > first.load(Ordering::Relaxed);
                    if is_over {
                        return;
                    }
                    if matches!(apart(seed, play, Some(name)), Ok((false, _))) {
                        first.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let first = first.into_inner();
    if first == u64::MAX {
        println!("| {name} | by none of {} seeds |", options.seeds);
        return false;
    }
    // Once more for its words: what a seed says last is what it found.
    let said = apart(first, play, Some(name)).map_or_else(|error| error.to_string(), |(_, said)| said);
    println!("| {name} | {play:?}: {} |", said.lines().last().unwrap_or_default());
    true
}
