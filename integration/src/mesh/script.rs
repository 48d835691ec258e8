//! Transcripts: command lines for a cluster with what they have to say, as text that people read, and that dockerd has written.
//!
//! How they are written is in `integration/mesh/README.md`. `KETCH_MESH_RECORD=1` writes down anew what the engine says.
//! Called by the `mesh_cli` tests.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mask::mask;
use super::wire::REGISTRY;
use super::{Mesh, Node};
use crate::ketchd::intended::Intended;
use crate::ketchd::outcome::Outcome;
use crate::ketchd::words;
use crate::runtime::Output;

/// How long a line with `?` may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one command may take, in seconds: less than a command of the harness may.
const BOUND: &str = "50";

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `>`: is compared.
    Told,
    /// `~`: is not.
    Untold,
    /// `?`: is asked again until it is as wanted.
    Awaited,
    /// `@`: something happens to the engine.
    Happening,
}

/// One line, and what it has to say.
#[derive(Clone, Debug)]
struct Step {
    /// The line in the file, from 1.
    at: usize,
    node: usize,
    kind: Kind,
    /// Without its mark; `$ ` before a shell's.
    line: String,
    wanted: Outcome,
}

/// A file's parts in their order.
#[derive(Clone, Debug)]
enum Part {
    /// A comment or an empty line.
    Text(String),
    Step(Step),
}

/// A transcript.
#[derive(Debug)]
pub struct Script {
    name: String,
    file: PathBuf,
    parts: Vec<Part>,
}

impl Script {
    /// Reads `integration/mesh/<name>.txt`.
    ///
    /// # Panics
    /// When it is not there, or a line is none of a transcript's.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let file = folder().join(format!("{name}.txt"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        Self { name: name.to_owned(), file, parts: parse(&text) }
    }

    /// How many invocations are compared.
    #[must_use]
    pub fn invocations(&self) -> usize {
        self.steps().filter(|step| step.kind == Kind::Told).count()
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().filter_map(|part| match part {
            Part::Step(step) => Some(step),
            Part::Text(_) => None,
        })
    }

    /// Runs it all, and has every node leave; with `KETCH_MESH_RECORD` it is written anew.
    ///
    /// # Errors
    /// What is otherwise than it should be, all of it.
    ///
    /// # Panics
    /// When a node does not leave.
    pub fn run(mut self, mesh: &mut Mesh<'_>) -> Result<(), String> {
        let records = std::env::var_os("KETCH_MESH_RECORD").is_some();
        let list = fs::read_to_string(folder().join("intended.txt")).expect("read the list");
        let is_ketch = mesh.node(1).engine.is_ketch();
        let mut intended = if is_ketch { Intended::read(&list, &self.name) } else { Intended::default() };
        let mut differences = String::new();
        let told = self.invocations();
        let started = Instant::now();
        let mut slow: Vec<(Duration, usize)> = Vec::new();
        for part in &mut self.parts {
            let Part::Step(step) = part else { continue };
            let begun = Instant::now();
            let seen = step.run(mesh, &intended);
            slow.push((begun.elapsed(), step.at));
            if step.kind == Kind::Told && records {
                step.wanted = seen;
                continue;
            }
            let others = match step.kind {
                Kind::Told | Kind::Awaited => intended.others(&step.line, step.wanted.against(&seen)),
                Kind::Untold | Kind::Happening => Vec::new(),
            };
            if !others.is_empty() {
                let text = others.join("\n");
                let _ = write!(differences, "### {}.txt:{} `{}`\n{text}\n\n", self.name, step.at, step.line);
            }
        }
        for row in intended.stale() {
            let _ = write!(differences, "### intended.txt: {} {row}\nis not so any more\n\n", self.name);
        }
        slow.sort();
        let slow: Vec<String> = slow
            .iter()
            .rev()
            .take(6)
            .map(|(time, at)| format!("{:.1} s at {at}", time.as_secs_f64()))
            .collect();
        let whole = started.elapsed().as_secs_f64();
        println!("mesh {}: {told} invocations in {whole:.1} s; slowest: {}", self.name, slow.join(", "));
        if records {
            fs::write(&self.file, print(&self.parts)).expect("write the transcript");
        }
        mesh.part();
        if differences.is_empty() { Ok(()) } else { Err(differences) }
    }
}

impl Step {
    /// Does it, and gives what it has come to.
    fn run(&self, mesh: &mut Mesh<'_>, intended: &Intended) -> Outcome {
        match self.kind {
            Kind::Happening => self.happen(mesh.node_mut(self.node)),
            Kind::Told | Kind::Untold => self.ask(mesh.node(self.node)),
            Kind::Awaited => {
                let end = Instant::now() + PATIENCE;
                loop {
                    let seen = self.ask(mesh.node(self.node));
                    let others = intended.clone().others(&self.line, self.wanted.against(&seen));
                    if others.is_empty() || Instant::now() > end {
                        return seen;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn happen(&self, node: &mut Node<'_>) -> Outcome {
        match self.line.as_str() {
            "restart" => node.engine.stop(),
            "crash" => node.kill_agent(),
            other => panic!("nothing that happens: {other}"),
        }
        node.come_back();
        Outcome::default()
    }

    fn ask(&self, node: &Node<'_>) -> Outcome {
        let files = folder().join("files").display().to_string();
        let line = self
            .line
            .replace("{files}", &files)
            .replace("{image}", &format!("{REGISTRY}/busybox:1"))
            .replace("{newer}", &format!("{REGISTRY}/busybox:2"))
            .replace("{registry}", REGISTRY)
            .replace("{folder}", &node.engine.site.case.dir.display().to_string())
            .replace("{site}", &node.engine.site.dir.display().to_string());
        // One that does not end is a difference, 124, and not the end of the test.
        let bounded = node.engine.program("timeout").args(["--kill-after=1", BOUND]);
        let mut out = match line.strip_prefix("$ ") {
            Some(line) => bounded.args(["sh", "-c", line]).run(),
            None => bounded.arg("docker").args(words::split(&line)).run(),
        };
        let plain = |text: &str| {
            let text = text.replace(&files, "{files}").replace(REGISTRY, "{registry}");
            mask(&text.replace(&node.version, "<version>"))
        };
        out.stdout = plain(&out.stdout);
        out.stderr = plain(&out.stderr);
        outcome(node, &out)
    }
}

fn outcome(node: &Node<'_>, out: &Output) -> Outcome {
    let Outcome { code, stdout, stderr } = Outcome::of(&node.engine, out);
    Outcome { code, stdout: stdout.trim().to_owned(), stderr: stderr.trim().to_owned() }
}

/// Where the transcripts are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh")
}

fn parse(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            parts.push(Part::Text(line.to_owned()));
            continue;
        }
        if let Some(step) = first_line(index + 1, line) {
            parts.push(Part::Step(step));
            continue;
        }
        let Some(Part::Step(step)) = parts.last_mut() else { panic!("line {}: of no step", index + 1) };
        let (mark, rest) = line.split_at(1);
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match mark {
            "|" => add_line(&mut step.wanted.stdout, rest),
            "!" => add_line(&mut step.wanted.stderr, rest),
            "=" => step.wanted.code = rest.parse().expect("an exit code"),
            _ => panic!("line {}: none of a transcript's: {line}", index + 1),
        }
    }
    parts
}

/// A step's own line: a node's number, when it is not the first's, the mark, and what is asked.
fn first_line(at: usize, line: &str) -> Option<Step> {
    let rest = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let node = line[..line.len() - rest.len()].parse().unwrap_or(1);
    let (mark, line) = rest.split_once(' ')?;
    let kind = match mark {
        ">" => Kind::Told,
        "~" => Kind::Untold,
        "?" => Kind::Awaited,
        "@" => Kind::Happening,
        _ => return None,
    };
    Some(Step { at, node, kind, line: line.to_owned(), wanted: Outcome::default() })
}

fn add_line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

fn print(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(line) => text.push_str(&format!("{line}\n")),
            Part::Step(step) => print_step(&mut text, step),
        }
    }
    text
}

fn print_step(text: &mut String, step: &Step) {
    let mark = match step.kind {
        Kind::Told => '>',
        Kind::Untold => '~',
        Kind::Awaited => '?',
        Kind::Happening => '@',
    };
    let node = if step.node == 1 { String::new() } else { step.node.to_string() };
    let _ = writeln!(text, "{node}{mark} {}", step.line);
    for (mark, said) in [('|', &step.wanted.stdout), ('!', &step.wanted.stderr)] {
        for line in said.lines() {
            let _ = writeln!(text, "{}", format!("{mark} {line}").trim_end());
        }
    }
    if step.wanted.code != 0 {
        let _ = writeln!(text, "= {}", step.wanted.code);
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Part, Script, folder, parse, print};

    #[test]
    fn a_transcript_is_printed_as_it_was_read() {
        let text =
            "# about\n\n> node ls\n| ID\n|\n| <id>\n! warning\n= 1\n2? $ docker ps | wc -l\n| 0\n@ restart\n";
        assert_eq!(print(&parse(text)), text);
    }

    #[test]
    fn all_transcripts_together_are_long_enough() {
        let mut sum = 0;
        for entry in std::fs::read_dir(folder()).expect("list").flatten() {
            let name = entry.file_name().into_string().expect("a name");
            if let Some(name) = name.strip_suffix(".txt").filter(|name| *name != "intended") {
                let script = Script::read(name);
                assert!(
                    script
                        .parts
                        .iter()
                        .any(|part| matches!(part, Part::Step(step) if step.kind == Kind::Told))
                );
                sum += script.invocations();
            }
        }
        assert!(sum >= 120, "issue 6 asks for 120 invocations: {sum}");
    }
}
