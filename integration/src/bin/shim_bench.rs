//! `make bench-shim`: ketch's shim beside containerd's own, with runc and with ketch under it, in one interleaved run.
//!
//! Times the calls of the task's life as containerd makes them, weighs the shims of 100 running containers and of a pod, and
//! pushes gigabytes through a stream. Prints the table, and writes `shim.json` and the rows of promises in README.md of
//! integration/bench. Knobs (environment): ROUNDS, MANY, GIB, CASES (memory,pod,run,exec,stream), SHIM, KETCH.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench: a failure ends it with its message")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ketch_integration::runtime::Runtime;
use ketch_integration::shim::stream::make_fifo;
use ketch_integration::shim::{Create, Exec, Served, Shim, Stage};
use ketch_integration::{Bundle, Caller, Case, Layout, wait_until};
use rustix::pipe::{SpliceFlags, splice};
use serde_json::{Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench");
const BEGIN: &str = "<!-- shim promises -->";
const END: &str = "<!-- end of shim promises -->";
const OURS: &str = "ketch+ketch";
const PEER: &str = "go1.6+runc";

/// A shim with a runtime under it.
struct Contender {
    key: &'static str,
    shim: Shim,
    runtime: Runtime,
}

impl Contender {
    /// A folder, names and options of a measurement's own.
    fn case(&self) -> Case {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        Case::new(
            self.key,
            SERIAL.fetch_add(1, Ordering::Relaxed),
            Layout::Native,
            Caller::Root,
            &self.runtime,
        )
    }
}

type Samples = BTreeMap<(&'static str, &'static str), Vec<f64>>;

fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn wants(case: &str) -> bool {
    std::env::var("CASES").map_or(true, |all| all.is_empty() || all.split(',').any(|one| one == case))
}

fn contenders() -> Vec<Contender> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    let path =
        |name: &str, default: &str| std::env::var_os(name).map_or_else(|| root.join(default), PathBuf::from);
    let ketch = path("KETCH", "ketch").display().to_string();
    let ours =
        Shim { path: path("SHIM", "containerd-shim-ketch-v2"), maker: ketch_integration::shim::Maker::Ketch };
    let all = [
        (OURS, ours.clone(), ketch.clone()),
        ("ketch+runc", ours, "runc".to_owned()),
        (PEER, Shim::go16(), "runc".to_owned()),
        ("go1.6+ketch", Shim::go16(), ketch),
    ];
    let mut found = Vec::new();
    for (key, shim, runtime) in all {
        match Runtime::find(&runtime) {
            Ok(runtime) if shim.path.exists() => {
                found.push(Contender { key, shim, runtime });
            }
            Ok(_) => println!("note: left out: {key}: no {}", shim.path.display()),
            Err(reason) => println!("note: left out: {key}: {reason}"),
        }
    }
    found
}

/// A container with its shim, and its streams held open without a reader.
struct Running<'a> {
    bundle: Bundle<'a>,
    served: Served,
    _streams: Vec<File>,
}

fn held_fifo(path: &Path) -> File {
    make_fifo(path);
    OpenOptions::new().read(true).write(true).open(path).expect("open a fifo")
}

fn start<'a>(stage: &Stage<'a>, bundle: Bundle<'a>) -> Running<'a> {
    let served = stage.serve(&bundle);
    let [out, err] = ["out", "err"].map(|name| stage.path(&format!("{}.{name}", bundle.id)));
    let streams = vec![held_fifo(&out), held_fifo(&err)];
    let create = Create {
        stdout: out.display().to_string(),
        stderr: err.display().to_string(),
        ..stage.create(&bundle)
    };
    served.tasks.run(&create);
    Running { bundle, served, _streams: streams }
}

fn remove(case: &Case) {
    let _ = fs::remove_dir_all(&case.dir);
}

fn sleeper(case: &Case) -> Bundle<'_> {
    case.bundle().command(&["/bin/sleep", "1000000"])
}

/// What a program makes of standing idle counts, whoever's it is: ours lets its pages go, Go's collects its garbage.
const IDLE: Duration = Duration::from_secs(3);

/// PSS and RSS of the processes together, in MiB, once they have stood idle.
fn weight(pids: &[i32]) -> (f64, f64) {
    std::thread::sleep(IDLE);
    let mut sums = (0.0, 0.0);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
        let field = |name: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of smaps_rollup");
            line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
        };
        sums = (sums.0 + field("Pss:"), sums.1 + field("Rss:"));
    }
    sums
}

fn measure_memory(contender: &Contender, many: usize, samples: &mut Samples) {
    let case = contender.case();
    let stage = Stage::with_shim(&case, contender.shim.clone());
    let running: Vec<_> = (0..many).map(|_| start(&stage, sleeper(&case))).collect();
    let shims = stage.shims();
    assert_eq!(shims.len(), many, "a shim for each");
    let (pss, rss) = weight(&shims);
    let count = f64::from(u32::try_from(many).unwrap_or(1));
    samples.entry(("PSS per shim, MiB", contender.key)).or_default().push(pss / count);
    samples.entry(("RSS per shim, MiB", contender.key)).or_default().push(rss / count);
    running.iter().for_each(|one| one.served.tasks.end(&one.bundle.id));
    drop(running);
    stage.end();
    remove(&case);
}

fn measure_pod(contender: &Contender, samples: &mut Samples) {
    let case = contender.case();
    let stage = Stage::with_shim(&case, contender.shim.clone());
    let first = start(&stage, sleeper(&case));
    let group = json!({ "io.kubernetes.cri.sandbox-id": first.bundle.id });
    let others: Vec<_> =
        (1..10).map(|_| start(&stage, sleeper(&case).set("/annotations", group.clone()))).collect();
    let shims = stage.shims();
    assert_eq!(shims.len(), 1, "one shim for the pod");
    samples.entry(("PSS of a pod's shim, MiB", contender.key)).or_default().push(weight(&shims).0);
    for one in &others {
        one.served.tasks.kill(&one.bundle.id, "", 9).expect("Kill");
        one.served.tasks.wait(&one.bundle.id, "").expect("Wait");
        one.served.tasks.delete(&one.bundle.id, "").expect("Delete");
    }
    first.served.tasks.end(&first.bundle.id);
    drop(others);
    stage.end();
    remove(&case);
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// `ctr run --rm` of /bin/true: the shim's start, Create, Start, Wait, Delete, and Shutdown up to the shim's end.
fn measure_run(stage: &Stage<'_>, bundle: &Bundle<'_>) -> f64 {
    let create = stage.create(bundle);
    let since = Instant::now();
    let served = stage.serve(bundle);
    served.tasks.run(&create);
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    let _ended = served.tasks.shutdown(&bundle.id);
    let taken = milliseconds(since);
    wait_until(
        "the shim's end",
        || if served.tasks.client.is_closed() { Ok(()) } else { Err(String::new()) },
    );
    taken
}

fn measure_exec(running: &Running<'_>, turn: usize) -> f64 {
    let exec = Exec::new(&format!("e{turn}"), &["/bin/true"]);
    let since = Instant::now();
    assert_eq!(running.served.tasks.run_exec(&running.bundle.id, &exec), 0);
    milliseconds(since)
}

fn measure_times(contenders: &[Contender], rounds: usize, samples: &mut Samples) {
    let cases: Vec<_> = contenders.iter().map(Contender::case).collect();
    let stages: Vec<_> =
        cases.iter().zip(contenders).map(|(case, one)| Stage::with_shim(case, one.shim.clone())).collect();
    let bundles: Vec<_> = cases.iter().map(|case| case.bundle().command(&["/bin/true"])).collect();
    let running: Vec<_> =
        stages.iter().zip(&cases).map(|(stage, case)| start(stage, sleeper(case))).collect();
    for turn in 0..rounds + 2 {
        for offset in 0..contenders.len() {
            // Each turn another one is first.
            let at = (turn + offset) % contenders.len();
            let run = wants("run").then(|| measure_run(&stages[at], &bundles[at]));
            let exec = wants("exec").then(|| measure_exec(&running[at], turn));
            // Two turns warm up.
            if turn >= 2 {
                let key = contenders[at].key;
                let mut keep =
                    |name, value: Option<f64>| samples.entry((name, key)).or_default().extend(value);
                keep("run, ms", run);
                keep("exec, ms", exec);
            }
        }
    }
    running.iter().for_each(|one| one.served.tasks.end(&one.bundle.id));
    drop(running);
    stages.into_iter().for_each(Stage::end);
    cases.iter().for_each(remove);
}

/// User and system time of a process, in seconds.
fn cpu(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
    // USER_HZ, which is 100 on every Linux of this architecture.
    ticks / 100.0
}

/// Gigabytes from the container's standard output to a fifo that is emptied into /dev/null.
fn measure_stream(contender: &Contender, gib: usize, samples: &mut Samples) {
    let case = contender.case();
    let stage = Stage::with_shim(&case, contender.shim.clone());
    let script = format!("dd if=/dev/zero bs=1M count={} 2>/dev/null", gib * 1024);
    let bundle = case.bundle().script(&script);
    let served = stage.serve(&bundle);
    let path = stage.path("stream");
    make_fifo(&path);
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut open = OpenOptions::new();
    let reader =
        std::os::unix::fs::OpenOptionsExt::custom_flags(open.read(true), flags).open(&path).expect("open");
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).expect("make it blocking");
    let null = OpenOptions::new().write(true).open("/dev/null").expect("open /dev/null");
    let name = path.display().to_string();
    let create = Create { stdout: name.clone(), stderr: name, ..stage.create(&bundle) };
    served.tasks.create(&create).expect("Create");
    let shim = stage.shims()[0];
    let (before, since) = (cpu(shim), Instant::now());
    served.tasks.start(&bundle.id, "").expect("Start");
    let mut left = gib << 30;
    while left > 0 {
        let count =
            splice(&reader, None, &null, None, left.min(1 << 20), SpliceFlags::empty()).expect("splice");
        assert!(count > 0, "the stream ended {left} bytes early");
        left -= count;
    }
    let (seconds, used) = (since.elapsed().as_secs_f64(), cpu(shim) - before);
    let size = f64::from(u32::try_from(gib).unwrap_or(1));
    samples.entry(("stream, GiB/s", contender.key)).or_default().push(size / seconds);
    samples.entry(("stream, shim's CPU s/GiB", contender.key)).or_default().push(used / size);
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    served.tasks.leave(&bundle.id);
    fs::remove_file(&path).expect("remove the fifo");
    stage.end();
    remove(&case);
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The promises: what, the bound, and what was measured; `None` when it was not.
fn promises(samples: &Samples) -> Vec<(String, f64, Option<f64>)> {
    let of = |name: &'static str, key| {
        samples.get(&(name, key)).filter(|all| !all.is_empty()).map(|all| median(all))
    };
    let over = |name, top, bottom| Some(of(name, top)? / of(name, bottom)?);
    vec![
        ("shim, PSS with 100 containers running, MiB".into(), 1.0, of("PSS per shim, MiB", OURS)),
        ("shim, RSS with 100 containers running, MiB".into(), 2.5, of("RSS per shim, MiB", OURS)),
        ("shim of a pod of ten, PSS, MiB".into(), 1.5, of("PSS of a pod's shim, MiB", OURS)),
        ("run through the shim, over the Go shim with runc".into(), 0.5, over("run, ms", OURS, PEER)),
        ("exec through the shim, over the Go shim with runc".into(), 0.5, over("exec, ms", OURS, PEER)),
        (
            "4 GiB of output, the Go shim's throughput over ours".into(),
            1.0,
            over("stream, GiB/s", PEER, OURS),
        ),
        (
            "4 GiB of output, the shim's CPU over the Go shim's".into(),
            1.0,
            over("stream, shim's CPU s/GiB", OURS, PEER),
        ),
    ]
}

fn table(samples: &Samples, keys: &[&'static str]) -> String {
    let mut text = format!("{:<28}", "medians");
    keys.iter().for_each(|key| write!(text, "{key:>14}").expect("a string grows"));
    let names: std::collections::BTreeSet<_> = samples.keys().map(|(name, _)| *name).collect();
    for name in names {
        let _ = write!(text, "\n{name:<28}");
        for key in keys {
            let value = samples.get(&(name, *key)).map_or(f64::NAN, |all| median(all));
            let _ = write!(text, "{value:>14.3}");
        }
    }
    text
}

fn promise_rows(rows: &[(String, f64, Option<f64>)], taken: &str) -> String {
    let mut text = format!("{taken}\n\n| promise | at most | measured | |\n|---|---|---|---|\n");
    for (name, bound, value) in rows {
        let (shown, verdict) = match value {
            Some(value) => (format!("{value:.2}"), if value <= bound { "met" } else { "NOT MET" }),
            None => ("-".into(), "not measured"),
        };
        let _ = writeln!(text, "| {name} | {bound} | {shown} | {verdict} |");
    }
    text
}

fn main() {
    let (rounds, many, gib) = (knob("ROUNDS", 30), knob("MANY", 100), knob("GIB", 4));
    let contenders = contenders();
    let mut samples = Samples::new();
    if wants("memory") {
        contenders.iter().for_each(|one| measure_memory(one, many, &mut samples));
    }
    if wants("pod") {
        contenders.iter().for_each(|one| measure_pod(one, &mut samples));
    }
    if wants("run") || wants("exec") {
        measure_times(&contenders, rounds, &mut samples);
    }
    if wants("stream") {
        for _ in 0..3 {
            contenders.iter().for_each(|one| measure_stream(one, gib, &mut samples));
        }
    }
    let keys: Vec<_> = contenders.iter().map(|one| one.key).collect();
    println!("{}\n", table(&samples, &keys));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let date = std::process::Command::new("date").args(["-u", "+%F"]).output().expect("run date").stdout;
    let date = String::from_utf8_lossy(&date).trim().to_owned();
    let rows = promises(&samples);
    let taken = format!(
        "Measured {date} on {cpus} CPUs, kernel {}, {rounds} rounds, {many} containers, {gib} GiB, load {load} at the end; `make bench-shim`.",
        kernel.trim()
    );
    let verdicts = promise_rows(&rows, &taken);
    println!("{verdicts}");
    let measured: BTreeMap<String, BTreeMap<&str, Value>> =
        samples.iter().fold(BTreeMap::new(), |mut all, ((name, key), list)| {
            let entry: &mut BTreeMap<&str, Value> = all.entry((*name).to_owned()).or_default();
            entry.insert(key, json!({ "median": median(list), "samples": list.len() }));
            all
        });
    let path = std::env::var("RESULTS").unwrap_or_else(|_| format!("{FOLDER}/shim.json"));
    let programs: BTreeMap<_, _> = contenders.iter().map(|one| (one.key, &one.runtime.version)).collect();
    let result = json!({ "taken": taken, "runtimes": programs, "medians": measured });
    fs::write(&path, format!("{result:#}\n")).expect("write the results");
    println!("written: {path}");
    // Only a run of everything speaks for the promises.
    let is_whole = ["ROUNDS", "MANY", "GIB", "CASES", "SHIM", "KETCH", "RESULTS"]
        .iter()
        .all(|name| std::env::var_os(name).is_none());
    if is_whole {
        let readme = format!("{FOLDER}/README.md");
        let text = fs::read_to_string(&readme).expect("read README.md");
        let (head, rest) = text.split_once(BEGIN).expect("the beginning of the promises");
        let (_, tail) = rest.split_once(END).expect("the end of the promises");
        fs::write(&readme, format!("{head}{BEGIN}\n{verdicts}{END}{tail}")).expect("write README.md");
    }
}
