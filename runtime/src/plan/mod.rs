//! What will be done, as plain data: no file descriptors, no I/O.
//!
//! [`Plan::new`] turns a checked configuration and the host's facts into everything that the executors (`init`,
//! `rootfs`, `cgroup`, `process`) carry out without a choice of their own. `oci-bundles/*/plan.json` are golden plans.

pub mod capability;
pub mod cgroup;
pub mod criu;
pub mod landlock;
pub mod mount_flags;
pub mod namespaces;
pub mod process;
pub mod resctrl;
pub mod rootfs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::HostFacts;
use crate::seccomp::{self, Arch, FilterFlags, Program, SeccompError};
use crate::spec::{self, Hooks, IdMapping, NamespaceType, Resources, Spec, ValidSpec};
use cgroup::systemd::SystemdRequest;
use cgroup::{CgroupPlan, CgroupPlanError, CgroupRequest, DeviceRule, Devices, Driver, Privilege};
use landlock::{LandlockError, LandlockPlan};
use namespaces::NamespacePlan;
use process::{Planned, ProcessPlan};
use resctrl::ResctrlPlan;
use rootfs::{RootEntry, RootfsOptions, RootfsPlan, RootfsPlanError};

/// Why a configuration that passed the checks can't be planned.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A field names something that Linux does not have.
    #[error("invalid {field}: {value:?}")]
    Unknown {
        /// The field's path.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupPlanError),
    /// Mounts.
    #[error(transparent)]
    Rootfs(#[from] RootfsPlanError),
    /// The filter.
    #[error("unable to compile the seccomp profile")]
    Seccomp(#[from] SeccompError),
    /// Landlock rules.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// Groups beside the one that every user may have: the kernel gives a user's own namespace none.
    #[error("cannot set any additional groups in a rootless container")]
    AdditionalGroups,
}

/// A container, from nothing to its program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Who makes it.
    #[serde(default, skip_serializing_if = "Caller::is_root")]
    pub caller: Caller,
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// Cgroups and limits.
    pub cgroup: CgroupPlan,
    /// Intel RDT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<ResctrlPlan>,
    /// Mounts and the root.
    pub rootfs: RootfsPlan,
    /// The first process.
    pub process: ProcessPlan,
    /// UTS host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// UTS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Kernel parameters, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Network devices to move in, by their name on the host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, spec::NetDevice>,
    /// Name of the session keyring; `None` keeps the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// Hooks.
    pub hooks: HookPlan,
    /// System call filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<FilterPlan>,
}

/// The hooks that run while a container is created and started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// In the runtime's namespaces, before pivot_root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<spec::Hook>,
    /// In the runtime's namespaces, before pivot_root, after `prestart`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<spec::Hook>,
    /// In the container's namespaces, before pivot_root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<spec::Hook>,
    /// In the container, before its program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<spec::Hook>,
}

impl HookPlan {
    fn new(hooks: Option<&Hooks>) -> Self {
        let hooks = hooks.cloned().unwrap_or_default();
        Self {
            prestart: hooks.prestart,
            create_runtime: hooks.create_runtime,
            create_container: hooks.create_container,
            start_container: hooks.start_container,
        }
    }

    /// Whether hooks run before the root changes: the parent's, or the child's, which has to wait for the parent then, as they
    /// are to find the limits and the score set.
    #[must_use]
    pub fn runs_before_pivot(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty() || !self.create_container.is_empty()
    }
}

/// A compiled filter, and who takes its notifications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterPlan {
    /// The program.
    pub program: Program,
    /// Socket of the agent that takes the listener; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// What the agent is told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
}

/// A process that joins a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecPlan {
    /// The process.
    pub process: ProcessPlan,
    /// Who made the container.
    pub caller: Caller,
    /// The namespaces that the container has of its own.
    pub namespaces: Vec<NamespaceType>,
    /// Name of the session keyring; `None` keeps the caller's.
    pub keyring: Option<String>,
    /// The container's filter.
    pub seccomp: Option<FilterPlan>,
}

/// How the caller wants the container.
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions<'a> {
    /// The container's name.
    pub id: &'a str,
    /// The bundle, absolute.
    pub bundle: &'a Path,
    /// How the root is entered.
    pub entry: RootEntry,
    /// Whether the container gets a session keyring of its own.
    pub keyring: KeyringChoice,
    /// Whether refusals of cgroups are expected.
    pub privilege: Privilege,
}

/// Who runs the runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caller {
    /// Root of the user namespace that it is in.
    #[default]
    Root,
    /// Somebody else: all rights are in the container's user namespace, which is this user's own.
    User,
}

impl Caller {
    fn is_root(&self) -> bool {
        *self == Self::Root
    }
}

/// `--rootless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootlessChoice {
    /// By who runs the runtime, and where.
    Auto,
    /// Cgroups may be refused.
    Yes,
    /// They may not.
    No,
}

/// `--no-new-keyring` or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringChoice {
    /// A keyring of its own.
    New,
    /// The caller's.
    Inherit,
}

/// A plan, and what is worth a warning about it.
#[derive(Debug)]
pub struct PlannedContainer {
    /// The plan.
    pub plan: Plan,
    /// The configuration that it was made of.
    pub spec: Spec,
    /// Texts for the log.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The plan of a configuration.
    ///
    /// # Errors
    /// What can't be carried out, by the field that asks for it.
    #[expect(clippy::new_ret_no_self, reason = "what a plan is made of comes back with it")]
    pub fn new(
        valid: ValidSpec,
        host: &HostFacts,
        options: &PlanOptions<'_>,
    ) -> Result<PlannedContainer, PlanError> {
        let resctrl_mount = valid.resctrl().map(Path::to_owned);
        let mappings = (valid.uid_mappings().to_vec(), valid.gid_mappings().to_vec());
        let spec = valid.into_spec();
        let no_linux = spec::Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&no_linux);
        let no_process = spec::Process::default();
        let Planned { process, mut warnings } =
            ProcessPlan::plan(spec.process.as_ref().unwrap_or(&no_process))?;
        let process = process.for_caller(host.caller)?;
        let seccomp = linux
            .seccomp
            .as_ref()
            .map(|profile| FilterPlan::new(profile, host.seccomp_flags, &mut warnings))
            .transpose()?;
        let namespaces = NamespacePlan::new(linux, mappings)?;
        let owner = cgroup_owner(&spec, &namespaces);
        let cgroup = plan_cgroup(&spec, linux, host, (options, owner))?;
        warnings.extend(cgroup.limits.warnings.iter().cloned());
        let plan = Self {
            id: options.id.to_owned(),
            bundle: options.bundle.to_owned(),
            caller: host.caller,
            namespaces,
            cgroup,
            resctrl: linux
                .intel_rdt
                .as_ref()
                .zip(resctrl_mount.as_deref())
                .map(|(rdt, mountpoint)| ResctrlPlan::new(rdt, options.id, mountpoint)),
            rootfs: rootfs::plan(&spec, &RootfsOptions { bundle: options.bundle, entry: options.entry })?,
            process: ProcessPlan {
                landlock: LandlockPlan::of(&spec.annotations)?,
                ..process.with_container(linux)?
            },
            hostname: (!spec.hostname.is_empty()).then(|| spec.hostname.clone()),
            domainname: (!spec.domainname.is_empty()).then(|| spec.domainname.clone()),
            sysctl: linux.sysctl.clone(),
            net_devices: linux.net_devices.clone(),
            keyring: (options.keyring == KeyringChoice::New).then(|| options.id.to_owned()),
            hooks: HookPlan::new(spec.hooks.as_ref()),
            seccomp: seccomp.flatten(),
        };
        Ok(PlannedContainer { plan, spec, warnings })
    }

    /// Whether the runtime makes the container's network namespace while the container's process mounts. A namespace that
    /// a user namespace is to own is made inside of that; one that gets devices must be there before they are moved.
    #[must_use]
    pub fn makes_network_meanwhile(&self) -> bool {
        let namespaces = &self.namespaces;
        namespaces.creates(NamespaceType::Network)
            && !namespaces.has(NamespaceType::User)
            && self.net_devices.is_empty()
    }
}

/// The host's user that is to own the cgroup: that of the container's process, where it may write to its own part of
/// the cgroups.
fn cgroup_owner(spec: &Spec, namespaces: &NamespacePlan) -> Option<u32> {
    let writable = |mount: &spec::Mount| {
        mount.source == "cgroup"
            && rootfs::clean(Path::new(&mount.destination)) == Path::new("/sys/fs/cgroup")
            && !mount.options.iter().any(|option| option == "ro")
    };
    if !namespaces.creates(NamespaceType::Cgroup) || !spec.mounts.iter().any(writable) {
        return None;
    }
    let user = spec.process.as_ref().map_or(0, |process| process.user.uid);
    if !namespaces.has(NamespaceType::User) {
        return Some(user);
    }
    IdMapping::host_id_of(&namespaces.uid_mappings, user)
}

fn plan_cgroup(
    spec: &Spec,
    linux: &spec::Linux,
    host: &HostFacts,
    (options, owner): (&PlanOptions<'_>, Option<u32>),
) -> Result<CgroupPlan, CgroupPlanError> {
    let no_resources = Resources::default();
    let paths: Vec<&str> = linux.devices.iter().map(|device| device.path.as_str()).collect();
    let defaults: Vec<DeviceRule> = cgroup::devices::default_rules(&paths);
    let request = CgroupRequest {
        id: options.id,
        cgroups_path: (!linux.cgroups_path.is_empty()).then_some(linux.cgroups_path.as_str()),
        resources: linux.resources.as_ref().unwrap_or(&no_resources),
        devices: Devices::Controlled { defaults: &defaults },
        privilege: options.privilege,
        user_namespace: host.user_namespace,
        driver: match &host.systemd {
            None => Driver::Cgroupfs,
            Some(facts) => Driver::Systemd(SystemdRequest { facts, annotations: &spec.annotations, owner }),
        },
    };
    cgroup::plan(&request, &host.cgroups)
}

impl FilterPlan {
    /// The compiled profile; `None` for one that filters nothing.
    fn new(
        profile: &spec::Seccomp,
        supported: FilterFlags,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, PlanError> {
        let Some(program) = seccomp::compile(profile, Arch::NATIVE, supported)? else { return Ok(None) };
        warnings
            .extend(program.warnings.iter().filter(|warning| !warning.is_debug()).map(ToString::to_string));
        Ok(Some(Self {
            program,
            listener_path: profile.listener_path.clone(),
            listener_metadata: profile.listener_metadata.clone(),
        }))
    }
}
