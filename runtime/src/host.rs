//! What this host is: the only place of the runtime that probes. Reads, and changes nothing.
//!
//! Called once by a command; the facts go into `Plan::new` as data, so that a plan is the same wherever it is made.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use ketch_sys::Errno;
use thiserror::Error;

use crate::plan::Caller;
use crate::plan::cgroup::systemd::SystemdFacts;
use crate::plan::cgroup::{CgroupLayout, UserNamespace};
use crate::seccomp::{self, FilterFlags};

/// Facts about the host that a plan depends on.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Which cgroup hierarchies there are, and where.
    pub cgroups: CgroupLayout,
    /// Who runs the runtime.
    pub caller: Caller,
    /// Where it runs.
    pub user_namespace: UserNamespace,
    /// Flags of seccomp(2) that the kernel takes.
    pub seccomp_flags: FilterFlags,
    /// The systemd that makes the cgroups; `None` where the runtime does so itself. It is asked by whoever connects to it
    /// (`cgroup::systemd`).
    pub systemd: Option<SystemdFacts>,
}

/// A fact that could not be had.
#[derive(Debug, Error)]
pub enum HostError {
    /// A file of procfs.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl HostFacts {
    /// Looks.
    ///
    /// # Errors
    /// procfs is not mounted, or says nothing that can be understood.
    pub fn probe() -> Result<Self, HostError> {
        let mountinfo = read("/proc/self/mountinfo")?;
        let own_cgroup = read("/proc/self/cgroup")?;
        Ok(Self {
            cgroups: CgroupLayout::parse(&mountinfo, &own_cgroup),
            caller: caller(),
            user_namespace: user_namespace(),
            seccomp_flags: seccomp::kernel_flags(),
            systemd: None,
        })
    }
}

/// Who runs the runtime: root of its user namespace, or a user of it.
#[must_use]
pub fn caller() -> Caller {
    match ketch_sys::credential::effective_uid() {
        0 => Caller::Root,
        _ => Caller::User,
    }
}

/// Whether the runtime is in the user namespace that the kernel booted with. One that maps every id onto itself counts as
/// that one, as with runc, though the kernel gives it less.
#[must_use]
pub fn user_namespace() -> UserNamespace {
    /// `USER_NS_INIT_INO` of linux/nsfs.h: one call for the usual answer.
    const INITIAL: &str = "user:[4026531837]";
    if fs::read_link("/proc/self/ns/user").is_ok_and(|link| link == Path::new(INITIAL)) {
        return UserNamespace::Initial;
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    // A kernel without user namespaces has no such file.
    if whole || map.is_empty() { UserNamespace::Initial } else { UserNamespace::Nested }
}

/// Why the kernel may have refused a user namespace with `errno`, by the settings that have a say in it: theirs are
/// the words that tell an administrator what to change. Empty when none of them explains it.
#[must_use]
pub fn why_no_user_namespace(errno: Errno) -> String {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let is = |name: &str, value: &str| setting(name).trim() == value;
    if is("user/max_user_namespaces", "0") {
        return "user.max_user_namespaces is 0".to_owned();
    }
    // Debian's and Ubuntu's own switch.
    if errno == Errno::EPERM && is("kernel/unprivileged_userns_clone", "0") {
        return "kernel.unprivileged_userns_clone is 0".to_owned();
    }
    if matches!(errno, Errno::EPERM | Errno::EACCES)
        && let Some(hint) = apparmor_restriction()
    {
        return hint;
    }
    match errno {
        Errno::ENOSPC => {
            "there are as many as user.max_user_namespaces allows, or 32 inside each other".to_owned()
        }
        Errno::EPERM => {
            "a root directory changed by chroot, an id without a mapping, or a security module forbids it"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Ubuntu's restriction: an unconfined program gets a user namespace in which it has no capability.
#[must_use]
pub fn apparmor_restriction() -> Option<String> {
    let name = "kernel.apparmor_restrict_unprivileged_userns";
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let on = fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    on.then(|| {
        format!("{name} is 1: AppArmor takes every capability in the user namespace of a program without a profile")
    })
}

fn read(path: &'static str) -> Result<String, HostError> {
    // Any user of the host can make a mount point whose name is no text, by FUSE; nothing that is looked for has such a name.
    let text = read_procfs(path).map(|text| String::from_utf8_lossy(&text).into_owned());
    text.map_err(|source| HostError::Read { path, source })
}

/// A file of procfs, whole. It has no size to ask for, and each read costs the kernel the work of making it up to there:
/// so one read, and one that finds the end, where the standard library probes from 32 bytes on.
///
/// # Errors
/// Those of open(2) and read(2).
pub(crate) fn read_procfs(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(8192);
    // Not the file's own `read_to_end`, which asks for its size.
    File::open(path)?.take(u64::MAX).read_to_end(&mut text)?;
    Ok(text)
}
