//! Many cycles: nothing piles up. The number is small in the ordinary suite, 2,000 in `make soak`.

use std::fs;

use ketch_integration::leak::Leaks;
use ketch_integration::{Case, tests};

tests![run_cycles_leave_nothing_behind, exec_cycles_leave_nothing_behind];

fn cycles() -> usize {
    std::env::var("KETCH_SOAK_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

fn files_below(folder: &std::path::Path) -> usize {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| 1 + files_below(&entry.path())).sum()
}

fn run_cycles_leave_nothing_behind(case: &Case) {
    let bundle = case.bundle().command(&["/bin/true"]);
    let runtime_folders = || files_below(&case.state_root()) + files_below(&bundle.rootfs());
    let mounts = || probe_lines("/proc/self/mountinfo", &case.tag);
    let before = (runtime_folders(), mounts());
    for _ in 0..cycles() {
        let _ = bundle.run().ok();
    }
    // The first run makes what it mounts on.
    assert!(runtime_folders() <= before.0 + 8, "files pile up in the state root or the rootfs");
    assert_eq!(mounts(), before.1);
    let leaks = Leaks::find(&case.tag, &case.state_root());
    assert!(leaks.is_empty(), "{leaks}");
}

fn probe_lines(file: &str, tag: &str) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().filter(|line| line.contains(tag)).count()
}

fn exec_cycles_leave_nothing_behind(case: &Case) {
    let bundle = case.bundle().sleeper();
    let container = bundle.start();
    // Before its execve the first process still has the descriptors of the runtime's init.
    ketch_integration::wait_until("the container's own program", || {
        let seen = fs::read_to_string(container.proc("cmdline")).unwrap_or_default();
        if seen.starts_with("/bin/sh") { Ok(()) } else { Err(seen) }
    });
    let fds = || fs::read_dir(container.proc("fd")).expect("list descriptors").count();
    let state = || files_below(&case.state_root());
    let before = (fds(), state());
    for _ in 0..cycles() {
        let _ = container.exec(&["/bin/true"]).ok();
    }
    assert_eq!((fds(), state()), before);
    let pids = case.ketch().args(["ps", "--format", "json", &container.id]).run().ok().json();
    // The shell and its sleep.
    assert!(pids.as_array().is_some_and(|pids| pids.len() <= 2), "{pids}");
}
