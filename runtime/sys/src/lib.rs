//! Safe signatures over the kernel. The only crate with `unsafe`, and the runtime's only door to nix and libc.
//!
//! One file per kernel topic; each names its man pages and the least kernel that has what it uses. Functions take
//! borrowed descriptors, give owned ones that are close-on-exec from birth, retry what a signal interrupted, and fail
//! as [`error::SyscallError`].

pub mod bpf;
mod call;
pub mod capability;
pub mod cgroupfs;
pub mod credential;
#[cfg(target_arch = "x86_64")]
mod entry;
pub mod error;
#[cfg(feature = "fault-injection")]
pub mod fault_injection;
pub mod file;
pub mod keyring;
pub mod landlock;
pub mod link;
pub mod memory_file;
pub mod mount;
pub mod namespace;
pub mod path;
pub mod poll;
pub mod process;
pub mod program;
pub mod resctrl;
pub mod resource;
pub mod route;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod stream;
pub mod terminal;

pub use error::{Errno, SyscallError};
