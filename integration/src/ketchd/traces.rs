//! Everything that an engine has on its machine, as lines: what two looks have in common was there before, the rest is a leak.
//!
//! Folders of the data root and the execution root, interfaces, rules, mounts, network namespaces, shims, cgroups, and what the API
//! lists. Called by the sweeps, the leak cycles and, for what is outside of the data root, at the end of every cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use super::Engine;
use crate::wait::wait_until;

/// Folders of ketchd whose entries count, below the site's.
const KEPT: &[&str] = &[
    "data/containers",
    "data/snapshots",
    "data/volumes",
    "data/layers",
    "data/image/blobs",
    "data/image/staging",
    "data/image/unpacking",
];

/// The same of what is there while something runs, or the node is in a cluster.
const RUNNING: &[&str] = &[
    "data/swarm",
    "exec",
    "exec/netns",
    "exec/overlays",
    "exec/sandboxes",
    "exec/s",
    "exec/task-files",
    "exec/runtime/ketchd",
];

/// Folders of those that stay once they were needed: what is in them counts.
const SHELVES: &[&str] = &["overlays", "sandboxes", "s", "task-files", "runtime"];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All.
    Everything,
    /// Not what an engine that runs nothing may keep: images, and what the API lists.
    Running,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    reach: Reach,
    lines: BTreeSet<String>,
}

impl Traces {
    /// Looks.
    ///
    /// # Panics
    /// When the engine does not answer.
    #[must_use]
    pub fn of(engine: &Engine<'_>) -> Self {
        Self::within(Reach::Everything, engine)
    }

    /// Looks at what is there while something runs or the node is in a cluster; the client is not asked for it.
    ///
    /// # Panics
    /// When the site's programs fail.
    #[must_use]
    pub fn of_running(engine: &Engine<'_>) -> Self {
        Self::within(Reach::Running, engine)
    }

    fn within(reach: Reach, engine: &Engine<'_>) -> Self {
        let mut lines = BTreeSet::new();
        let kept = if reach == Reach::Everything { KEPT } else { &[] };
        for folder in kept.iter().chain(RUNNING) {
            let entries = fs::read_dir(engine.site.path(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let names = names.filter(|name| {
                reach == Reach::Everything || *folder != "exec" || !SHELVES.contains(&name.as_str())
            });
            lines.extend(names.map(|name| format!("{folder}/{name}")));
        }
        let out = engine.sh("ip -brief link").ok();
        lines.extend(
            out.text()
                .lines()
                .map(|line| format!("interface {}", line.split([' ', '@']).next().unwrap_or_default())),
        );
        let out = engine.sh("nft list ruleset").ok();
        lines.extend(
            out.text().lines().enumerate().map(|(number, line)| format!("rule {number:04} {}", line.trim())),
        );
        // One mount more or less at the same place counts.
        for (number, mount) in engine.site.mounts(&engine.site.dir).into_iter().enumerate() {
            lines.insert(format!("mount {number:03} {mount}"));
        }
        lines.extend(engine.left());
        let lists: &[&str] = match reach {
            Reach::Everything => &[
                "ps -aq --no-trunc",
                "volume ls -q",
                "images -aq --no-trunc",
                "network ls --format {{.Name}}",
            ],
            Reach::Running => &[],
        };
        for command in lists {
            let out = engine.docker(command).ok();
            lines.extend(out.text().lines().map(|line| format!("{command}: {line}")));
        }
        Self { reach, lines }
    }

    /// Looks once what was removed is deleted, and the networks of what has ended are forgotten, which the engine does behind its
    /// answers.
    ///
    /// # Panics
    /// When the engine does not answer, or that takes too long.
    #[must_use]
    #[track_caller]
    pub fn settled(engine: &Engine<'_>) -> Self {
        let names = |folder: &str| -> Vec<_> {
            let entries = fs::read_dir(engine.site.path(folder)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name()).collect()
        };
        let running = engine.docker("ps -q").ok().text().lines().count();
        wait_until("nothing that is to be deleted", || {
            let (staging, sandboxes) = (names("data/image/staging"), names("exec/sandboxes"));
            if staging.is_empty() && sandboxes.len() <= running {
                Ok(())
            } else {
                Err(format!("{staging:?}, {sandboxes:?}"))
            }
        });
        Self::of(engine)
    }

    /// Waits until another look is the same.
    ///
    /// # Panics
    /// When it is not in time; with what is more and what is less.
    #[track_caller]
    pub fn wait_same(&self, engine: &Engine<'_>, when: &str) {
        wait_until(&format!("{when}: nothing is left"), || {
            let now = Self::within(self.reach, engine);
            if now == *self { Ok(()) } else { Err(now.against(self)) }
        });
    }

    fn against(&self, before: &Self) -> String {
        let more = self.lines.difference(&before.lines).map(|line| format!("\n+ {line}"));
        let less = before.lines.difference(&self.lines).map(|line| format!("\n- {line}"));
        more.chain(less).collect()
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
