//! systemd's part of a container's cgroups: the unit, its slice and its properties.
//!
//! Pure. The form of `cgroupsPath`, the names and the properties are those of runc's systemd driver (docs/systemd.md
//! there), so that whoever looks a unit up finds it. Values come from the [`Write`]s of the cgroupfs plan where there is
//! one for them; those writes are made all the same, after systemd, for what it has no property for. Called by
//! [`super::plan`] and [`super::limits`]; `cgroup::systemd` carries it out. Manual: org.freedesktop.systemd1(5),
//! systemd.resource-control(5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CgroupMode, CgroupPlanError, CgroupRequest, DevicePolicy, Privilege};
use crate::dbus::Value;
use crate::spec::resources::Resources;

mod annotations;
mod devices;
mod name;
mod quota;
mod resources;

pub use annotations::ANNOTATION_PREFIX;
pub use name::{UnitName, expand_slice};

/// What a plan must know of the systemd that will make the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemdFacts {
    /// Its version; 0 where it gives none that makes sense.
    pub version: u32,
    /// The cgroup that its slices are in: empty for the system's, the cgroup of `user@<uid>.service` for a user's.
    pub control_group: String,
    /// The text of `/proc/devices`, for versions that take the names in it only ([`SystemdFacts::needs_device_names`]).
    pub devices: String,
}

impl SystemdFacts {
    /// Reads a version as systemd tells it: `252.38-1~deb12u1`, `v245.4-1.fc32`.
    #[must_use]
    pub fn parse_version(text: &str) -> u32 {
        let text = text.trim_start_matches(['"', 'v']);
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().unwrap_or(0)
    }

    /// Whether this version knows all devices of one major number by the name in `/proc/devices` only.
    #[must_use]
    pub fn needs_device_names(version: u32) -> bool {
        version < 240
    }
}

/// Whose systemd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instance {
    System,
    /// Of the user who runs the runtime.
    User,
}

impl Instance {
    /// Rootless containers are their user's.
    #[must_use]
    pub fn of(privilege: Privilege) -> Instance {
        match privilege {
            Privilege::Root => Instance::System,
            Privilege::Rootless => Instance::User,
        }
    }

    fn default_slice(self) -> &'static str {
        match self {
            Instance::System => "system.slice",
            Instance::User => "user.slice",
        }
    }
}

/// What is asked of systemd beyond what every cgroup is asked for.
#[derive(Debug, Clone, Copy)]
pub struct SystemdRequest<'a> {
    pub facts: &'a SystemdFacts,
    /// The configuration's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// The host's user that is to own the cgroup, where the container may write to it.
    pub owner: Option<u32>,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    pub name: String,
    pub value: Value,
}

impl Property {
    fn new(name: impl Into<String>, value: Value) -> Property {
        Property { name: name.into(), value }
    }

    fn flag(name: &str, value: bool) -> Property {
        Property::new(name, Value::Bool(value))
    }
}

/// The unit to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPlan {
    pub name: UnitName,
    pub instance: Instance,
    /// All but the processes in it, in order: of two of one name the later counts.
    pub properties: Vec<Property>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
}

/// The unit with all but its limits, and the path of its cgroup below the root of a hierarchy.
pub(super) fn unit(
    request: &CgroupRequest<'_>,
    systemd: &SystemdRequest<'_>,
    mode: CgroupMode,
) -> Result<(UnitPlan, String), CgroupPlanError> {
    let instance = Instance::of(request.privilege);
    if instance == Instance::User && mode != CgroupMode::Unified {
        return Err(CgroupPlanError::RootlessSystemdOnV1);
    }
    let name = UnitName::new(request.cgroups_path.unwrap_or_default(), request.id)?;
    let slice = if name.parent.is_empty() { instance.default_slice() } else { &name.parent };
    let path = format!("{}{}/{}", systemd.facts.control_group, expand_slice(slice)?, name.cgroup());

    let mut properties =
        vec![Property::new("Description", Value::text(format!("OCI container {}", name.name)))];
    if name.is_slice() {
        // A slice has its parent by its name.
        properties.push(Property::new("Wants", Value::texts([slice])));
    } else {
        properties.push(Property::new("Slice", Value::text(slice)));
        properties.push(Property::flag("Delegate", true));
    }
    let io = if mode == CgroupMode::Unified { "IOAccounting" } else { "BlockIOAccounting" };
    // A controller that is enabled later does not know what was used before.
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push(Property::flag(accounting, true));
    }
    // It must not end when the system's slices do, before its manager can end it in an orderly way.
    properties.push(Property::flag("DefaultDependencies", false));
    properties.extend(annotations::properties(systemd.annotations)?);
    properties.extend(oom_policy(request.resources, systemd.facts)?);
    Ok((UnitPlan { name, instance, properties, owner: systemd.owner }, path))
}

/// `memory.oom.group` of `unified`, which a unit can only be started with.
fn oom_policy(resources: &Resources, facts: &SystemdFacts) -> Result<Option<Property>, CgroupPlanError> {
    let file = "memory.oom.group";
    let Some((_, value)) = resources.unified.iter().find(|(name, _)| *name == file) else { return Ok(None) };
    if facts.version < 253 {
        return Ok(None);
    }
    let policy = match resources::unified_number(file, value)? {
        0 => "continue",
        1 => "kill",
        _ => return Ok(None),
    };
    Ok(Some(Property::new("OOMPolicy", Value::text(policy))))
}

/// The resources as systemd can have them, so that what is written is what it writes.
pub(super) fn adapted(resources: &Resources, facts: &SystemdFacts, mode: CgroupMode) -> Resources {
    let idle = resources::is_idle(resources);
    let has_no_weight = mode == CgroupMode::Unified && resources::has_no_weight(idle, facts);
    let mut resources = resources.clone();
    if has_no_weight {
        resources.unified.remove("cpu.weight");
    }
    if let Some(cpu) = &mut resources.cpu {
        quota::round(cpu);
        if has_no_weight {
            cpu.shares = None;
        }
    }
    resources
}

/// The limits as properties, of a unit that is to be or of one that is there.
pub(super) fn limits(
    resources: &Resources,
    devices: Option<&DevicePolicy>,
    systemd: &SystemdRequest<'_>,
    mode: CgroupMode,
    warnings: &mut Vec<String>,
) -> Result<Vec<Property>, CgroupPlanError> {
    let mut properties = Vec::new();
    if let Some(policy) = devices {
        properties.extend(devices::properties(policy, systemd.facts, warnings));
    }
    match mode {
        CgroupMode::Unified => resources::v2(resources, systemd.facts, &mut properties, warnings)?,
        CgroupMode::Legacy | CgroupMode::Hybrid => resources::v1(resources, systemd.facts, &mut properties)?,
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{HYBRID_MOUNTINFO, HYBRID_SELF, UNIFIED_MOUNTINFO};
    use super::super::{CgroupLayout, Driver, plan, tests::request};
    use super::*;

    fn facts() -> SystemdFacts {
        SystemdFacts { version: 252, ..SystemdFacts::default() }
    }

    #[test]
    fn versions_as_distributions_write_them() {
        for (text, version) in [
            ("252.38-1~deb12u1", 252),
            ("v245.4-1.fc32", 245),
            ("\"245\"", 245),
            ("v246", 246),
            ("", 0),
            ("x", 0),
        ] {
            assert_eq!(SystemdFacts::parse_version(text), version, "{text}");
        }
    }

    #[test]
    fn a_scope_has_its_slice_and_everything_else_by_one_call() {
        let resources: Resources = serde_json::from_str(
            r#"{"memory":{"limit":33554432},"pids":{"limit":20},"unified":{"memory.oom.group":"1"}}"#,
        )
        .unwrap();
        let annotations = [("org.systemd.property.TimeoutStopSec".to_owned(), "5".to_owned())].into();
        let facts = SystemdFacts { version: 255, ..facts() };
        let systemd = SystemdRequest { facts: &facts, annotations: &annotations, owner: None };
        let layout = CgroupLayout::parse(UNIFIED_MOUNTINFO, "0::/user.slice\n");
        let request = CgroupRequest {
            driver: Driver::Systemd(systemd),
            ..request(&resources, Some("a-b.slice:pre:x"))
        };
        let made = plan(&request, &layout).unwrap();
        assert_eq!(made.groups[0].path, "/sys/fs/cgroup/a.slice/a-b.slice/pre-x.scope");
        let unit = made.unit.unwrap();
        assert_eq!((unit.name.unit(), unit.instance), ("pre-x.scope".to_owned(), Instance::System));
        let properties: Vec<_> =
            unit.properties.iter().map(|property| format!("{}={}", property.name, property.value)).collect();
        assert_eq!(
            properties,
            [
                "Description='OCI container x'",
                "Slice='a-b.slice'",
                "Delegate=true",
                "MemoryAccounting=true",
                "CPUAccounting=true",
                "IOAccounting=true",
                "TasksAccounting=true",
                "DefaultDependencies=false",
                "TimeoutStopUSec=uint64 5000000",
                "OOMPolicy='kill'",
                "DeviceAllow=@a(ss) []",
                "DevicePolicy='strict'",
                "MemoryMax=uint64 33554432",
                "TasksMax=uint64 20",
            ]
        );
        // They are all in the unit: nothing is left to be set once it is there.
        assert!(made.limits.properties.is_empty());
        let limits = super::super::limits(&request, CgroupMode::Unified).unwrap();
        assert_eq!(limits.properties.len(), 4);
    }

    #[test]
    fn an_idle_cgroup_is_given_no_weight() {
        let json =
            r#"{"cpu":{"idle":1,"shares":200},"unified":{"cpu.idle":"1","cpu.weight":"8","pids.max":"5"}}"#;
        let resources: Resources = serde_json::from_str(json).unwrap();
        let written = |version, mode| {
            let facts = SystemdFacts { version, ..SystemdFacts::default() };
            let adapted = adapted(&resources, &facts, mode);
            (adapted.cpu.unwrap().shares, adapted.unified.iter().count())
        };
        assert_eq!(written(252, CgroupMode::Unified), (None, 2));
        assert_eq!(written(251, CgroupMode::Unified), (Some(200), 3));
        assert_eq!(written(252, CgroupMode::Legacy), (Some(200), 3));
    }

    #[test]
    fn a_users_unit_is_in_the_users_cgroup() {
        let facts = SystemdFacts {
            control_group: "/user.slice/user-1000.slice/user@1000.service".to_owned(),
            ..facts()
        };
        let (resources, annotations) = (Resources::default(), BTreeMap::new());
        let systemd = SystemdRequest { facts: &facts, annotations: &annotations, owner: None };
        let request = CgroupRequest {
            driver: Driver::Systemd(systemd),
            privilege: Privilege::Rootless,
            ..request(&resources, None)
        };
        let layout = CgroupLayout::parse(UNIFIED_MOUNTINFO, "0::/user.slice\n");
        let made = plan(&request, &layout).unwrap();
        assert_eq!(
            made.groups[0].path,
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/runc-id1.scope"
        );
        assert_eq!(made.unit.unwrap().instance, Instance::User);
        let legacy = CgroupLayout::parse(HYBRID_MOUNTINFO, HYBRID_SELF);
        assert_eq!(plan(&request, &legacy).unwrap_err(), CgroupPlanError::RootlessSystemdOnV1);
    }

    #[test]
    fn a_slice_and_a_hybrid_host() {
        let (facts, annotations) = (facts(), BTreeMap::new());
        let resources: Resources =
            serde_json::from_str(r#"{"cpu":{"quota":5500,"period":10000,"shares":512,"cpus":"0-1"}}"#)
                .unwrap();
        let systemd = SystemdRequest { facts: &facts, annotations: &annotations, owner: Some(5) };
        let request =
            CgroupRequest { driver: Driver::Systemd(systemd), ..request(&resources, Some("::a-b.slice")) };
        let layout = CgroupLayout::parse(HYBRID_MOUNTINFO, HYBRID_SELF);
        let made = plan(&request, &layout).unwrap();
        assert_eq!(made.groups[0].path, "/sys/fs/cgroup/cpuset/system.slice/a-b.slice");
        let unit = made.unit.unwrap();
        let properties: Vec<_> =
            unit.properties.iter().map(|property| format!("{}={}", property.name, property.value)).collect();
        assert_eq!(properties[1], "Wants=['system.slice']");
        assert!(properties.contains(&"BlockIOAccounting=true".to_owned()));
        assert!(properties.contains(&"CPUShares=uint64 512".to_owned()));
        assert!(properties.contains(&"AllowedCPUs=[byte 3]".to_owned()));
        assert_eq!(unit.owner, Some(5));
        // What is written is what systemd makes of it.
        let written = |file| {
            let mut writes = made.limits.writes.iter();
            writes.find(|write| write.file == file).map(|write| write.value.clone())
        };
        assert_eq!(written("cpu.cfs_quota_us").as_deref(), Some("5500"));
    }
}
