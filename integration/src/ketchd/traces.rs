//! Everything that an engine has on its machine, as lines: what two looks have in common was there before, the rest is a leak.
//!
//! Folders of the data root and the execution root, interfaces, rules, mounts, network namespaces, shims, cgroups, and what the API
//! lists. Called by the sweeps and the leak cycles.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use super::Engine;
use crate::wait::wait_until;

/// Folders of ketchd whose entries count, below the site's.
const FOLDERS: &[&str] = &[
    "data/containers",
    "data/snapshots",
    "data/volumes",
    "data/layers",
    "data/image/blobs",
    "data/image/staging",
    "data/image/unpacking",
    "exec",
    "exec/netns",
    "exec/sandboxes",
    "exec/s",
    "exec/runtime/ketchd",
];

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks.
    ///
    /// # Panics
    /// When the engine does not answer.
    #[must_use]
    pub fn of(engine: &Engine<'_>) -> Self {
        let mut lines = BTreeSet::new();
        for folder in FOLDERS {
            let entries = fs::read_dir(engine.site.path(folder)).into_iter().flatten().flatten();
            lines.extend(entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())));
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
        for command in
            ["ps -aq --no-trunc", "volume ls -q", "images -aq --no-trunc", "network ls --format {{.Name}}"]
        {
            let out = engine.docker(command).ok();
            lines.extend(out.text().lines().map(|line| format!("{command}: {line}")));
        }
        Self(lines)
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
            let now = Self::of(engine);
            if now == *self { Ok(()) } else { Err(now.against(self)) }
        });
    }

    fn against(&self, before: &Self) -> String {
        let more = self.0.difference(&before.0).map(|line| format!("\n+ {line}"));
        let less = before.0.difference(&self.0).map(|line| format!("\n- {line}"));
        more.chain(less).collect()
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
