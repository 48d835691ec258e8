//! Turning a raw return value into a result. No system call of its own.

use std::fmt::Display;

use crate::error::{Errno, SyscallError};

/// `returned`, or the error that errno holds. The detail is formatted only for an error.
pub(crate) fn check(call: &'static str, detail: impl Display, returned: i64) -> Result<i64, SyscallError> {
    if returned < 0 {
        let errno = Errno::last();
        return Err(SyscallError::new(call, detail.to_string(), errno));
    }
    Ok(returned)
}

/// [`check`], calling again for as long as a signal interrupts.
pub(crate) fn retry(
    call: &'static str,
    detail: impl Display,
    mut attempt: impl FnMut() -> i64,
) -> Result<i64, SyscallError> {
    loop {
        let returned = attempt();
        if returned >= 0 || Errno::last() != Errno::EINTR {
            return check(call, detail, returned);
        }
    }
}
