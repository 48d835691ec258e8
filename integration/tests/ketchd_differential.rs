//! The differential script: the same command lines on dockerd 28.5 and on the engine under test, their output compared.
//!
//! The lines are in `integration/differential`, whose README says how they are written. `KETCH_DIFFERENCES` names a file that takes
//! what differs, under the name of who mends it; `KETCH_TRANSCRIPTS` a folder that takes what dockerd said.

use std::fmt::Write;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use ketch_integration::ketchd::{Engine, Maker, mask::mask};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests};

tests![containers, images, networks, system];

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

/// One line's outcome, masked.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

fn compare(case: &Case, group: &str) {
    let maker = Maker::under_test(case);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("differential/{group}.txt"));
    let script = std::fs::read_to_string(&file).expect("read the script");
    let owner = script.lines().find_map(|line| line.strip_prefix("#owner ")).unwrap_or("nobody");
    let of = |maker: Maker, folder: &str| Engine::inside(Site::in_folder(case, folder), maker, &[]);
    let (peer, engine) = (of(Maker::Docker, "peer"), of(maker, "tested"));
    peer.load_busybox();
    engine.load_busybox();
    let (mut differences, mut transcript) = (String::new(), String::new());
    let (mut number, mut compared) = (0, 0);
    let mut intended: Option<&str> = None;
    for line in script.lines() {
        number += 1;
        if let Some(reason) = line.strip_prefix("#= ") {
            intended = Some(reason);
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_intended = intended.take().is_some();
        if let Some(rest) = line.strip_prefix("? ") {
            let words: Vec<&str> = rest.splitn(3, ' ').collect();
            for engine in [&peer, &engine] {
                if !waited(engine, words[0], words[1], words[2]) {
                    let _ = writeln!(differences, "### {group}.txt:{number} `{line}`\nnever so on {:?}\n", engine.maker);
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
        let same = if is_intended { wanted.code == seen.code } else { wanted == seen };
        if !same {
            let _ = writeln!(differences, "### {group}.txt:{number} `{line}`\n{}", shown(&wanted, &seen, is_intended));
        }
    }
    println!("differential {group}: {compared} lines, {} differ", differences.matches("### ").count());
    report(owner, group, &differences);
    if let Some(folder) = std::env::var_os("KETCH_TRANSCRIPTS") {
        std::fs::write(Path::new(&folder).join(format!("{group}.txt")), transcript).expect("write the transcript");
    }
    peer.end();
    engine.end();
    assert!(differences.is_empty(), "these differ:\n{differences}");
}

fn run(engine: &Engine<'_>, line: &str) -> Outcome {
    let line = line.strip_prefix("~ ").unwrap_or(line);
    let out = match line.strip_prefix("$ ") {
        Some(line) => engine.sh(line),
        None => engine.docker(line),
    };
    let (dir, tag) = (engine.site.dir.display().to_string(), &engine.site.case.tag);
    let parent = engine.cgroup_parent();
    let own = [(dir.as_str(), "<site>"), (parent.as_str(), "/<parent>"), (tag.as_str(), "<tag>")];
    Outcome { code: out.code, stdout: mask(&out.stdout, &own), stderr: mask(&out.stderr, &own) }
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

/// The lines that only one of them has.
fn shown(wanted: &Outcome, seen: &Outcome, codes_only: bool) -> String {
    let mut text = String::new();
    if wanted.code != seen.code {
        let _ = writeln!(text, "exit code: dockerd {}, ketchd {}", wanted.code, seen.code);
    }
    if codes_only {
        return text;
    }
    for (name, wanted, seen) in [("stdout", &wanted.stdout, &seen.stdout), ("stderr", &wanted.stderr, &seen.stderr)] {
        if wanted != seen {
            let _ = writeln!(text, "{name}:");
            let only = |of: &str, other: &str| {
                let others: Vec<&str> = other.lines().collect();
                of.lines().filter(|line| !others.contains(line)).map(str::to_owned).collect::<Vec<_>>()
            };
            let (gone, new) = (only(wanted, seen), only(seen, wanted));
            gone.iter().for_each(|line| _ = writeln!(text, "- {line}"));
            new.iter().for_each(|line| _ = writeln!(text, "+ {line}"));
            if gone.is_empty() && new.is_empty() {
                let _ = writeln!(text, "(the same lines in another order, or another number of them)\n- {wanted}\n+ {seen}");
            }
        }
    }
    text
}

/// Groups run side by side.
static REPORT: Mutex<()> = Mutex::new(());

fn report(owner: &str, group: &str, differences: &str) {
    let Some(file) = std::env::var_os("KETCH_DIFFERENCES") else { return };
    let _whole = REPORT.lock();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("open the report");
    write!(file, "\n# {owner}: {group}.txt (- dockerd's lines, + ketchd's)\n\n{differences}").expect("write the report");
}
