//! Loading a compiled filter. The only file of this folder that reaches the kernel; called by the container's init.

use std::os::fd::OwnedFd;

use ketch_sys::{SyscallError, seccomp};

use super::{FilterFlags, Program};

/// Puts `program` in force for the calling thread, and gives the listener's descriptor if the program notifies.
/// The thread must have no_new_privs or CAP_SYS_ADMIN.
pub fn install(program: &Program) -> Result<Option<OwnedFd>, SyscallError> {
    let filter: Vec<_> = program
        .filter
        .iter()
        .map(|i| seccomp::Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
        .collect();
    seccomp::set_filter(&filter, program.flags.bits())
}

/// The flags that the running kernel takes.
pub fn kernel_flags() -> FilterFlags {
    [
        FilterFlags::LOG,
        FilterFlags::SPEC_ALLOW,
        FilterFlags::NEW_LISTENER,
        // Refused without a listener, even by a kernel that knows it.
        FilterFlags::WAIT_KILLABLE_RECV.with(FilterFlags::NEW_LISTENER),
    ]
    .into_iter()
    .filter(|flags| seccomp::knows_flags(flags.bits()))
    .fold(FilterFlags::NONE, FilterFlags::with)
}
