//! The session keyring: a container must not see the keys of whoever started it.

use std::ffi::CString;

use ketch_sys::keyring;
use ketch_sys::{Errno, SyscallError};
use thiserror::Error;

/// A keyring that the kernel refused.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// Joining failed.
    #[error("unable to join session keyring")]
    Join(#[source] SyscallError),
    /// Its permissions could not be set.
    #[error("unable to mod keyring permissions")]
    Permissions(#[source] SyscallError),
}

/// Who searches the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringUse {
    /// The container's first process, which makes it searchable for the processes that follow.
    Create {
        /// In a user namespace the possessor's class is not the user's.
        user_namespace: bool,
    },
    /// A process that `exec` adds.
    Join,
}

/// Joins the container's session keyring. A kernel without keyrings is no error: the protection is best effort.
///
/// # Errors
/// Any other refusal, a full quota included.
pub fn join(id: &str, keyring_use: KeyringUse) -> Result<(), KeyringError> {
    let Ok(name) = CString::new(format!("_ses.{id}")) else { return Ok(()) };
    let key = match keyring::join_session(&name) {
        Ok(key) => key,
        Err(error) if error.errno == Errno::ENOSYS => return Ok(()),
        Err(error) => return Err(KeyringError::Join(error)),
    };
    match keyring_use {
        KeyringUse::Join => Ok(()),
        KeyringUse::Create { user_namespace } => {
            // KEY_OTH_SEARCH or KEY_USR_SEARCH: keyctl_setperm(3).
            let search = if user_namespace { 0x0000_0008 } else { 0x0008_0000 };
            keyring::add_permission(key, search).map_err(KeyringError::Permissions)
        }
    }
}
