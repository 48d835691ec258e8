//! What this host is: the only place of the runtime that probes. Reads, and changes nothing.
//!
//! Called once by a command; the facts go into `Plan::new` as data, so that a plan is the same wherever it is made.

use std::fs::File;
use std::io::{self, Read};

use thiserror::Error;

use crate::plan::cgroup::CgroupLayout;
use crate::seccomp::{self, FilterFlags};

/// Facts about the host that a plan depends on.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Which cgroup hierarchies there are, and where.
    pub cgroups: CgroupLayout,
    /// The effective user of the runtime.
    pub euid: u32,
    /// Flags of seccomp(2) that the kernel takes.
    pub seccomp_flags: FilterFlags,
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
            euid: ketch_sys::credential::effective_uid(),
            seccomp_flags: seccomp::kernel_flags(),
        })
    }
}

fn read(path: &'static str) -> Result<String, HostError> {
    let text = read_procfs(path).and_then(|text| String::from_utf8(text).map_err(io::Error::other));
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
