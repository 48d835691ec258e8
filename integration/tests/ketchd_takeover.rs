//! Who wants a container to end has it end, whatever has become of its shim: while a daemon that has come back asks for it, and
//! after its death.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::probe::is_dead;
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::ketchd_races::{programs_of_its_own, shim_of};

tests![
    ends_without_a_shim_at_a_takeover,
    ends_while_a_shim_hangs_at_a_takeover,
    ends_after_the_death_of_a_shim,
];

/// Longer than any end may take without a shim: the daemon waits 15 s for one, and 10 s for an end.
const BOUND: Duration = Duration::from_secs(60);

/// An engine whose shim can be taken away.
struct Fragile<'a> {
    engine: Engine<'a>,
    shim: PathBuf,
}

impl<'a> Fragile<'a> {
    fn start(case: &'a Case) -> Self {
        let Maker::Ketch(program) = Maker::under_test(case) else {
            case.skip("dockerd: its shims are containerd's, which starts no other");
        };
        let site = Site::new(case);
        let folder = programs_of_its_own(&site, &program);
        let engine = Engine::inside(site, Maker::Ketch(folder.join("ketchd")), &["--live-restore"]);
        engine.load_busybox();
        Self { engine, shim: folder.join("containerd-shim-ketch-v2") }
    }

    /// No shim can be started from now on, and those that there are die.
    fn without_shims(&self) {
        let shims = self.engine.site.processes("containerd-shim");
        fs::rename(&self.shim, self.away()).expect("take the shim away");
        fs::write(&self.shim, "#!/bin/sh\necho no shim today >&2; exit 1\n").expect("write another");
        fs::set_permissions(&self.shim, fs::Permissions::from_mode(0o755)).expect("change its mode");
        for shim in shims.into_iter().filter_map(Pid::from_raw) {
            kill_process(shim, Signal::KILL).expect("kill the shim");
        }
    }

    fn away(&self) -> PathBuf {
        self.shim.with_file_name("away")
    }

    fn end(self) {
        fs::rename(self.away(), &self.shim).expect("put the shim back");
        self.engine.end();
    }
}

/// Runs what ends with 7 when it is asked to, and has said so in a file by then.
fn polite(engine: &Engine<'_>, name: &str, flags: &str, said: &Path) {
    fs::create_dir_all(said).expect("make a folder");
    let script = format!("trap 'touch /said/{name}; exit 7' TERM; echo set; while :; do sleep 0.02; done");
    let line = format!("run -d --name {name} {flags} --network none -v {}:/said busybox sh -c", said.display());
    let _ = engine.client().args(line.split_whitespace()).arg(script).run().ok();
    engine.wait_log(name, "set");
}

/// Runs what only SIGKILL ends.
fn stubborn(engine: &Engine<'_>, name: &str) {
    let script = "trap : TERM; echo set; while :; do sleep 0.02; done";
    let line = format!("run -d --name {name} --restart always --network none busybox sh -c");
    let _ = engine.client().args(line.split_whitespace()).arg(script).run().ok();
    engine.wait_log(name, "set");
}

/// The docker command lines, all at once, end well, and in time.
#[track_caller]
fn in_time(engine: &Engine<'_>, lines: &[&str]) {
    let begun = Instant::now();
    let calls: Vec<_> = lines.iter().map(|line| engine.client().args(line.split(' ')).spawn()).collect();
    for call in calls {
        let _ = call.wait().ok();
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

fn pid(engine: &Engine<'_>, name: &str) -> i32 {
    engine.inspect(name, "{{.State.Pid}}").parse().expect("a pid")
}

fn ends_without_a_shim_at_a_takeover(case: &Case) {
    let mut fragile = Fragile::start(case);
    let said = fragile.engine.site.path("said");
    polite(&fragile.engine, "polite", "--restart unless-stopped", &said);
    polite(&fragile.engine, "itself", "--rm", &said);
    for name in ["stubborn", "removed", "killed"] {
        stubborn(&fragile.engine, name);
    }
    let names = ["polite", "itself", "stubborn", "removed", "killed"];
    let pids = names.map(|name| pid(&fragile.engine, name));
    fragile.engine.kill();
    fragile.without_shims();
    fragile.engine.come_back();
    let engine = &fragile.engine;
    for (name, pid) in names.iter().zip(pids) {
        assert_eq!(engine.inspect(name, "{{.State.Status}}"), "running");
        assert!(!is_dead(pid), "{name} lives");
    }
    // Who waits for its end is not told of one before.
    let waiting = engine.client().args(["wait", "stubborn"]).spawn();
    engine.docker("exec polite true").refuses(&["is not taken over from the daemon before yet", "try again, or kill it"]);
    let removing = engine.client().args(["rm", "killed"]).spawn();
    let copied = format!("cp killed:/etc/passwd {}", engine.site.path("copied").display());
    let lines = ["start killed", "pause killed", "rename killed other", "update --cpu-shares 100 killed", &copied];
    let changes = lines.map(|line| engine.client().args(line.split(' ')).spawn());
    in_time(engine, &["stop -t 40 itself", "stop -t 40 polite", "stop -t 1 stubborn", "rm -f removed"]);
    for change in changes.into_iter().chain([removing]) {
        change.wait().refuses(&["is not taken over from the daemon before yet"]);
    }
    in_time(engine, &["kill killed"]);
    let _ = waiting.wait().ok();
    for (name, pid) in names.iter().zip(pids) {
        wait_until(name, || if is_dead(pid) { Ok(()) } else { Err("lives".into()) });
    }
    for name in ["polite", "stubborn", "killed"] {
        // They were stopped: no policy starts them again.
        assert_eq!(engine.inspect(name, "{{.State.Status}} {{.RestartCount}}"), "exited 0", "{name}");
    }
    for name in ["polite", "itself"] {
        assert!(said.join(name).exists(), "{name} was asked before it was killed");
    }
    wait_until("what removes itself is gone", || {
        let out = engine.docker("ps -a --format {{.Names}}").ok();
        if out.text().contains("itself") || out.text().contains("removed") { Err(out.to_string()) } else { Ok(()) }
    });
    fragile.end();
}

fn ends_while_a_shim_hangs_at_a_takeover(case: &Case) {
    let mut engine = Engine::bare(case, &["--live-restore"]);
    engine.only_ketch("it waits for containerd, which waits");
    engine.load_busybox();
    let said = engine.site.path("said");
    polite(&engine, "polite", "", &said);
    for name in ["stubborn", "removed"] {
        stubborn(&engine, name);
    }
    let names = ["polite", "stubborn", "removed"];
    let pids = names.map(|name| pid(&engine, name));
    for name in names {
        kill_process(shim_of(&engine, name), Signal::STOP).expect("stop the shim");
    }
    engine.kill();
    engine.come_back();
    in_time(&engine, &["stop -t 40 polite", "rm -f removed", "stop -t 1 stubborn"]);
    for (name, pid) in names.iter().zip(pids) {
        assert!(is_dead(pid), "{name} is dead");
    }
    assert!(said.join("polite").exists(), "it was asked before it was killed");
    assert_eq!(engine.inspect("stubborn", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert_eq!(engine.inspect("polite", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    engine.end();
}

fn ends_after_the_death_of_a_shim(case: &Case) {
    let fragile = Fragile::start(case);
    let (engine, said) = (&fragile.engine, fragile.engine.site.path("said"));
    polite(engine, "polite", "--restart always", &said);
    for name in ["stubborn", "removed", "killed"] {
        stubborn(engine, name);
    }
    let names = ["polite", "stubborn", "removed", "killed"];
    let pids = names.map(|name| pid(engine, name));
    fragile.without_shims();
    wait_until("none takes them over", || match engine.log().matches("no shim takes").count() {
        count if count >= names.len() => Ok(()),
        _ => Err(engine.log()),
    });
    for pid in pids {
        assert!(!is_dead(pid), "it lives on");
    }
    in_time(engine, &["stop -t 40 polite", "stop -t 1 stubborn", "rm -f removed", "kill killed"]);
    for (name, pid) in names.iter().zip(pids) {
        assert!(is_dead(pid), "{name} is dead");
    }
    assert!(said.join("polite").exists(), "it was asked before it was killed");
    for name in ["polite", "stubborn", "killed"] {
        assert_eq!(engine.inspect(name, "{{.State.Status}} {{.RestartCount}}"), "exited 0", "{name}");
    }
    fragile.end();
}
