//! What a failed test's engine was doing: the end of its log, its containers, and where its processes stand in the kernel. A test
//! that waited for nothing says little by itself, and a machine of somebody else's can't be looked at afterwards.
//!
//! Called by [`super::Engine`]'s end after a failure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use super::Engine;

/// How many lines of the log are shown.
const LINES: usize = 30;

/// Looks; nothing of it may fail or take long.
#[must_use]
pub(super) fn examine(engine: &Engine<'_>) -> String {
    let log = engine.log();
    let lines: Vec<_> = log.lines().collect();
    let mut text = String::from("the engine's last words:");
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let _ = write!(text, "\n  {line}");
    }
    text.push_str("\nits containers:");
    let list =
        engine.sh("timeout 5 docker ps --all --format '{{.ID}} {{.Status}} {{.Image}} {{.Command}}' 2>&1");
    for line in list.stdout.lines() {
        let _ = write!(text, "\n  {line}");
    }
    text.push_str("\nits processes, and what each of their threads waits for:");
    for pid in engine.site.relatives() {
        text.push_str(&process(pid));
    }
    text
}

fn process(pid: i32) -> String {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = of("status");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let words = of("cmdline").replace('\0', " ");
    let mut text = format!("\n  {pid} of {} {} {} {words}", field("PPid:"), field("State:"), field("Name:"));
    let mut threads = BTreeMap::<String, usize>::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let of = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let calls: Vec<_> =
            of("stack").lines().filter_map(|line| line.split([' ', '+']).nth(1)).map(str::to_owned).collect();
        // Not every kernel shows a stack.
        let place = if calls.is_empty() { of("wchan") } else { calls.join(" < ") };
        *threads.entry(place).or_default() += 1;
    }
    for (place, count) in threads {
        let _ = write!(text, "\n    {count} in {place}");
    }
    text
}
