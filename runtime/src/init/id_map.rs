//! The id maps of a new user namespace, written from outside by whoever may.
//!
//! Root writes what the plan says. A user may map no id but its own (user_namespaces(7)); for others there are newuidmap
//! and newgidmap, which are installed with the right to map what `/etc/subuid` and `/etc/subgid` give the user. Called by
//! [`super::parent`] while the process waits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ketch_sys::process::Pid;
use ketch_sys::{Errno, SyscallError, credential, signal};
use thiserror::Error;

use crate::error::io_text;
use crate::plan::Caller;
use crate::plan::namespaces::NamespacePlan;
use crate::procfs::ProcFs;
use crate::spec::IdMapping;

/// Why ids could not be mapped.
#[derive(Debug, Error)]
pub enum IdMapError {
    /// The kernel refused a map.
    #[error("mapping the {kind}s of the user namespace ({map})")]
    Write {
        /// `uid` or `gid`.
        kind: &'static str,
        /// The map, its lines joined by commas.
        map: String,
        /// The refused call.
        source: SyscallError,
    },
    /// setgroups(2) could not be switched off, without which a user may map no group.
    #[error("denying setgroups in the user namespace")]
    SetGroups(#[source] SyscallError),
    /// A map needs a tool that is not there.
    #[error(
        "mapping the {kind}s of the user namespace: only {tool} may map more than one's own id ({map}), and it is not on PATH"
    )]
    NoTool {
        /// `uid` or `gid`.
        kind: &'static str,
        /// Its name.
        tool: &'static str,
        /// The map.
        map: String,
    },
    /// The tool could not be run.
    #[error("running {}: {}", tool.display(), io_text(error))]
    Run {
        /// Its path.
        tool: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The tool refused.
    #[error("{tool} could not map {map}: {said}; {granted}")]
    Refused {
        /// Its name.
        tool: &'static str,
        /// The map.
        map: String,
        /// What it printed.
        said: String,
        /// What the user has.
        granted: String,
    },
}

/// One of the two maps.
#[derive(Debug, Clone, Copy)]
struct Map<'a> {
    kind: &'static str,
    file: &'static str,
    tool: &'static str,
    /// Where subordinate ids are granted.
    granted_in: &'static str,
    /// The caller's own id.
    own: u32,
    mappings: &'a [IdMapping],
}

/// Writes both maps of the process `pid`, which is in its new user namespace and waits.
///
/// # Errors
/// [`IdMapError`].
pub(super) fn write(plan: &NamespacePlan, caller: Caller, proc: &ProcFs, pid: Pid) -> Result<(), IdMapError> {
    let users = Map {
        kind: "uid",
        file: "uid_map",
        tool: "newuidmap",
        granted_in: "/etc/subuid",
        own: credential::effective_uid(),
        mappings: &plan.uid_mappings,
    };
    let groups = Map {
        kind: "gid",
        file: "gid_map",
        tool: "newgidmap",
        granted_in: "/etc/subgid",
        own: credential::effective_gid(),
        mappings: &plan.gid_mappings,
    };
    users.write(caller, proc, pid)?;
    if caller == Caller::User && groups.is_own_id() {
        // Or a process could drop the group by which a file keeps it out (CVE-2014-8989).
        proc.write(&PathBuf::from(format!("{pid}/setgroups")), b"deny").map_err(IdMapError::SetGroups)?;
    }
    groups.write(caller, proc, pid)
}

impl Map<'_> {
    /// Whether it maps the caller's own id and no other.
    fn is_own_id(&self) -> bool {
        matches!(self.mappings, [only] if only.size == 1 && only.host_id == self.own)
    }

    fn write(&self, caller: Caller, proc: &ProcFs, pid: Pid) -> Result<(), IdMapError> {
        let path = PathBuf::from(format!("{pid}/{}", self.file));
        match proc.write(&path, self.lines().as_bytes()) {
            // A user may have been given the right all the same, as a capability: so the kernel is asked first.
            Err(error) if caller == Caller::User && error.errno == Errno::EPERM && !self.is_own_id() => {
                self.use_tool(pid)
            }
            result => {
                result.map_err(|source| IdMapError::Write { kind: self.kind, map: self.shown(), source })
            }
        }
    }

    /// As user_namespaces(7) has it.
    fn lines(&self) -> String {
        let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
        self.mappings.iter().map(line).collect()
    }

    fn shown(&self) -> String {
        self.lines().trim_end().replace('\n', ", ")
    }

    fn use_tool(&self, pid: Pid) -> Result<(), IdMapError> {
        let Some(path) = on_path(self.tool) else {
            return Err(IdMapError::NoTool { kind: self.kind, tool: self.tool, map: self.shown() });
        };
        let mut command = Command::new(&path);
        command.arg(pid.to_string()).args(self.lines().split_ascii_whitespace()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        signal::reset_in(&mut command);
        let output = command.output().map_err(|error| IdMapError::Run { tool: path, error })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
        Err(IdMapError::Refused { tool: self.tool, map: self.shown(), said, granted: self.granted() })
    }

    /// What the user has been granted, by the file that the tool reads.
    fn granted(&self) -> String {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let uid = credential::effective_uid();
        let ranges = subordinate_ranges(&read(self.granted_in), &read("/etc/passwd"), uid);
        let lacking = self.mappings.iter().filter(|mapping| {
            let (first, size) = (u64::from(mapping.host_id), u64::from(mapping.size));
            let own = size == 1 && mapping.host_id == self.own;
            !own && !ranges.iter().any(|(start, count)| *start <= first && first + size <= start + count)
        });
        let lacking: Vec<String> =
            lacking.map(|mapping| shown_range(mapping.host_id.into(), mapping.size.into())).collect();
        let ranges: Vec<String> = ranges.iter().map(|(first, count)| shown_range(*first, *count)).collect();
        let has = if ranges.is_empty() { "no range".to_owned() } else { ranges.join(", ") };
        let lacks =
            if lacking.is_empty() { String::new() } else { format!("; not granted: {}", lacking.join(", ")) };
        format!("user {uid} has {has} in {}{lacks}", self.granted_in)
    }
}

fn shown_range(first: u64, count: u64) -> String {
    format!("{first}-{}", (first + count).saturating_sub(1))
}

/// The ranges of subuid(5) that are the user's, whom a line names by number or by name.
fn subordinate_ranges(granted: &str, passwd: &str, uid: u32) -> Vec<(u64, u64)> {
    let number = uid.to_string();
    let names: Vec<&str> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then_some(name)
        })
        .collect();
    let range = |line: &str| {
        let mut fields = line.split(':');
        let user = fields.next()?;
        let range = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        (user == number || names.contains(&user)).then_some(range)
    };
    granted.lines().filter_map(range).collect()
}

/// The program `name` on this process's own PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH")?;
    // What a relative entry means is the caller's working directory, where anything may lie.
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(Path::new(name)))
        .find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(mappings: &[IdMapping]) -> Map<'_> {
        Map {
            kind: "uid",
            file: "uid_map",
            tool: "newuidmap",
            granted_in: "/nonexistent",
            own: 1000,
            mappings,
        }
    }

    #[test]
    fn only_the_own_id_needs_no_tool() {
        let mapping = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert!(map(&[mapping(0, 1000, 1)]).is_own_id());
        assert!(map(&[mapping(7, 1000, 1)]).is_own_id());
        for mappings in [
            &[mapping(0, 1000, 2)][..],
            &[mapping(0, 1001, 1)],
            &[mapping(0, 1000, 1), mapping(1, 100_000, 9)],
            &[],
        ] {
            assert!(!map(mappings).is_own_id(), "{mappings:?}");
        }
    }

    #[test]
    fn maps_are_written_a_line_each() {
        let mappings = [
            IdMapping { container_id: 0, host_id: 1000, size: 1 },
            IdMapping { container_id: 1, host_id: 100_000, size: 65536 },
        ];
        assert_eq!(map(&mappings).lines(), "0 1000 1\n1 100000 65536\n");
        assert_eq!(map(&mappings).shown(), "0 1000 1, 1 100000 65536");
        assert_eq!(
            map(&mappings).granted(),
            format!(
                "user {} has no range in /nonexistent; not granted: 100000-165535",
                credential::effective_uid()
            )
        );
    }

    #[test]
    fn ranges_are_granted_by_name_or_number() {
        let granted = "root:1:2\nann:100000:10\n1000:200000:65536\nbob:5:5\nann:x:1\n";
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbroken\n";
        assert_eq!(subordinate_ranges(granted, passwd, 1000), [(100_000, 10), (200_000, 65536)]);
        assert_eq!(subordinate_ranges(granted, passwd, 5), []);
        assert_eq!(shown_range(100_000, 10), "100000-100009");
    }

    #[test]
    fn tools_are_found_on_the_path_only() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("no-such-tool-anywhere"), None);
    }
}
