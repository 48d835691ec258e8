//! ketch: a low-level container runtime by the OCI runtime-spec 1.3.
//!
//! The folder is the pipeline: `config.json` -> [`spec`] (checked) -> [`plan`] (plain data) -> system calls.
//! Synchronous and single-threaded; every kernel access goes through `ketch-sys`.

pub mod bundle;
pub mod cgroup;
pub mod checkpoint;
pub mod cli;
pub mod compat;
pub mod container;
pub mod dbus;
pub mod error;
pub mod events;
pub mod features;
pub mod foreground;
pub mod hooks;
pub mod host;
pub mod init;
pub mod log;
pub mod mountinfo;
pub mod net_device;
pub mod plan;
pub mod process;
pub mod procfs;
pub mod resctrl;
pub mod rfc3339;
pub mod rootfs;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod state;
