//! The session keyring: keyctl(2).

use std::ffi::CStr;

use crate::call::check;
use crate::error::SyscallError;

/// A key's serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySerial(i32);

/// KEYCTL_JOIN_SESSION_KEYRING: leaves the session keyring of the parent for the one of this name, made if need be.
pub fn join_session(name: &CStr) -> Result<KeySerial, SyscallError> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a live NUL-terminated string.
    let serial = check("keyctl(KEYCTL_JOIN_SESSION_KEYRING)", name.to_string_lossy(), unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    #[expect(clippy::cast_possible_truncation, reason = "key serials are 32-bit")]
    Ok(KeySerial(serial as i32))
}

/// Adds `search` to the keyring's permissions (KEYCTL_DESCRIBE, KEYCTL_SETPERM), and nothing else changes.
pub fn add_permission(key: KeySerial, search: u32) -> Result<(), SyscallError> {
    const KEYCTL_DESCRIBE: i32 = 6;
    const KEYCTL_SETPERM: i32 = 5;
    let mut buffer = [0_u8; 512];
    // SAFETY: pointer and length describe the live buffer.
    let length = check("keyctl(KEYCTL_DESCRIBE)", key.0, unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, buffer.as_mut_ptr(), buffer.len())
    })?;
    // "type;uid;gid;perm;description", perm in hexadecimal (keyctl(2)).
    let described =
        String::from_utf8_lossy(&buffer[..usize::try_from(length).unwrap_or(0).min(buffer.len())])
            .into_owned();
    let current =
        described.split(';').nth(3).and_then(|perm| u32::from_str_radix(perm, 16).ok()).unwrap_or(0);
    // SAFETY: integers only.
    check("keyctl(KEYCTL_SETPERM)", key.0, unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, current | search)
    })?;
    Ok(())
}
