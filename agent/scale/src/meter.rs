//! What is measured: time on a processor, memory; and how a sample is told.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The time that this thread has had on a processor, the kernel's part of it too. Others that use the machine don't count.
pub(crate) fn thread_time() -> Duration {
    span(clock_gettime(ClockId::ThreadCPUTime))
}

fn span(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What this process has in memory now, in MiB.
pub(crate) fn resident() -> f64 {
    status("VmRSS:")
}

fn status(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// Tells one sample.
pub(crate) fn sample(case: &str, value: f64) {
    println!("sample\t{case}\t{value}");
    eprintln!("{case}: {value:.3}");
}

/// The same of all threads of this process.
pub(crate) fn process_time() -> Duration {
    span(clock_gettime(ClockId::ProcessCPUTime))
}

/// The most that this process has had in memory, in MiB.
pub(crate) fn peak() -> f64 {
    status("VmHWM:")
}
