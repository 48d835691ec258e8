//! A container's place in resctrl (Intel RDT): which group, who makes it, what its schemata file is told. Pure.
//!
//! config-linux.md#intelrdt, and runc where that leaves a choice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::IntelRdt;

/// A class of service, and the container's monitoring group in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResctrlPlan {
    /// Where resctrl is mounted.
    pub mountpoint: PathBuf,
    /// The group's directory in it; empty for the root group.
    pub group: String,
    /// Who makes it.
    pub origin: GroupOrigin,
    /// What is written to its schemata file, in one write; empty for nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schemata: String,
    /// The directory in its `mon_groups` that is made for the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// Who makes a group, and takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupOrigin {
    /// The container's own: made with it if it is not there, and taken away with it if it was not.
    Container,
    /// Named by its class of service, which others may be in: made if it is not there, and it stays.
    Shared,
    /// There already: a class of service is named, and nothing is said that it could be made of.
    Existing,
}

impl ResctrlPlan {
    /// The plan for a container of this name.
    #[must_use]
    pub fn new(rdt: &IntelRdt, id: &str, mountpoint: &Path) -> Self {
        let schemata = schemata(rdt);
        let (group, origin) = match rdt.clos_id.as_str() {
            "" => (id, GroupOrigin::Container),
            "/" if schemata.is_empty() => ("", GroupOrigin::Existing),
            "/" => ("", GroupOrigin::Shared),
            name if schemata.is_empty() => (name, GroupOrigin::Existing),
            name => (name, GroupOrigin::Shared),
        };
        Self {
            mountpoint: mountpoint.to_owned(),
            group: group.to_owned(),
            origin,
            schemata,
            monitor: rdt.enable_monitoring.then(|| id.to_owned()),
        }
    }

    /// The group's directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.group.is_empty() { self.mountpoint.clone() } else { self.mountpoint.join(&self.group) }
    }

    /// The monitoring group's directory.
    #[must_use]
    pub fn monitor_path(&self) -> Option<PathBuf> {
        self.monitor.as_ref().map(|name| self.path().join("mon_groups").join(name))
    }
}

/// The lines of the schemata file. The older fields come first, so that `schemata` has the last word.
#[must_use]
pub fn schemata(rdt: &IntelRdt) -> String {
    let older = [&rdt.l3_cache_schema, &rdt.mem_bw_schema];
    let lines = older.into_iter().chain(&rdt.schemata).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(rdt: Value) -> ResctrlPlan {
        ResctrlPlan::new(&serde_json::from_value(rdt).unwrap(), "web", Path::new("/sys/fs/resctrl"))
    }

    #[test]
    fn a_group_of_the_containers_own() {
        let plan = plan(json!({ "l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70" }));
        assert_eq!(plan.path(), Path::new("/sys/fs/resctrl/web"));
        assert_eq!(plan.origin, GroupOrigin::Container);
        assert_eq!(plan.schemata, "L3:0=f;1=f0\nMB:0=20;1=70\n");
        assert_eq!(plan.monitor_path(), None);
    }

    #[test]
    fn schemata_have_the_last_word() {
        let plan = plan(json!({ "schemata": ["L3:0=ff", "L2:0=f"], "l3CacheSchema": "L3:0=f" }));
        assert_eq!(plan.schemata, "L3:0=f\nL3:0=ff\nL2:0=f\n");
    }

    #[test]
    fn a_class_of_service_is_not_the_containers() {
        let named = plan(json!({ "closID": "gold", "schemata": ["L3:0=ff"] }));
        assert_eq!((named.group.as_str(), named.origin), ("gold", GroupOrigin::Shared));
        let existing = plan(json!({ "closID": "gold" }));
        assert_eq!((existing.group.as_str(), existing.origin), ("gold", GroupOrigin::Existing));
        let root = plan(json!({ "closID": "/" }));
        assert_eq!(
            (root.path().as_path(), root.origin),
            (Path::new("/sys/fs/resctrl"), GroupOrigin::Existing)
        );
    }

    #[test]
    fn monitoring_has_a_group_in_the_group() {
        let own = plan(json!({ "enableMonitoring": true }));
        assert_eq!(own.monitor_path().unwrap(), Path::new("/sys/fs/resctrl/web/mon_groups/web"));
        let root = plan(json!({ "closID": "/", "enableMonitoring": true }));
        assert_eq!(root.monitor_path().unwrap(), Path::new("/sys/fs/resctrl/mon_groups/web"));
    }
}
