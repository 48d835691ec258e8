//! Landlock rules from the annotation [`ANNOTATION`]: what the container's processes may do with files and TCP ports.
//!
//! The body is JSON in the words of the proposals for the runtime-spec (issue 1110): a `ruleset` says which accesses are
//! handled, that is denied; `rules` give some of them back. [`ALL`] in a ruleset is every access that there is a name for
//! here, in a rule all that its ruleset handles. An unknown field or name is refused, as an access that is not
//! understood would not be denied. Pure: which accesses the kernel knows is seen by `process::landlock`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The annotation that holds the rules.
pub const ANNOTATION: &str = "org.ketch.landlock";

/// Stands for every access in a list of them.
const ALL: &str = "all";

/// Accesses to files by name and the ABI that has them first; the place in the list is the bit
/// (`LANDLOCK_ACCESS_FS_*`, landlock(7)).
const FILE_ACCESS: [(&str, u32); 16] = [
    ("execute", 1),
    ("write_file", 1),
    ("read_file", 1),
    ("read_dir", 1),
    ("remove_dir", 1),
    ("remove_file", 1),
    ("make_char", 1),
    ("make_dir", 1),
    ("make_reg", 1),
    ("make_sock", 1),
    ("make_fifo", 1),
    ("make_block", 1),
    ("make_sym", 1),
    ("refer", 2),
    ("truncate", 3),
    ("ioctl_dev", 5),
];

/// The same of TCP ports (`LANDLOCK_ACCESS_NET_*`).
const PORT_ACCESS: [(&str, u32); 2] = [("bind_tcp", 4), ("connect_tcp", 4)];

/// The accesses that a rule on a file, which is no directory, may have: execute, write, read, truncate, ioctl.
const OF_FILES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

/// Why the annotation can't be obeyed.
#[derive(Debug, Error)]
pub enum LandlockError {
    /// It is not the JSON that is expected.
    #[error("annotation {ANNOTATION}")]
    Parse(#[from] serde_json::Error),
    /// An access that has no such name.
    #[error("annotation {ANNOTATION}: unknown access {0:?}")]
    Access(String),
    /// A rule that gives what is not taken.
    #[error("annotation {ANNOTATION}: a rule allows {0:?}, which the ruleset does not handle")]
    NotHandled(String),
    /// A path that is not absolute.
    #[error("annotation {ANNOTATION}: {0:?} is no absolute path")]
    Relative(String),
    /// Nothing is denied.
    #[error("annotation {ANNOTATION}: the ruleset handles no access")]
    Empty,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    ruleset: Handled,
    #[serde(default)]
    rules: Rules,
    #[serde(default)]
    best_effort: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handled {
    #[serde(rename = "handledAccessFS", default)]
    files: Vec<String>,
    #[serde(rename = "handledAccessNetwork", default)]
    network: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    path_beneath: Vec<PathsDocument>,
    #[serde(default)]
    net_port: Vec<PortsDocument>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathsDocument {
    allowed_access: Vec<String>,
    paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortsDocument {
    allowed_access: Vec<String>,
    ports: Vec<u16>,
}

/// What is denied, and what is allowed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockPlan {
    /// Denied accesses to files, a bit each.
    pub handled_files: u64,
    /// Denied accesses to TCP ports.
    pub handled_ports: u64,
    /// What is allowed below paths of the container.
    pub paths: Vec<PathRule>,
    /// What is allowed with TCP ports.
    pub ports: Vec<PortRule>,
    /// Whether the container is to start where the kernel does not know all that is handled, with as much as it does.
    pub best_effort: bool,
}

/// Accesses to a file hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// Its top, as the container names it.
    pub path: String,
    /// The accesses if it is a directory.
    pub access: u64,
}

impl PathRule {
    /// The accesses if it is none.
    #[must_use]
    pub fn access_of_file(&self) -> u64 {
        self.access & OF_FILES
    }
}

/// Accesses to a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRule {
    /// The port.
    pub port: u16,
    /// The accesses.
    pub access: u64,
}

impl LandlockPlan {
    /// The rules of a container's annotations, if there are any.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(
        annotations: &BTreeMap<impl AsRef<str> + Ord, impl AsRef<str>>,
    ) -> Result<Option<Self>, LandlockError> {
        let found = annotations.iter().find(|(name, _)| name.as_ref() == ANNOTATION);
        found.map(|(_, text)| Self::parse(text.as_ref())).transpose()
    }

    fn parse(text: &str) -> Result<Self, LandlockError> {
        let document: Document = serde_json::from_str(text)?;
        let handled_files = mask(&document.ruleset.files, &FILE_ACCESS, u64::MAX)?;
        let handled_ports = mask(&document.ruleset.network, &PORT_ACCESS, u64::MAX)?;
        if handled_files == 0 && handled_ports == 0 {
            return Err(LandlockError::Empty);
        }
        let mut paths = Vec::new();
        for rule in document.rules.path_beneath {
            let access = mask(&rule.allowed_access, &FILE_ACCESS, handled_files)?;
            for path in rule.paths {
                if !path.starts_with('/') {
                    return Err(LandlockError::Relative(path));
                }
                paths.push(PathRule { path, access });
            }
        }
        let mut ports = Vec::new();
        for rule in document.rules.net_port {
            let access = mask(&rule.allowed_access, &PORT_ACCESS, handled_ports)?;
            ports.extend(rule.ports.into_iter().map(|port| PortRule { port, access }));
        }
        Ok(Self { handled_files, handled_ports, paths, ports, best_effort: document.best_effort })
    }

    /// What a kernel of this ABI can do of it: all accesses that it does not know are left out.
    #[must_use]
    pub fn within(&self, abi: u32) -> Self {
        let (files, ports) = (known(&FILE_ACCESS, abi), known(&PORT_ACCESS, abi));
        let paths = self.paths.iter().map(|rule| PathRule { access: rule.access & files, ..rule.clone() });
        let ports_left =
            self.ports.iter().map(|rule| PortRule { access: rule.access & ports, ..rule.clone() });
        Self {
            handled_files: self.handled_files & files,
            handled_ports: self.handled_ports & ports,
            paths: paths.filter(|rule| rule.access != 0).collect(),
            ports: ports_left.filter(|rule| rule.access != 0).collect(),
            best_effort: self.best_effort,
        }
    }

    /// The names of handled accesses that a kernel of this ABI does not know.
    #[must_use]
    pub fn unknown_to(&self, abi: u32) -> Vec<&'static str> {
        let missing = |table: &[(&'static str, u32)], handled: u64| {
            let of = |(bit, (name, since)): (usize, &(&'static str, u32))| {
                (handled & 1 << bit != 0 && *since > abi).then_some(*name)
            };
            table.iter().enumerate().filter_map(of).collect::<Vec<_>>()
        };
        let mut names = missing(&FILE_ACCESS, self.handled_files);
        names.extend(missing(&PORT_ACCESS, self.handled_ports));
        names
    }
}

fn known(table: &[(&str, u32)], abi: u32) -> u64 {
    table.iter().enumerate().filter(|(_, (_, since))| *since <= abi).fold(0, |mask, (bit, _)| mask | 1 << bit)
}

fn mask(names: &[String], table: &[(&str, u32)], handled: u64) -> Result<u64, LandlockError> {
    names.iter().try_fold(0, |mask, name| {
        let access = match table.iter().position(|(known, _)| known == name) {
            Some(bit) => 1_u64 << bit,
            None if name == ALL => known(table, u32::MAX) & handled,
            None => return Err(LandlockError::Access(name.clone())),
        };
        if handled & access == 0 { Err(LandlockError::NotHandled(name.clone())) } else { Ok(mask | access) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_masks() {
        let plan = LandlockPlan::parse(
            r#"{"ruleset": {"handledAccessFS": ["execute", "write_file", "truncate"], "handledAccessNetwork": ["connect_tcp"]},
                "rules": {"pathBeneath": [{"allowedAccess": ["execute"], "paths": ["/bin", "/lib"]}],
                          "netPort": [{"allowedAccess": ["connect_tcp"], "ports": [443]}]}}"#,
        )
        .unwrap();
        assert_eq!((plan.handled_files, plan.handled_ports), (1 | 2 | 1 << 14, 2));
        assert_eq!(plan.paths[1], PathRule { path: "/lib".into(), access: 1 });
        assert_eq!(plan.ports, [PortRule { port: 443, access: 2 }]);
        assert!(!plan.best_effort);
        assert_eq!(plan.unknown_to(2), ["truncate", "connect_tcp"]);
        assert!(plan.unknown_to(4).is_empty());
        let old = plan.within(2);
        assert_eq!((old.handled_files, old.handled_ports, old.ports.len()), (3, 0, 0));
    }

    #[test]
    fn all_is_what_has_a_name_and_in_a_rule_what_is_handled() {
        let parse = |text| LandlockPlan::parse(text).unwrap();
        let everything = parse(
            r#"{"ruleset": {"handledAccessFS": ["all"], "handledAccessNetwork": ["all"]},
                "rules": {"pathBeneath": [{"allowedAccess": ["all"], "paths": ["/data"]}],
                          "netPort": [{"allowedAccess": ["all"], "ports": [443]}]}}"#,
        );
        assert_eq!((everything.handled_files, everything.handled_ports), (0xffff, 3));
        assert_eq!((everything.paths[0].access, everything.ports[0].access), (0xffff, 3));
        // Nothing of it is left out in silence on an older kernel.
        assert_eq!(everything.unknown_to(2), ["truncate", "ioctl_dev", "bind_tcp", "connect_tcp"]);
        assert_eq!(everything.within(2).handled_files, 0x3fff);
        assert!(everything.unknown_to(5).is_empty());
        let some = parse(
            r#"{"ruleset": {"handledAccessFS": ["read_file", "write_file"]},
                "rules": {"pathBeneath": [{"allowedAccess": ["all"], "paths": ["/data"]}]}}"#,
        );
        assert_eq!((some.handled_files, some.handled_ports, some.paths[0].access), (6, 0, 6));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, why) in [
            (r#"{"ruleset": {"handledAccessFS": ["exec"]}}"#, "unknown access \"exec\""),
            (r#"{"ruleset": {}}"#, "handles no access"),
            (r#"{"ruleset": {"handledAccessFs": ["execute"]}}"#, "unknown field `handledAccessFs`"),
            (r#"{"rules": {}}"#, "missing field `ruleset`"),
            (
                r#"{"ruleset": {"handledAccessFS": ["execute"]},
                    "rules": {"pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["/"]}]}}"#,
                "allows \"read_file\", which the ruleset does not handle",
            ),
            (
                r#"{"ruleset": {"handledAccessFS": ["execute"]},
                    "rules": {"pathBeneath": [{"allowedAccess": ["execute"], "paths": ["bin"]}]}}"#,
                "\"bin\" is no absolute path",
            ),
            (
                r#"{"ruleset": {"handledAccessFS": ["all"]},
                    "rules": {"netPort": [{"allowedAccess": ["all"], "ports": [443]}]}}"#,
                "allows \"all\", which the ruleset does not handle",
            ),
            (
                r#"{"ruleset": {"handledAccessNetwork": ["bind_tcp"]},
                    "rules": {"netPort": [{"allowedAccess": ["bind_tcp"], "ports": [65536]}]}}"#,
                "65536",
            ),
        ] {
            let error = LandlockPlan::parse(text).unwrap_err();
            assert!(crate::error::chain(&error).contains(why), "{}", crate::error::chain(&error));
        }
    }
}
