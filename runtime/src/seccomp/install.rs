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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{Arch, compile};
    use crate::spec::Seccomp;

    /// A filter is its thread's alone, so each test gives its life to one.
    #[expect(clippy::disallowed_methods, reason = "tests have threads")]
    fn in_a_thread<T: Send + 'static>(
        profile: &'static str,
        then: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static,
    ) -> T {
        std::thread::spawn(move || {
            let profile: Seccomp = serde_json::from_str(profile).unwrap();
            let program = compile(&profile, Arch::NATIVE, kernel_flags()).unwrap().unwrap();
            ketch_sys::process::set_no_new_privileges().unwrap();
            then(install(&program).unwrap())
        })
        .join()
        .unwrap()
    }

    fn errno_of_mkdir() -> Option<i32> {
        std::fs::create_dir("/proc/self/none").unwrap_err().raw_os_error()
    }

    #[test]
    fn the_kernel_takes_a_filter_and_obeys_it() {
        let refused = in_a_thread(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": [],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100}]}"#,
            |listener| {
                assert!(listener.is_none());
                errno_of_mkdir()
            },
        );
        assert_eq!(refused, Some(100));
    }

    #[test]
    fn the_kernel_takes_dockers_profile_with_flags() {
        let refused =
            in_a_thread(include_str!("../../../oci-bundles/docker-default/seccomp.json"), |listener| {
                assert!(listener.is_none());
                errno_of_mkdir()
            });
        // Allowed by the profile, refused by procfs.
        assert_eq!(refused, Some(2));
    }

    #[test]
    fn a_notifying_filter_gives_its_listener() {
        in_a_thread(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            |listener| assert!(listener.is_some()),
        );
    }

    #[test]
    fn this_kernel_knows_the_old_flags() {
        assert!(kernel_flags().contains(FilterFlags::LOG.with(FilterFlags::SPEC_ALLOW)));
    }
}
