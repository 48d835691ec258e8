//! What a command line has come to, masked, and how two of them differ.
//!
//! Called by the differential tests and by the scripts of the mesh.

use super::Engine;
use super::mask::mask;
use crate::runtime::Output;

/// One line's outcome, masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// What a command has left, without what is of this run of this engine.
    #[must_use]
    pub fn of(engine: &Engine<'_>, out: &Output) -> Self {
        let (dir, tag) = (engine.site.dir.display().to_string(), &engine.site.case.tag);
        let parent = engine.cgroup_parent();
        let own = [(dir.as_str(), "<site>"), (parent.as_str(), "/<parent>"), (tag.as_str(), "<tag>")];
        Self { code: out.code, stdout: mask(&out.stdout, &own), stderr: mask(&out.stderr, &own) }
    }

    /// The lines that only one of them has, `-` before this one's; `code` with both exit codes; `order` of lines that both have.
    #[must_use]
    pub fn against(&self, seen: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.code != seen.code {
            differences.push(format!("code {} {}", self.code, seen.code));
        }
        for (name, wanted, seen) in
            [("stdout", &self.stdout, &seen.stdout), ("stderr", &self.stderr, &seen.stderr)]
        {
            let (gone, new) = (only(wanted, seen, "-"), only(seen, wanted, "+"));
            if wanted != seen && gone.is_empty() && new.is_empty() {
                let (wanted, seen) = (wanted.lines().collect::<Vec<_>>(), seen.lines().collect::<Vec<_>>());
                differences.push(format!("order of {name}: {} / {}", wanted.join(" | "), seen.join(" | ")));
            }
            differences.extend(gone.into_iter().chain(new));
        }
        differences
    }
}

fn only(of: &str, other: &str, mark: &str) -> Vec<String> {
    let others: Vec<&str> = other.lines().collect();
    of.lines().filter(|line| !others.contains(line)).map(|line| format!("{mark} {line}")).collect()
}
