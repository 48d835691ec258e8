//! Why a configuration is refused. The texts are runc's, as far as people and programs may match them.

use std::path::PathBuf;

use thiserror::Error;

use super::{NamespaceType, ParseError};

/// A configuration that can't be carried out.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The file is not a configuration.
    #[error(transparent)]
    Parse(#[from] ParseError),

    /// `process` is missing.
    #[error("process property must not be empty")]
    NoProcess,
    /// `process.cwd` is missing.
    #[error("Cwd property must not be empty")]
    NoCwd,
    /// `process.cwd` is relative.
    #[error("Cwd must be an absolute path")]
    RelativeCwd,
    /// `process.args` is missing.
    #[error("args must not be empty")]
    NoArgs,
    /// A text that goes to the kernel as a C string holds a zero byte.
    #[error("{field} contains null byte")]
    NulByte {
        /// The field.
        field: &'static str,
    },
    /// An SELinux label on a kernel without SELinux.
    #[error("selinux label is specified in config, but selinux is disabled or not supported")]
    NoSelinux,
    /// An unknown resource limit.
    #[error("wrong rlimit value: {kind}")]
    Rlimit {
        /// Its name.
        kind: String,
    },
    /// `process.execCPUAffinity` does not parse.
    #[error("bad CPUAffinity.{field}: {reason}")]
    CpuAffinity {
        /// `Initial` or `Final`.
        field: &'static str,
        /// Why.
        reason: IdListError,
    },
    /// `process.scheduler.policy` is missing.
    #[error("scheduler policy is required")]
    NoSchedulerPolicy,
    /// `process.scheduler.policy` is unknown.
    #[error("invalid scheduler policy: {policy}")]
    SchedulerPolicy {
        /// Its name.
        policy: String,
    },
    /// `process.scheduler.flags` holds an unknown one.
    #[error("invalid scheduler flag: {flag}")]
    SchedulerFlag {
        /// Its name.
        flag: String,
    },
    /// `process.scheduler.nice` is out of range.
    #[error("invalid scheduler.nice: {nice} when scheduler.policy is {policy}")]
    SchedulerNice {
        /// The value.
        nice: i32,
        /// The policy that reads it.
        policy: String,
    },
    /// `process.scheduler.priority` with a policy that has none.
    #[error("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")]
    SchedulerPriority,
    /// Deadline fields with another policy.
    #[error("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")]
    SchedulerDeadline,
    /// `process.ioPriority.priority` is out of range.
    #[error("invalid ioPriority.Priority: {priority}")]
    IoPriority {
        /// The value.
        priority: i64,
    },
    /// `process.ioPriority.class` is unknown.
    #[error("invalid ioPriority.Class: {class:?}")]
    IoPriorityClass {
        /// Its name.
        class: String,
    },

    /// `root` is missing.
    #[error("root must be specified")]
    NoRoot,
    /// `root.path` can't be used.
    #[error("invalid rootfs: stat {}: {reason}", path.display())]
    Rootfs {
        /// The absolute path.
        path: PathBuf,
        /// The kernel's answer.
        reason: String,
    },
    /// `root.path` is reached through a symbolic link.
    #[error("invalid rootfs: not an absolute path, or a symlink")]
    RootfsSymlink,
    /// A mount that can't be made.
    #[error("invalid mount {destination}: {reason}")]
    Mount {
        /// Its destination.
        destination: String,
        /// Why.
        reason: MountFault,
    },

    /// `hostname` or `domainname` without a UTS namespace.
    #[error("unable to set {field} without a private UTS namespace")]
    NoUtsNamespace {
        /// The field.
        field: &'static str,
    },
    /// An unknown kind of namespace.
    #[error("namespace {kind:?} does not exist")]
    NamespaceType {
        /// Its name.
        kind: String,
    },
    /// A kind of namespace that is there twice.
    #[error("malformed spec file: duplicated ns {:?}", kind.name())]
    DuplicateNamespace {
        /// The kind.
        kind: NamespaceType,
    },
    /// A kind of namespace that this kernel does not have.
    #[error("{} namespaces aren't enabled in the kernel", kind.name())]
    NamespaceNotInKernel {
        /// The kind.
        kind: NamespaceType,
    },
    /// A new user namespace without ids.
    #[error("user namespaces enabled, but no {kind} mappings found")]
    NoMappings {
        /// `uid` or `gid`.
        kind: &'static str,
    },
    /// A user namespace in which the given id does not exist.
    #[error("user namespaces enabled, but no mapping found for {kind} {id}")]
    Unmapped {
        /// `uid` or `gid`.
        kind: &'static str,
        /// The id inside.
        id: u32,
    },
    /// The mappings of a user namespace to join can't be read.
    #[error("failed to cache mappings for userns: {path}: {reason}")]
    JoinedMappings {
        /// The namespace's file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A user namespace to join, and mappings that are not its own.
    #[error(
        "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one"
    )]
    MappingsDiffer,
    /// A time namespace to join, and offsets.
    #[error(
        "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
    )]
    TimeOffsetsWithPath,
    /// Clock offsets without a time namespace.
    #[error("time namespace offsets specified, but time namespace isn't enabled in the config")]
    TimeOffsetsWithoutNamespace,

    /// Masked or read-only paths without a mount namespace.
    #[error("unable to restrict sys entries without a private MNT namespace")]
    NoMountNamespace,
    /// `linux.rootfsPropagation` is unknown.
    #[error("rootfsPropagation={value} is not supported")]
    RootfsPropagation {
        /// The value.
        value: String,
    },
    /// Private propagation without pivot_root.
    #[error("rootfsPropagation of [r]private is not safe without pivot_root")]
    PrivateWithoutPivot,
    /// A device that is none.
    #[error("invalid device type {kind:?}")]
    DeviceType {
        /// Its type.
        kind: String,
    },
    /// `linux.cgroupsPath` is not in systemd's form.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
    )]
    SystemdCgroupsPath {
        /// The value.
        path: String,
    },
    /// A kernel parameter of an IPC namespace that the container does not have.
    #[error("sysctl {key:?} is not allowed in the hosts ipc namespace")]
    SysctlIpc {
        /// The parameter.
        key: String,
    },
    /// A kernel parameter of a network namespace that is the runtime's own.
    #[error("sysctl {key:?} not allowed in host network namespace")]
    SysctlNet {
        /// The parameter.
        key: String,
    },
    /// The network namespace to join can't be looked at.
    #[error("invalid netns path: stat {path}: {reason}")]
    NetNamespacePath {
        /// The namespace's file.
        path: String,
        /// The kernel's answer.
        reason: String,
    },
    /// A kernel parameter that has a field of its own.
    #[error("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field")]
    SysctlHostname {
        /// The parameter.
        key: String,
    },
    /// A kernel parameter of a user namespace that the container does not have.
    #[error("setting ucounts without a user namespace not allowed: {key}")]
    SysctlUser {
        /// The parameter.
        key: String,
    },
    /// A kernel parameter of the whole machine.
    #[error("sysctl {key:?} is not in a separate kernel namespace")]
    SysctlGlobal {
        /// The parameter.
        key: String,
    },
    /// Network devices without a network namespace.
    #[error("unable to move network devices without a NET namespace")]
    NetDevicesWithoutNamespace,
    /// Network devices without the rights to move them.
    #[error("network devices are not supported for rootless containers")]
    NetDevicesRootless,
    /// A name that no network device can have.
    #[error("invalid network device name {name:?}")]
    NetDeviceName {
        /// The name.
        name: String,
    },

    /// `linux.intelRdt` without resctrl.
    #[error("intelRdt is specified in config, but Intel RDT is not enabled")]
    NoIntelRdt,
    /// `linux.intelRdt.closID` is no directory name.
    #[error("invalid intelRdt.ClosID {clos_id:?}")]
    IntelRdtClosId {
        /// The value.
        clos_id: String,
    },
    /// A schema that this machine does not have.
    #[error("intelRdt.{field} is specified in config, but Intel RDT/{feature} is not enabled")]
    IntelRdtSchema {
        /// The field.
        field: &'static str,
        /// The feature that it needs.
        feature: &'static str,
    },

    /// `linux.memoryPolicy.mode` is unknown.
    #[error("invalid memory policy mode {mode:?}")]
    MemoryPolicyMode {
        /// The value.
        mode: String,
    },
    /// `linux.memoryPolicy.flags` holds an unknown one.
    #[error("invalid memory policy flag {flag:?}")]
    MemoryPolicyFlag {
        /// The value.
        flag: String,
    },
    /// `linux.memoryPolicy.nodes` does not parse.
    #[error("invalid memory policy nodes {nodes:?}: {reason}")]
    MemoryPolicyNodes {
        /// The value.
        nodes: String,
        /// Why.
        reason: IdListError,
    },
    /// Nodes for a mode that takes none.
    #[error("memory policy mode requires 0 nodes but got {count}")]
    MemoryPolicyWithNodes {
        /// How many.
        count: usize,
    },
    /// No nodes for a mode that needs some.
    #[error("memory policy mode requires at least one node but got 0")]
    MemoryPolicyWithoutNodes,
    /// `linux.personality.domain` is unknown.
    #[error("invalid personality domain {domain}")]
    PersonalityDomain {
        /// The value.
        domain: String,
    },

    /// A rootless container without a user namespace.
    #[error("rootless container requires user namespaces")]
    RootlessWithoutUserNamespace,
    /// A rootless container without ids.
    #[error("rootless containers requires at least one {kind} mapping")]
    RootlessWithoutMappings {
        /// `UID` or `GID`.
        kind: &'static str,
    },
    /// A mount option that names an id which the user namespace does not have.
    #[error(
        "cannot specify {option} mount option for rootless container: user namespaces enabled, but no mapping found for {kind} {id}"
    )]
    RootlessMountId {
        /// The option.
        option: String,
        /// `uid` or `gid`.
        kind: &'static str,
        /// The id.
        id: u32,
    },
}

/// What is wrong with a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MountFault {
    /// A zero byte in source, destination or type.
    #[error("mount field contains null byte")]
    NulByte,
    /// Filesystem options where there is no new filesystem.
    #[error("bind mounts cannot have any filesystem-specific options applied")]
    BindWithData,
    /// An id mapping on something else than a bind mount.
    #[error("id-mapped mounts are only supported for bind-mounts")]
    IdMappedNotBind,
    /// An id mapping without the rights to make it.
    #[error("id-mapped mounts are not supported for rootless containers")]
    IdMappedRootless,
    /// Half of an id mapping.
    #[error("id-mapped mounts must have both uid and gid mappings specified")]
    IdMappedHalf,
}

/// Why a list such as `0-3,7` is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdListError {
    /// A part is no number.
    #[error("invalid number {part:?}")]
    Number {
        /// The part.
        part: String,
    },
    /// A number beyond [`super::id_list::MAX`].
    #[error("values larger than {max} are not supported")]
    TooLarge {
        /// The largest.
        max: u32,
    },
    /// A range that runs backwards.
    #[error("invalid range: {range}")]
    Range {
        /// The range.
        range: String,
    },
    /// Nothing but commas.
    #[error("no members found in set {list:?}")]
    Empty {
        /// The list.
        list: String,
    },
}
