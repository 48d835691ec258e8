//! The differential script: the same command lines on dockerd 28.5 and on the engine under test, their output compared.
//!
//! The lines are in `integration/differential`, whose README says how they are written. `KETCH_DIFFERENCES` names a file that takes
//! what differs; `KETCH_TRANSCRIPTS` a folder that takes what dockerd said.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use ketch_integration::ketchd::intended::Intended;
use ketch_integration::ketchd::outcome::Outcome;
use ketch_integration::ketchd::{Engine, Maker, words};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests};

tests![api, build, containers, images, networks, system, flags, of_debian];

fn api(case: &Case) {
    compare(case, "api");
}

fn build(case: &Case) {
    compare(case, "build");
}

fn containers(case: &Case) {
    compare(case, "containers");
}

fn images(case: &Case) {
    compare(case, "images");
}

fn networks(case: &Case) {
    compare(case, "networks");
}

fn system(case: &Case) {
    compare(case, "system");
}

fn flags(case: &Case) {
    compare(case, "flags");
}

/// Debian's docker 20.10 on both sides, dockerd of that age for the oracle.
fn of_debian(case: &Case) {
    compare(case, "debian");
}

/// What differs, by its place in the script.
type Differences = BTreeMap<String, String>;

/// What differs once may be the order of one of Go's maps, or of a client's two streams; what differs again is a difference.
fn compare(case: &Case, group: &str) {
    let mut differences = differing(case, group, ["peer", "tested"]);
    if !differences.is_empty() {
        let again = differing(case, group, ["peer-2", "tested-2"]);
        differences.retain(|place, _| again.contains_key(place));
    }
    let text: String = differences.values().map(String::as_str).collect();
    report(group, &text);
    assert!(text.is_empty(), "these differ:\n{text}");
}

fn differing(case: &Case, group: &str, folders: [&str; 2]) -> Differences {
    let maker = Maker::under_test(case);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential");
    let script = std::fs::read_to_string(folder.join(format!("{group}.txt"))).expect("read the script");
    let list = std::fs::read_to_string(folder.join("intended.txt")).expect("read the list");
    let is_debians = group == "debian";
    let oracle = if is_debians { Maker::Debian } else { Maker::Docker };
    let maker = if maker == Maker::Docker { oracle.clone() } else { maker };
    let mut intended = if maker == oracle { Intended::default() } else { Intended::read(&list, group) };
    let of = |maker: Maker, folder: &str| {
        let engine = Engine::inside(Site::in_folder(case, folder), maker, &[]);
        if is_debians { engine.with_debians_clients() } else { engine }
    };
    let (peer, engine) = (of(oracle, folders[0]), of(maker, folders[1]));
    peer.load_busybox();
    engine.load_busybox();
    let (mut differences, mut transcript) = (Differences::new(), String::new());
    let place = |number: i32| format!("{group}.txt:{number:04}");
    let (mut number, mut compared) = (0, 0);
    for line in script.lines() {
        number += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("? ") {
            let words: Vec<&str> = rest.splitn(3, ' ').collect();
            for engine in [&peer, &engine] {
                if !waited(engine, words[0], words[1], words[2]) {
                    let text = format!("### {group}.txt:{number} `{line}`\nnever so on {:?}\n\n", engine.maker);
                    differences.entry(place(number)).or_default().push_str(&text);
                }
            }
            continue;
        }
        let (wanted, seen) = std::thread::scope(|scope| {
            let other = scope.spawn(|| run(&peer, line));
            let seen = run(&engine, line);
            (other.join().expect("the peer's run"), seen)
        });
        if line.starts_with("~ ") {
            continue;
        }
        compared += 1;
        let _ = writeln!(transcript, "### {line}\ncode {}\n{}\n--- stderr\n{}\n", wanted.code, wanted.stdout, wanted.stderr);
        let others = intended.others(line, wanted.against(&seen));
        if !others.is_empty() {
            let text = format!("### {group}.txt:{number} `{line}`\n{}\n\n", others.join("\n"));
            differences.entry(place(number)).or_default().push_str(&text);
        }
    }
    for row in intended.stale() {
        let text = format!("### intended.txt: {group} {row}\nis not so any more\n\n");
        let _none = differences.insert(format!("intended.txt {row}"), text);
    }
    println!("differential {group}: {compared} lines, {} differ", differences.len());
    if let Some(folder) = std::env::var_os("KETCH_TRANSCRIPTS") {
        std::fs::write(Path::new(&folder).join(format!("{group}.txt")), transcript).expect("write the transcript");
    }
    peer.end();
    engine.end();
    differences
}

fn run(engine: &Engine<'_>, line: &str) -> Outcome {
    let line = line.strip_prefix("~ ").unwrap_or(line);
    // One that does not end is a difference, 124, and not the end of the test.
    let bounded = engine.program("timeout").args(["--kill-after=1", "20"]);
    let out = match line.strip_prefix("$ ") {
        Some(line) => bounded.args(["sh", "-c", line]).run(),
        None => bounded.arg("docker").args(words::split(line)).run(),
    };
    Outcome::of(engine, &out)
}

fn waited(engine: &Engine<'_>, name: &str, format: &str, wanted: &str) -> bool {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < end {
        if engine.client().args(["inspect", "--format", format, name]).run().text() == wanted {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    false
}

/// Groups run side by side.
static REPORT: Mutex<()> = Mutex::new(());

fn report(group: &str, differences: &str) {
    let Some(file) = std::env::var_os("KETCH_DIFFERENCES") else { return };
    let _whole = REPORT.lock();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("open the report");
    write!(file, "\n# {group}.txt (- dockerd's lines, + ketchd's)\n\n{differences}").expect("write the report");
}
