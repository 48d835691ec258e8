//! Landlock: landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2). Least kernel 5.13; what each
//! later ABI added is said by its number, which [`abi`] asks for.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::call::check;
use crate::error::{Errno, Result};
use crate::path::own;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: i32 = 1;
const RULE_NET_PORT: i32 = 2;

/// `struct landlock_ruleset_attr` up to ABI 4. An older kernel takes the longer one while what it does not know is zero.
#[repr(C)]
struct RulesetAttribute {
    handled_access_fs: u64,
    handled_access_net: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// The ABI of the running kernel; 0 where it has no Landlock, or has it turned off.
pub fn abi() -> Result<u32> {
    let nothing = std::ptr::null::<RulesetAttribute>();
    // SAFETY: with this flag the kernel takes no attribute.
    let returned =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, CREATE_RULESET_VERSION) };
    match check("landlock_create_ruleset", "version", returned) {
        Ok(version) => Ok(u32::try_from(version).unwrap_or(u32::MAX)),
        Err(error) if matches!(error.errno, Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(0),
        Err(error) => Err(error),
    }
}

/// A ruleset that denies what it handles, but for the rules that are added to it.
pub fn create_ruleset(handled_access_fs: u64, handled_access_net: u64) -> Result<OwnedFd> {
    let attribute = RulesetAttribute { handled_access_fs, handled_access_net };
    // SAFETY: the attribute is alive and its true size is given; the kernel only reads it.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attribute,
            size_of::<RulesetAttribute>(),
            0,
        )
    };
    check("landlock_create_ruleset", "", returned).map(own)
}

/// Allows `allowed_access` to what `parent` is a handle on, and to all below it.
pub fn add_path(ruleset: impl AsFd, parent: impl AsFd, allowed_access: u64) -> Result<()> {
    let rule = PathBeneath { allowed_access, parent_fd: parent.as_fd().as_raw_fd() };
    let raw = ruleset.as_fd().as_raw_fd();
    // SAFETY: both descriptors are borrowed; the rule is alive, and of the type that is named.
    let returned =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, raw, RULE_PATH_BENEATH, &raw const rule, 0) };
    check("landlock_add_rule", "", returned).map(drop)
}

/// Allows `allowed_access` to a TCP port. Needs ABI 4.
pub fn add_port(ruleset: impl AsFd, port: u16, allowed_access: u64) -> Result<()> {
    let rule = NetPort { allowed_access, port: port.into() };
    let raw = ruleset.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed; the rule is alive, and of the type that is named.
    let returned =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, raw, RULE_NET_PORT, &raw const rule, 0) };
    check("landlock_add_rule", port, returned).map(drop)
}

/// Puts the ruleset in force for this process and all that it starts, for ever. Needs no_new_privs or CAP_SYS_ADMIN.
pub fn restrict_self(ruleset: impl AsFd) -> Result<()> {
    let raw = ruleset.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed; there is no other argument than flags.
    check("landlock_restrict_self", "", unsafe { libc::syscall(libc::SYS_landlock_restrict_self, raw, 0) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ruleset_takes_rules() {
        if abi().unwrap() == 0 {
            eprintln!("skipped: no Landlock here");
            return;
        }
        // LANDLOCK_ACCESS_FS_READ_DIR.
        let ruleset = create_ruleset(1 << 3, 0).unwrap();
        add_path(&ruleset, std::fs::File::open("/").unwrap(), 1 << 3).unwrap();
        let error = add_path(&ruleset, std::fs::File::open("/").unwrap(), 1 << 2).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
    }
}
