//! The compiler from an OCI seccomp profile to the kernel's classic BPF, and the loading of what it made.
//!
//! [`compile`] is pure: profile, architecture and the kernel's flags in, a [`Program`] of plain data out. `plan` calls
//! it; the container's init and `exec` call [`install`]. No libseccomp, and no filter that was not run by a test: the
//! order of the operands of `SCMP_CMP_MASKED_EQ` alone has turned rules into unconditional ones elsewhere.
//!
//! The way of a profile: `profile` (names understood) -> `verdict` (segments of numbers) -> `tree` (instructions).

mod arch;
mod bpf;
mod install;
pub mod interpreter;
mod profile;
#[cfg(test)]
mod reference;
mod syscalls;
mod tree;
mod verdict;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use arch::{Arch, ByteOrder, Syscall};
pub use bpf::SockFilter;
use interpreter::SeccompData;

pub use install::{install, kernel_flags};
pub use profile::{KNOWN_ACTIONS, KNOWN_ARCHS, KNOWN_FLAGS, KNOWN_OPERATORS, supported_flags};

use crate::spec::Seccomp;

/// `BPF_MAXINSNS` of linux/filter.h.
const MAX_INSTRUCTIONS: usize = 4096;

// linux/seccomp.h
const RET_KILL_THREAD: u32 = 0;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// A filter that is ready to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The instructions.
    pub filter: Vec<SockFilter>,
    /// The flags of seccomp(2); none at all makes it prctl(2).
    pub flags: FilterFlags,
    /// Whether loading gives a listener's descriptor, which belongs at the profile's `listenerPath`.
    pub notify: bool,
    /// What a log should tell about the profile.
    pub warnings: Vec<Warning>,
}

impl Program {
    /// Whether the filter lets this process make the call.
    #[must_use]
    pub fn allows(&self, name: &str, args: [u64; 6]) -> bool {
        let native = Arch::NATIVE;
        let number = Syscall::from_name(name).and_then(|call| native.number(call));
        number.is_some_and(|number| {
            let data = SeccompData { number, arch: native.audit(), instruction_pointer: 0, args };
            let verdict = interpreter::run(&self.filter, &data, native.byte_order());
            matches!(verdict, Ok(RET_LOG | RET_ALLOW))
        })
    }
}

/// Flags of seccomp(2), `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterFlags(u32);

impl FilterFlags {
    /// None.
    pub const NONE: FilterFlags = FilterFlags(0);
    /// Log every verdict but "allow" (Linux 4.14).
    pub const LOG: FilterFlags = FilterFlags(1 << 1);
    /// Leave speculative store bypass as it is (Linux 4.17).
    pub const SPEC_ALLOW: FilterFlags = FilterFlags(1 << 2);
    /// Give a listener's descriptor (Linux 5.0).
    pub const NEW_LISTENER: FilterFlags = FilterFlags(1 << 3);
    /// Only a fatal signal interrupts a call that a listener has received (Linux 5.19).
    pub const WAIT_KILLABLE_RECV: FilterFlags = FilterFlags(1 << 5);

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: FilterFlags) -> FilterFlags {
        FilterFlags(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: FilterFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the kernel counts them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Something in a profile that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Warning {
    /// No architecture knows a call by this name. For the debug log, as in runc.
    UnknownSyscall(String),
    /// The profile names no call of a listed architecture, so what is newer than the profile can't be told there.
    NoSyscalls(Arch),
}

impl Warning {
    /// Whether it is for the debug log only.
    pub fn is_debug(&self) -> bool {
        matches!(self, Warning::UnknownSyscall(_))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownSyscall(name) => write!(f, "unknown seccomp syscall {name:?} ignored"),
            Warning::NoSyscalls(arch) => write!(f, "could not find any syscalls for arch {}", arch.name()),
        }
    }
}

/// Why a profile can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SeccompError {
    #[error("string {0} is not a valid action for seccomp")]
    UnknownAction(String),
    #[error("string {0} is not a valid operator for seccomp")]
    UnknownOperator(String),
    #[error("string {0} is not a valid arch for seccomp")]
    UnknownArch(String),
    #[error("seccomp flag {0} is not known to ketch")]
    UnknownFlag(String),
    #[error("seccomp flag {0} is not supported by this kernel")]
    UnsupportedFlag(String),
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    #[error("empty string is not a valid syscall")]
    EmptyName,
    #[error("error adding architecture {} to seccomp filter: its byte order is not that of {}", .arch.name(), .native.name())]
    ForeignByteOrder { arch: Arch, native: Arch },
    #[error(
        "error creating seccomp syscall condition for syscall {syscall}: \
         syscalls only have up to 6 arguments ({index} given)"
    )]
    ArgumentIndex { syscall: &'static str, index: u32 },
    #[error("seccomp filter takes {0} instructions, the kernel takes at most {MAX_INSTRUCTIONS}")]
    TooLong(usize),
}

/// Compiles `profile` for a kernel of the architecture `native` that takes the flags `supported` (see
/// [`kernel_flags`]). `None` for a profile that says nothing.
pub fn compile(
    profile: &Seccomp,
    native: Arch,
    supported: FilterFlags,
) -> Result<Option<Program>, SeccompError> {
    if profile.is_disabled() {
        return Ok(None);
    }
    let profile = profile::Profile::check(profile, native, supported)?;
    let mut warnings: Vec<_> =
        profile.unknown.iter().map(|&name| Warning::UnknownSyscall(name.to_owned())).collect();
    let sections = verdict::sections(&profile, &mut warnings);
    let filter = tree::assemble(&sections, native.byte_order());
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(filter.len()));
    }
    Ok(Some(Program { filter, flags: profile.flags, notify: profile.notify, warnings }))
}

#[cfg(test)]
mod tests;
