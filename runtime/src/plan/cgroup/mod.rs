//! What will be done to cgroups, as plain data: which directories, which files get which values in which order, and
//! the device policy.
//!
//! Pure: reads the specification and the [`CgroupLayout`] fact, touches nothing. `cgroup::Cgroup` executes a
//! [`CgroupPlan`] without further choices; what can only be known then (is a file there, does the kernel take a value
//! before another one is raised) is in the plan as [`When`] and [`Tolerate`]. The conversions are those of runc.
//! [`v1`] and [`v2`] hold them, a function per controller.

use serde::{Deserialize, Serialize};

use super::{Caller, RootlessChoice};
use crate::spec::resources::Resources;

pub mod device_program;
pub mod devices;
mod layout;
pub mod systemd;
mod v1;
mod v2;

pub use devices::{DevicePolicy, DeviceRule, DeviceRuleError};
pub use layout::{CgroupLayout, CgroupMode, Hierarchy};

use layout::InnerPath;
use systemd::{Property, SystemdRequest, UnitPlan};

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct CgroupRequest<'a> {
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    pub resources: &'a Resources,
    pub devices: Devices<'a>,
    pub privilege: Privilege,
    pub user_namespace: UserNamespace,
    pub driver: Driver<'a>,
}

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy)]
pub enum Driver<'a> {
    /// The runtime, by itself.
    Cgroupfs,
    /// systemd, as the cgroup of a unit: `--systemd-cgroup`.
    Systemd(SystemdRequest<'a>),
}

/// Whether device access is controlled.
#[derive(Debug, Clone, Copy)]
pub enum Devices<'a> {
    /// By the rules of `linux.resources.devices`, followed by these (see [`devices::default_rules`]).
    Controlled { defaults: &'a [DeviceRule] },
    /// Leave the device rules as they are: `update`.
    Untouched,
}

/// Whether refusals by the kernel are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    Root,
    /// Cgroups that can't be made are done without, as long as no limit needs them and no path was asked for.
    Rootless,
}

impl Privilege {
    /// runc's rule for `--rootless`: what was asked for; else whoever is not root of the initial user namespace.
    #[must_use]
    pub fn decide(asked: RootlessChoice, caller: Caller, user_namespace: UserNamespace) -> Self {
        match (asked, caller, user_namespace) {
            (RootlessChoice::Yes, ..) => Self::Rootless,
            (RootlessChoice::No, ..) | (RootlessChoice::Auto, Caller::Root, UserNamespace::Initial) => {
                Self::Root
            }
            (RootlessChoice::Auto, ..) => Self::Rootless,
        }
    }
}

/// Where the runtime runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserNamespace {
    Initial,
    /// Inside a user namespace device rules can't be set, and aren't asked to be.
    Nested,
}

/// Everything that will be done to a container's cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    pub mode: CgroupMode,
    /// One for each hierarchy that the container joins, in the order in which it does.
    pub groups: Vec<GroupPlan>,
    pub limits: Limits,
    pub privilege: Privilege,
    pub path: PathOrigin,
    /// The unit whose cgroup it is, where systemd makes it: it then has the limits that systemd knows from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPlan>,
}

impl CgroupPlan {
    /// Whether a cpuset keeps the container from some CPUs.
    #[must_use]
    pub fn restricts_cpus(&self) -> bool {
        let before = self.groups.iter().flat_map(|group| &group.before_join);
        before.chain(&self.limits.writes).any(|write| write.file == "cpuset.cpus")
    }
}

/// Where the path of a cgroup comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathOrigin {
    /// `linux.cgroupsPath`.
    Asked,
    /// The container's id.
    Default,
}

/// One directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// v1: the controllers of the hierarchy by the names that state.json gets. cgroup2: one empty name.
    pub controllers: Vec<String>,
    pub mountpoint: String,
    /// The directory.
    pub path: String,
    pub join: Join,
    /// v1 cpuset: a process can only join once `cpus` and `mems` are set; what `before_join` doesn't write is taken
    /// from the parent directory.
    #[serde(default, skip_serializing_if = "Inherit::is_nothing")]
    pub inherit: Inherit,
    /// What must be written before a process can join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before_join: Vec<Write>,
}

/// What a new v1 directory takes over from its parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inherit {
    #[default]
    Nothing,
    Cpuset,
}

impl Inherit {
    fn is_nothing(&self) -> bool {
        *self == Inherit::Nothing
    }
}

/// How much it matters that the container is in a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    Required,
    /// Named hierarchies, `misc`, and cgroup2 beside v1.
    IfPossible,
}

/// The limits, for `create` and `update` alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// In order.
    pub writes: Vec<Write>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_check: Option<MemoryCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceLimits>,
    /// What systemd is told before anything is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Property>,
    /// What the caller should warn about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Limits {
    /// Whether anything is asked of a controller that a cgroup v2 must have enabled.
    #[must_use]
    pub fn need_controllers(&self) -> bool {
        self.any_of(&["pids", "memory", "io", "cpu", "cpuset", "hugetlb"])
    }

    /// Whether anything is asked that a threaded cgroup v2 can't give. (cpu could in part; runc counts it here.)
    #[must_use]
    pub fn need_domain(&self) -> bool {
        self.any_of(&["memory", "io", "cpu", "hugetlb"])
    }

    fn any_of(&self, controllers: &[&str]) -> bool {
        let typed = self.writes.iter().filter(|write| write.tolerate != Tolerate::NothingOfUnified);
        typed.map(|write| write.controller.as_str()).any(|controller| controllers.contains(&controller))
    }
}

/// Limits that are refused when they are not above the memory in use (v2). Bytes; absent where not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCheck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_and_swap: Option<u64>,
}

/// The device policy to put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimits {
    pub policy: DevicePolicy,
    pub on_failure: OnDeviceFailure,
}

/// What it means that the policy can't be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDeviceFailure {
    Fail,
    Ignore,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    pub controller: String,
    pub file: String,
    pub value: String,
    #[serde(default, skip_serializing_if = "When::is_always")]
    pub when: When,
    #[serde(default, skip_serializing_if = "Tolerate::is_nothing")]
    pub tolerate: Tolerate,
}

/// Whether a write is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    #[default]
    Always,
    /// Only if an earlier write to the same file was rejected as invalid.
    Rejected,
    /// Only if an earlier write found this file absent.
    Absent(String),
}

impl When {
    fn is_always(&self) -> bool {
        *self == When::Always
    }
}

/// Which failures of a write are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tolerate {
    #[default]
    Nothing,
    /// The kernel has no such file.
    Absent,
    /// The value is invalid for now.
    Rejected,
    AbsentOrRejected,
    /// From `unified`: fails with a text of its own, and a value of several lines is written line by line.
    #[serde(rename = "unified")]
    NothingOfUnified,
}

impl Tolerate {
    fn is_nothing(&self) -> bool {
        *self == Tolerate::Nothing
    }

    #[must_use]
    pub fn absence(self) -> bool {
        matches!(self, Tolerate::Absent | Tolerate::AbsentOrRejected)
    }

    #[must_use]
    pub fn rejection(self) -> bool {
        matches!(self, Tolerate::Rejected | Tolerate::AbsentOrRejected)
    }
}

impl Write {
    fn new(controller: &str, file: impl Into<String>, value: impl ToString) -> Write {
        Write {
            controller: controller.to_owned(),
            file: file.into(),
            value: value.to_string(),
            when: When::Always,
            tolerate: Tolerate::Nothing,
        }
    }

    fn when(self, when: When) -> Write {
        Write { when, ..self }
    }

    fn tolerate(self, tolerate: Tolerate) -> Write {
        Write { tolerate, ..self }
    }
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupPlanError {
    #[error("no cgroup mount found in mountinfo")]
    NoCgroupMount,
    #[error("mountpoint for devices not found")]
    NoDevicesController,
    #[error("cgroup path not found")]
    OwnCgroupUnknown,
    #[error("invalid configuration: cannot use unified on cgroup v1")]
    UnifiedOnV1,
    #[error("unified resource {file:?} must be a file name (no slashes)")]
    UnifiedIsPath { file: String },
    #[error("the minimum allowed cpu-shares is {minimum}")]
    CpuSharesTooLow { minimum: u64 },
    #[error("the maximum allowed cpu-shares is {maximum}")]
    CpuSharesTooHigh { maximum: u64 },
    #[error("invalid memory swappiness value: {value} (valid range is 0-100)")]
    Swappiness { value: u64 },
    #[error("unable to set swap limit without memory limit")]
    SwapWithoutMemory,
    #[error("invalid memory value: {value}")]
    NegativeMemory { value: i64 },
    #[error("memory+swap limit should be >= memory limit")]
    SwapBelowMemory,
    #[error("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")]
    UnifiedForm { file: String },
    #[error("unified resource {file:?} value invalid: {value:?}")]
    UnifiedValue { file: String, value: String },
    #[error("{field}={list:?} is no list of numbers")]
    NotAList { field: String, list: String },
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
    )]
    SystemdPath { path: String },
    #[error("{unit:?} can't be the name of a systemd unit")]
    UnitName { unit: String },
    #[error("invalid slice name: {slice}")]
    SliceName { slice: String },
    #[error("cannot use rootless systemd cgroups manager on cgroup v1")]
    RootlessSystemdOnV1,
    #[error(
        "annotation {annotation} name incorrect: a property's name has three letters or more, and nothing else"
    )]
    PropertyName { annotation: String },
    #[error("annotation {annotation}={value} value parse error: {reason}")]
    PropertyValue { annotation: String, value: String, reason: String },
    #[error(transparent)]
    Devices(#[from] DeviceRuleError),
}

/// The plan for creating a container's cgroups.
pub fn plan(request: &CgroupRequest<'_>, layout: &CgroupLayout) -> Result<CgroupPlan, CgroupPlanError> {
    let mut limits = limits(request, layout.mode)?;
    let (inner, unit) = match &request.driver {
        Driver::Cgroupfs => (InnerPath::new(request.cgroups_path, request.id), None),
        Driver::Systemd(systemd) => {
            let (mut unit, path) = systemd::unit(request, systemd, layout.mode)?;
            unit.properties.append(&mut limits.properties);
            (InnerPath::new(Some(&path), request.id), Some(unit))
        }
    };
    let groups = match layout.mode {
        CgroupMode::Unified => v2::groups(&inner, layout)?,
        CgroupMode::Legacy | CgroupMode::Hybrid => v1::groups(&inner, layout, request)?,
    };
    let asked = request.cgroups_path.is_some_and(|path| !path.is_empty());
    Ok(CgroupPlan {
        mode: layout.mode,
        groups,
        limits,
        privilege: request.privilege,
        path: if asked || unit.is_some() { PathOrigin::Asked } else { PathOrigin::Default },
        unit,
    })
}

/// The limits alone, for the cgroups of a container that exists. Of the request, id and path don't matter.
pub fn limits(request: &CgroupRequest<'_>, mode: CgroupMode) -> Result<Limits, CgroupPlanError> {
    let resources = request.resources;
    let mut warnings = Vec::new();
    if resources.memory.as_ref().is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some())
    {
        warnings.push("Kernel memory settings are ignored and will be removed".to_owned());
    }
    let devices = match request.devices {
        Devices::Untouched => None,
        Devices::Controlled { .. }
            if mode != CgroupMode::Unified && request.user_namespace == UserNamespace::Nested =>
        {
            None
        }
        Devices::Controlled { defaults } => Some(DeviceLimits {
            policy: DevicePolicy::from_rules(devices::rules(&resources.devices)?.iter().chain(defaults))?,
            on_failure: match (request.privilege, request.user_namespace) {
                (Privilege::Root, UserNamespace::Initial) => OnDeviceFailure::Fail,
                _ => OnDeviceFailure::Ignore,
            },
        }),
    };
    let adapted;
    let (resources, properties) = match &request.driver {
        Driver::Cgroupfs => (resources, Vec::new()),
        Driver::Systemd(systemd) => {
            let policy = devices.as_ref().map(|devices| &devices.policy);
            let properties = systemd::limits(resources, policy, systemd, mode, &mut warnings)?;
            adapted = systemd::adapted(resources, systemd.facts, mode);
            (&adapted, properties)
        }
    };
    let (writes, memory_check) = match mode {
        CgroupMode::Unified => (v2::writes(resources)?, v2::memory_check(resources)),
        CgroupMode::Legacy | CgroupMode::Hybrid => (v1::writes(resources)?, None),
    };
    Ok(Limits { writes, memory_check, devices, properties, warnings })
}

/// Go's zero value: what runc treats like an absent number.
fn nonzero<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// pids: the limit that the kernel gets. Zero becomes one, which for a container comes to the same, because systemd's
/// driver can't set zero.
fn pids_max(limit: i64) -> String {
    match limit {
        1.. => limit.to_string(),
        0 => "1".to_owned(),
        _ => "max".to_owned(),
    }
}

/// rdma: one line for each device, on v1 and v2 alike.
fn rdma(resources: &Resources, writes: &mut Vec<Write>) {
    for (device, limits) in resources.rdma.iter() {
        let mut line = device.to_owned();
        for (key, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(limit) = limit {
                line.push_str(&format!(" {key}={limit}"));
            }
        }
        writes.push(Write::new("rdma", "rdma.max", line));
    }
}

/// hugetlb: a limit of use and, where the kernel has it, the same of reservation. `suffix` is what v1 and v2 differ in.
fn hugetlb(resources: &Resources, suffix: &str, writes: &mut Vec<Write>) {
    for limit in &resources.hugepage_limits {
        let prefix = format!("hugetlb.{}", limit.page_size);
        writes.push(Write::new("hugetlb", format!("{prefix}.{suffix}"), limit.limit));
        let reservation = Write::new("hugetlb", format!("{prefix}.rsvd.{suffix}"), limit.limit);
        writes.push(reservation.tolerate(Tolerate::Absent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn request<'a>(resources: &'a Resources, cgroups_path: Option<&'a str>) -> CgroupRequest<'a> {
        CgroupRequest {
            id: "id1",
            cgroups_path,
            resources,
            devices: Devices::Controlled { defaults: &[] },
            privilege: Privilege::Root,
            user_namespace: UserNamespace::Initial,
            driver: Driver::Cgroupfs,
        }
    }

    /// `file=value`, `~tolerated`, `?condition`.
    pub(super) fn texts(writes: &[Write]) -> Vec<String> {
        writes
            .iter()
            .map(|write| {
                let json = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let when = match &write.when {
                    When::Absent(file) => format!(" ?absent({file})"),
                    When::Rejected => " ?rejected".to_owned(),
                    When::Always => String::new(),
                };
                let tolerate = match write.tolerate {
                    Tolerate::Nothing => String::new(),
                    other => format!(" ~{}", json(serde_json::to_value(other).unwrap())),
                };
                format!("{}={}{when}{tolerate}", write.file, write.value)
            })
            .collect()
    }

    #[test]
    fn a_plan_is_plain_data() {
        let resources: Resources = serde_json::from_str(
            r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}],
                "memory":{"limit":5,"swap":6,"kernel":1},"cpu":{"cpus":"0"}}"#,
        )
        .unwrap();
        let layout = CgroupLayout::parse(layout::tests::HYBRID_MOUNTINFO, layout::tests::HYBRID_SELF);
        let plan = plan(&request(&resources, None), &layout).unwrap();
        assert_eq!(plan.limits.warnings, ["Kernel memory settings are ignored and will be removed"]);
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<CgroupPlan>(&json).unwrap(), plan);
        assert!(json.contains(
            r#""devices":{"policy":{"default":"deny","exceptions":[{"major":1,"minor":3,"kind":"char","access":"rw"}]},"on_failure":"fail"}"#
        ));
        assert!(json.contains(
            r#"{"controller":"memory","file":"memory.limit_in_bytes","value":"5","when":"rejected"}"#
        ));
    }

    #[test]
    fn rootless_is_decided_as_by_runc() {
        use {Caller::*, RootlessChoice::*, UserNamespace::*};
        assert_eq!(Privilege::decide(Auto, Root, Initial), Privilege::Root);
        for (asked, caller, namespace) in [(Auto, User, Initial), (Auto, Root, Nested), (Yes, Root, Initial)]
        {
            assert_eq!(Privilege::decide(asked, caller, namespace), Privilege::Rootless);
        }
        for (caller, namespace) in [(User, Initial), (Root, Nested), (User, Nested)] {
            assert_eq!(Privilege::decide(No, caller, namespace), Privilege::Root);
        }
    }

    #[test]
    fn device_failures_are_ignored_where_they_are_expected() {
        let resources = Resources::default();
        let base = request(&resources, None);
        let made = |request, mode| limits(&request, mode).unwrap().devices.map(|devices| devices.on_failure);
        let nested = CgroupRequest { user_namespace: UserNamespace::Nested, ..base };
        let rootless = CgroupRequest { privilege: Privilege::Rootless, ..base };
        assert_eq!(made(base, CgroupMode::Unified), Some(OnDeviceFailure::Fail));
        assert_eq!(made(nested, CgroupMode::Unified), Some(OnDeviceFailure::Ignore));
        assert_eq!(made(nested, CgroupMode::Legacy), None);
        assert_eq!(made(rootless, CgroupMode::Hybrid), Some(OnDeviceFailure::Ignore));
        assert_eq!(made(CgroupRequest { devices: Devices::Untouched, ..base }, CgroupMode::Unified), None);
    }
}
