//! Many cycles through one shim, and through containerd: no descriptor, process, mount, fifo or socket piles up. The number
//! is small in the ordinary suite, 2,000 in `make soak`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ketch_integration::containerd::{Age, Containerd, Cri};
use ketch_integration::shim::stream::Stream;
use ketch_integration::shim::{Exec, Stage};
use ketch_integration::{Case, probe, tests, wait_until};

tests![
    task_cycles_leave_nothing,
    exec_cycles_leave_nothing,
    containerd_cycles_with_a_restart_leave_nothing,
    a_quiet_shim_lets_its_program_go,
];

fn cycles(ordinary: usize) -> usize {
    std::env::var("KETCH_SOAK_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(ordinary)
}

/// What a shim holds: its descriptors by what they are, and its children.
fn held(shim: i32) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{shim}/fd")).expect("list descriptors").flatten() {
        let target = fs::read_link(entry.path()).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        *found.entry(kind.to_owned()).or_default() += 1;
    }
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
    found.insert("children".to_owned(), children.split_whitespace().count());
    found
}

/// After the warm-up nothing more is held; what ends a moment later is waited for.
fn wait_held(stage: &Stage<'_>, shim: i32, before: &BTreeMap<String, usize>) {
    // The Go shim keeps the eventfd of the memory cgroup of each task that it had.
    let is_known = |kind: &str| !stage.shim.is_ketch() && kind == "anon_inode";
    wait_until("what the shim held before", || {
        let now = held(shim);
        let is_more = |(kind, count): (&String, &usize)| *count > before.get(kind).copied().unwrap_or(0) && !is_known(kind);
        let more = now.iter().any(is_more);
        if more { Err(format!("{now:?}, before {before:?}")) } else { Ok(()) }
    });
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).into_iter().flatten().flatten().count()
}

fn task_cycles_leave_nothing(case: &Case) {
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let bundle = case.bundle().script("echo a line");
    let shim = stage.shims()[0];
    let mut before = None;
    for turn in 0..cycles(20) + 3 {
        let stdout = stage.stream(&format!("out{turn}"));
        tasks.run(&stage.create(&bundle).stdout(&stdout));
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(0), "turn {turn}");
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(0), "turn {turn}");
        assert_eq!(stdout.finish(), "a line\n", "turn {turn}");
        fs::remove_file(&stdout.path).expect("remove the fifo");
        if turn == 2 {
            before = Some((held(shim), stage.mounts().len(), files(&bundle.dir)));
        }
    }
    let (descriptors, mounts, in_bundle) = before.expect("a warm-up");
    wait_held(&stage, shim, &descriptors);
    assert_eq!(stage.mounts().len(), mounts);
    assert!(files(&bundle.dir) <= in_bundle, "files pile up in the bundle");
    tasks.end(&keeper.id);
    stage.end();
}

fn exec_cycles_leave_nothing(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _out) = stage.run(&bundle);
    let tasks = &served.tasks;
    let shim = stage.shims()[0];
    let init = tasks.connect(&bundle.id).expect("Connect").1;
    let mut before = None;
    for turn in 0..cycles(20) + 3 {
        let stdout = stage.stream(&format!("out{turn}"));
        let exec = Exec::script(&format!("e{turn}"), "echo a line").stdout(&stdout);
        let exec = if turn % 2 == 0 { exec.terminal() } else { exec };
        assert_eq!(tasks.run_exec(&bundle.id, &exec), 0, "turn {turn}");
        assert_eq!(stdout.finish().trim(), "a line", "turn {turn}");
        // One that does not start has had its fifos, too. The reader of the first has come to its end: without another the shim
        // would wait for one.
        let again = Stream::open(&stdout.path);
        let missing = Exec::new(&format!("m{turn}"), &["/no/such/program"]).stdout(&again);
        tasks.exec(&bundle.id, &missing).expect("Exec");
        let _ = tasks.start(&bundle.id, &missing.exec_id).expect_err("no such program");
        let _ = tasks.delete(&bundle.id, &missing.exec_id).expect("Delete");
        fs::remove_file(&stdout.path).expect("remove the fifo");
        if turn == 2 {
            before = Some((held(shim), files(&bundle.dir)));
        }
    }
    let (descriptors, in_bundle) = before.expect("a warm-up");
    wait_held(&stage, shim, &descriptors);
    assert!(files(&bundle.dir) <= in_bundle, "files pile up in the bundle");
    assert!(!probe::is_dead(init));
    tasks.end(&bundle.id);
    stage.end();
}

fn containerd_cycles_with_a_restart_leave_nothing(case: &Case) {
    let mut containerd = Containerd::start(case, Age::V1_6, Cri::Off);
    let cycles = (cycles(10) / 2).max(3);
    let run = |containerd: &Containerd<'_>, turn: usize| {
        let id = format!("box{turn}");
        let _ = containerd.run_command(&["--rm"], &id, &["/bin/sh", "-c", "exit 3"]).run().exits(3);
    };
    let _ = containerd.run_command(&["--detach"], "stays", &["/bin/sleep", "1000"]).run().ok();
    (0..cycles).for_each(|turn| run(&containerd, turn));
    containerd.restart();
    (cycles..2 * cycles).for_each(|turn| run(&containerd, turn));
    let state = containerd.site.path("state/io.containerd.runtime.v2.task").join(&case.tag);
    let sockets = containerd.site.seen_from_outside(Path::new("/run/containerd/s"));
    // containerd goes on when the last shim has answered, which ends a moment after that.
    wait_until("the shim, bundle, mount and socket of what stays alone", || {
        let shims = containerd.site.processes("containerd-shim");
        let mounts = containerd.site.mounts(&state);
        match (shims.len(), files(&state), mounts.len(), files(&sockets)) {
            (1, 1, 1, 1) => Ok(()),
            left => Err(format!("{left:?}: shims {shims:?}, mounts {mounts:?}")),
        }
    });
    let fifos = containerd.site.seen_from_outside(Path::new("/run/containerd/fifo"));
    assert!(files(&fifos) <= 1, "fifos pile up");
    let _ = containerd.ctr(["task", "kill", "--signal", "KILL", "stays"]).ok();
    wait_until("the task's end", || {
        let removed = containerd.ctr(["task", "rm", "stays"]);
        if removed.code == 0 { Ok(()) } else { Err(removed.to_string()) }
    });
    let _ = containerd.ctr(["container", "rm", "stays"]).ok();
    containerd.site.wait_without("containerd-shim");
    assert_eq!(files(&sockets), 0, "a socket is left");
    containerd.end();
}

/// What of the program is in the shim's memory, in KiB.
fn resident_of_files(shim: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{shim}/status")).expect("read the status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("RssFile");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn a_quiet_shim_lets_its_program_go(case: &Case) {
    let stage = Stage::new(case);
    case.needs(stage.shim.is_ketch(), "ketch's own way of standing idle");
    let bundle = case.bundle().sleeper();
    let (served, _out) = stage.run(&bundle);
    let shim = stage.shims()[0];
    let half = usize::try_from(fs::metadata(&stage.shim.path).expect("look at the shim").len() / 2048).expect("a size");
    for turn in 0..2 {
        wait_until("less than half of its program", || match resident_of_files(shim) {
            little if little < half => Ok(()),
            more => Err(format!("{more} KiB of the program in memory")),
        });
        // What was let go is there when it is called for.
        assert_eq!(served.tasks.run_exec(&bundle.id, &Exec::new(&format!("e{turn}"), &["/bin/true"])), 0);
    }
    served.tasks.end(&bundle.id);
    stage.end();
}
