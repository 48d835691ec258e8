//! What a failed system call looks like to everyone above: the call, its operands and the error number.
//!
//! Owns the texts of error numbers. They are the lower-case ones that runc (by Go's `syscall.Errno`) prints, because
//! callers of a runtime match them ("no such file or directory", "permission denied"). Every file of this crate builds
//! its errors here; nothing here makes a system call.

use std::borrow::Cow;
use std::fmt;

pub use nix::errno::Errno;

/// The result of every function of this crate that asks the kernel for something.
pub type Result<T> = std::result::Result<T, SyscallError>;

/// A system call that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallError {
    /// The system call, as its man page is called ("open_tree").
    pub call: &'static str,
    /// The operand that a reader needs to know which call it was: a path, a file system's name, a pid. May be empty.
    pub detail: Cow<'static, str>,
    /// The kernel's answer.
    pub errno: Errno,
}

impl SyscallError {
    /// An error of `call` on `detail`.
    pub fn new(call: &'static str, detail: impl Into<Cow<'static, str>>, errno: Errno) -> Self {
        Self { call, detail: detail.into(), errno }
    }

    /// The error that `errno` of the calling thread holds.
    pub fn last(call: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(call, detail, Errno::last())
    }

    /// The raw error number.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }
}

impl fmt::Display for SyscallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        write!(f, ": {}", errno_text(self.errno))
    }
}

impl std::error::Error for SyscallError {}

impl From<SyscallError> for std::io::Error {
    fn from(error: SyscallError) -> Self {
        std::io::Error::new(std::io::Error::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// The text of an error number, in Go's words: those of `strerror(3)` in the C locale, the first letter in lower case
/// unless the word is an abbreviation.
pub fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno as i32).to_string();
    let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &text[1..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_call_operand_and_reason() {
        let error = SyscallError::new("open_tree", "/x", Errno::ENOENT);
        assert_eq!(error.to_string(), "open_tree /x: no such file or directory");
        assert_eq!(
            SyscallError::new("fsmount", "", Errno::EPERM).to_string(),
            "fsmount: operation not permitted"
        );
    }

    #[test]
    fn texts_are_those_that_callers_match() {
        for (errno, text) in [
            (Errno::ENOENT, "no such file or directory"),
            (Errno::ESRCH, "no such process"),
            (Errno::EACCES, "permission denied"),
            (Errno::EPERM, "operation not permitted"),
            (Errno::EINVAL, "invalid argument"),
            (Errno::EBUSY, "device or resource busy"),
            (Errno::ENOEXEC, "exec format error"),
            (Errno::EEXIST, "file exists"),
            (Errno::ENOTDIR, "not a directory"),
            (Errno::ENOSPC, "no space left on device"),
            (Errno::ENODEV, "no such device"),
            (Errno::ENXIO, "no such device or address"),
            (Errno::ELOOP, "too many levels of symbolic links"),
            (Errno::EROFS, "read-only file system"),
            (Errno::EMFILE, "too many open files"),
            (Errno::EXDEV, "invalid cross-device link"),
            (Errno::ENAMETOOLONG, "file name too long"),
            (Errno::ENOSYS, "function not implemented"),
        ] {
            assert_eq!(errno_text(errno), text);
        }
    }
}
