//! Whether the processes of a restored container have no more rights than its configuration gives.
//!
//! Namespaces, capabilities, no_new_privs and the filter's being there are what the images say, not config.json: images that
//! were tampered with could put a process into the host's namespaces, with every right. So each thread is looked at once
//! criu has given it all that, and before it runs. What a seccomp filter allows, as whom and with which memory a process
//! runs is not looked at: whoever restores images believes them that far.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::plan::Plan;
use crate::plan::capability::CapabilityMask;
use crate::spec::user_namespace::parse_map;
use crate::spec::{IdMapping, NamespaceType};

/// The kinds that keep a process from the host. A time namespace is criu's own doing, and one of cgroups hides names alone.
pub const KINDS: [NamespaceType; 6] = [
    NamespaceType::Ipc,
    NamespaceType::Mount,
    NamespaceType::Network,
    NamespaceType::Pid,
    NamespaceType::User,
    NamespaceType::Uts,
];

/// The namespaces of a process, by the text of their links: `net:[4711]`.
pub type Links = BTreeMap<NamespaceType, String>;

/// The sets of capabilities in `/proc/<pid>/status`.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// What a container's processes may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Kinds of which the container has new ones.
    new: Vec<NamespaceType>,
    /// The ones that it joins.
    joined: Links,
    /// The runtime's own.
    host: Links,
    /// What no set of capabilities goes beyond; none where config.json leaves them as they are.
    capabilities: Option<CapabilityMask>,
    no_new_privileges: bool,
    filter: bool,
    /// The maps of user and group ids, where the container has a user namespace of its own.
    maps: Option<[Vec<IdMapping>; 2]>,
}

/// What becomes of no_new_privs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNewPrivileges {
    /// criu restores it.
    Restored,
    /// criu knows nothing of it: that it is lost is nobody's attack.
    Lost,
}

/// A right that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Excess {
    /// Of the host's, or another than the one to join.
    #[error("would be in the {0} namespace {1}, which config.json does not allow")]
    Namespace(&'static str, String),
    /// More than config.json names in any set.
    #[error(
        "would have {set} {names}, which config.json does not allow (what a process of exec has beyond it has to be \
         in process.capabilities.bounding)",
        names = names.join(" ")
    )]
    Capabilities {
        /// The set's name in procfs.
        set: &'static str,
        /// What is too much.
        names: Vec<String>,
    },
    /// A number of `/proc/<pid>/status` that has to be another.
    #[error("would run without {0}; config.json asks for it")]
    Missing(&'static str),
    /// The user namespace's ids.
    #[error("would have a user namespace with other ids than config.json's")]
    Ids,
}

impl Bounds {
    /// Those of a plan, by the links of the runtime and of the namespaces that are joined.
    #[must_use]
    pub fn new(plan: &Plan, host: Links, joined: Links, privileges: NoNewPrivileges) -> Self {
        let sets = plan.process.capabilities.as_ref();
        Self {
            new: KINDS.into_iter().filter(|kind| plan.namespaces.creates(*kind)).collect(),
            joined,
            host,
            // A set that is in use may have what was dropped from the bounding set.
            capabilities: sets.map(|sets| {
                let all = [sets.bounding, sets.effective, sets.inheritable, sets.permitted, sets.ambient];
                CapabilityMask(all.iter().fold(0, |mask, set| mask | set.0))
            }),
            no_new_privileges: plan.process.no_new_privileges && privileges == NoNewPrivileges::Restored,
            filter: plan.seccomp.is_some(),
            maps: plan
                .namespaces
                .creates(NamespaceType::User)
                .then(|| [plan.namespaces.uid_mappings.clone(), plan.namespaces.gid_mappings.clone()]),
        }
    }

    /// Judges the namespaces of a thread; `of_first` says that it is the first process, which others may have left for
    /// namespaces of their own.
    ///
    /// # Errors
    /// The first that must not be.
    pub fn judge_namespaces(&self, links: &Links, of_first: bool) -> Result<(), Excess> {
        for kind in KINDS {
            let found = links.get(&kind);
            let of_host = found.is_none() || found == self.host.get(&kind);
            let allowed = match self.joined.get(&kind) {
                Some(joined) => found == Some(joined) || !(of_first || of_host),
                None => !(self.new.contains(&kind) && of_host),
            };
            if !allowed {
                return Err(Excess::Namespace(kind.name(), found.cloned().unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Judges the text of a thread's `status`.
    ///
    /// # Errors
    /// The first that must not be.
    pub fn judge_status(&self, status: &str) -> Result<(), Excess> {
        if let Some(allowed) = self.capabilities {
            for set in SETS {
                let mask = field(status, set).and_then(|text| u64::from_str_radix(text, 16).ok());
                let excess = CapabilityMask(mask.unwrap_or(u64::MAX) & !allowed.0);
                if excess.0 != 0 {
                    return Err(Excess::Capabilities { set, names: excess.names().collect() });
                }
            }
        }
        if self.no_new_privileges && field(status, "NoNewPrivs") != Some("1") {
            return Err(Excess::Missing("no_new_privs (which images of a criu before 3.19 do not have)"));
        }
        // SECCOMP_MODE_FILTER.
        if self.filter && field(status, "Seccomp") != Some("2") {
            return Err(Excess::Missing("a seccomp filter"));
        }
        Ok(())
    }

    /// Judges the texts of the first process's `uid_map` and `gid_map`.
    ///
    /// # Errors
    /// [`Excess::Ids`].
    pub fn judge_maps(&self, texts: [&str; 2]) -> Result<(), Excess> {
        let Some(wanted) = &self.maps else { return Ok(()) };
        let sorted = |mut map: Vec<IdMapping>| {
            map.sort_unstable_by_key(|map| map.container_id);
            map
        };
        let same = wanted
            .iter()
            .zip(texts)
            .all(|(wanted, text)| parse_map(text).is_ok_and(|found| sorted(found) == sorted(wanted.clone())));
        if same { Ok(()) } else { Err(Excess::Ids) }
    }
}

/// Whether the thread of this `status` has ended: nothing of it runs again.
#[must_use]
pub fn is_dead(status: &str) -> bool {
    field(status, "State").is_some_and(|state| state.starts_with(['Z', 'X']))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &[(NamespaceType, &str)]) -> Links {
        let mut links: Links = KINDS.into_iter().map(|kind| (kind, "own".to_owned())).collect();
        links.extend(text.iter().map(|(kind, link)| (*kind, (*link).to_owned())));
        links
    }

    fn bounds() -> Bounds {
        let host = KINDS.into_iter().map(|kind| (kind, "host".to_owned())).collect();
        let map = |inside, outside, size| IdMapping { container_id: inside, host_id: outside, size };
        Bounds {
            new: vec![NamespaceType::Mount, NamespaceType::Pid, NamespaceType::User],
            joined: Links::from([(NamespaceType::Network, "pod".to_owned())]),
            host,
            capabilities: Some(CapabilityMask(0b11)),
            no_new_privileges: true,
            filter: true,
            maps: Some([vec![map(0, 1000, 1), map(1, 5000, 9)], vec![map(0, 1000, 1)]]),
        }
    }

    #[test]
    fn the_hosts_namespaces_are_not_a_containers() {
        let judge = |changed: &[(NamespaceType, &str)], first| {
            let mut found = links(&[(NamespaceType::Network, "pod")]);
            found.extend(changed.iter().map(|(kind, link)| (*kind, (*link).to_owned())));
            bounds().judge_namespaces(&found, first)
        };
        assert_eq!(judge(&[], true), Ok(()));
        // Shared with the host, as configured.
        assert_eq!(judge(&[(NamespaceType::Uts, "host"), (NamespaceType::Ipc, "host")], true), Ok(()));
        for kind in [NamespaceType::Mount, NamespaceType::Pid, NamespaceType::User, NamespaceType::Network] {
            for first in [true, false] {
                let excess = Excess::Namespace(kind.name(), "host".to_owned());
                assert_eq!(judge(&[(kind, "host")], first), Err(excess));
            }
        }
        // A descendant may have one of its own, the first process is where it belongs.
        assert_eq!(judge(&[(NamespaceType::Network, "inner")], false), Ok(()));
        assert!(judge(&[(NamespaceType::Network, "inner")], true).is_err());
        assert!(bounds().judge_namespaces(&Links::new(), false).is_err());
    }

    #[test]
    fn nothing_goes_beyond_the_configuration() {
        let status = |change: (&str, &str)| {
            let text = "State:\tt (tracing stop)\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000003\n\
                CapEff:\t0000000000000001\nCapBnd:\t0000000000000003\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
                Seccomp:\t2\nSeccomp_filters:\t1\n";
            assert!(text.contains(change.0), "{change:?}");
            bounds().judge_status(&text.replace(change.0, change.1))
        };
        assert_eq!(status(("Seccomp", "Seccomp")), Ok(()));
        assert_eq!(
            status(("NoNewPrivs:\t1", "NoNewPrivs:\t0")),
            Err(Excess::Missing("no_new_privs (which images of a criu before 3.19 do not have)"))
        );
        assert_eq!(
            status(("NoNewPrivs:\t1\n", "")),
            Err(Excess::Missing("no_new_privs (which images of a criu before 3.19 do not have)"))
        );
        assert_eq!(status(("Seccomp:\t2", "Seccomp:\t0")), Err(Excess::Missing("a seccomp filter")));
        for set in SETS {
            let (low, high) = (format!("{set}:\t00000000000"), format!("{set}:\t00000000002"));
            let names = vec!["CAP_SYS_ADMIN".to_owned()];
            assert_eq!(status((&low, &high)), Err(Excess::Capabilities { set, names }));
        }
        let free = Bounds { capabilities: None, no_new_privileges: false, filter: false, ..bounds() };
        assert_eq!(free.judge_status("CapBnd:\tffffffffffffffff\n"), Ok(()));
    }

    #[test]
    fn ids_are_those_of_the_configuration() {
        let uids = "         1       5000          9\n         0       1000          1\n";
        let gids = "         0       1000          1\n";
        assert_eq!(bounds().judge_maps([uids, gids]), Ok(()));
        assert_eq!(bounds().judge_maps([gids, gids]), Err(Excess::Ids));
        assert_eq!(bounds().judge_maps([uids, "0 0 4294967295\n"]), Err(Excess::Ids));
        assert_eq!(bounds().judge_maps([uids, "x"]), Err(Excess::Ids));
        assert_eq!(Bounds { maps: None, ..bounds() }.judge_maps(["", ""]), Ok(()));
    }

    #[test]
    fn what_has_ended_is_told_from_what_is_stopped() {
        assert!(is_dead("Name:\tx\nState:\tZ (zombie)\n") && is_dead("State:\tX (dead)\n"));
        assert!(!is_dead("Name:\tState:\tZ\nState:\tt (tracing stop)\n") && !is_dead(""));
    }
}
