//! The program's environment and its path: what depends on files of the container's own root.
//!
//! Everything read here is hostile: only regular files, of bounded size, are read.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use ketch_sys::process;
use ketch_sys::{Errno, SyscallError};
use thiserror::Error;

/// Why the program can't be run. The texts are those of Go's os/exec, which callers of runc match.
#[derive(Debug, Error)]
pub enum LookupError {
    /// No directory of `$PATH` has it.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath {
        /// As configured.
        name: String,
    },
    /// The path is not there.
    #[error("exec: {name:?}")]
    Missing {
        /// As configured.
        name: String,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// It is a directory.
    #[error("exec: {name:?}: is a directory")]
    Directory {
        /// As configured.
        name: String,
    },
    /// It is there and may not be executed.
    #[error("exec: {name:?}: permission denied")]
    Denied {
        /// As configured.
        name: String,
    },
}

impl LookupError {
    /// Whether there is nothing at the path that was named.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Missing { source, .. } if source.errno == Errno::ENOENT)
    }
}

/// The path to execute for `name`, by the `PATH` in `env`.
///
/// # Errors
/// There is no such program that this user may execute.
pub fn find_program(name: &str, env: &[String]) -> Result<CString, LookupError> {
    if name.contains('/') {
        return check_program(name, name);
    }
    let path = value_of(env, "PATH").unwrap_or_default();
    let mut denied = false;
    for directory in path.split(':') {
        // An empty entry means the working directory (execvp(3)); Go's LookPath takes it as ".".
        let candidate =
            if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        match check_program(name, &candidate) {
            Ok(found) => return Ok(found),
            Err(LookupError::Denied { .. }) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(LookupError::Denied { name: name.to_owned() });
    }
    Err(LookupError::NotInPath { name: name.to_owned() })
}

fn check_program(name: &str, candidate: &str) -> Result<CString, LookupError> {
    let name = name.to_owned();
    let missing = |errno| LookupError::Missing {
        name: name.clone(),
        source: SyscallError::new("stat", candidate.to_owned(), errno),
    };
    let path = CString::new(candidate).map_err(|_| missing(Errno::EINVAL))?;
    let metadata = std::fs::metadata(candidate)
        .map_err(|error| missing(error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)))?;
    if metadata.is_dir() {
        return Err(LookupError::Directory { name });
    }
    match process::may_execute(&path) {
        Ok(()) => Ok(path),
        Err(error) if matches!(error.errno, Errno::EACCES | Errno::EPERM) => {
            Err(LookupError::Denied { name })
        }
        Err(source) => Err(LookupError::Missing { name, source }),
    }
}

fn value_of<'a>(env: &'a [String], wanted: &str) -> Option<&'a str> {
    env.iter()
        .find_map(|entry| entry.split_once('=').filter(|(name, _)| *name == wanted).map(|(_, value)| value))
}

/// `env` with `HOME` from the container's own /etc/passwd where the configuration names none.
#[must_use]
pub fn with_home(mut env: Vec<String>, uid: u32) -> Vec<String> {
    if value_of(&env, "HOME").is_none_or(str::is_empty) {
        env.retain(|entry| !entry.starts_with("HOME="));
        let passwd = read_bounded("/etc/passwd").unwrap_or_default();
        let home = home_in(&passwd, uid).unwrap_or("/");
        env.push(format!("HOME={home}"));
    }
    env
}

/// The home of `uid` in the text of passwd(5).
fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found: u32 = fields.nth(2)?.parse().ok()?;
        (found == uid).then(|| fields.nth(2)).flatten().filter(|home| !home.is_empty())
    })
}

/// A regular file's text, if it is one and not absurdly large.
fn read_bounded(path: &str) -> Option<String> {
    const LIMIT: u64 = 4 * 1024 * 1024;
    // O_NONBLOCK, so that a fifo in a hostile root can't hang the start.
    const O_NONBLOCK: i32 = 0o4000;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nu:x:1000:1000::/home/u:/bin/sh\nn:x:7:7:::\n";
        assert_eq!(home_in(passwd, 0), Some("/root"));
        assert_eq!(home_in(passwd, 1000), Some("/home/u"));
        assert_eq!(home_in(passwd, 7), None);
        assert_eq!(home_in(passwd, 5), None);
    }

    #[test]
    fn lookup_texts_are_gos() {
        let env = ["PATH=/nonexistent".to_owned()];
        let text = |name: &str| crate::error::chain(&find_program(name, &env).unwrap_err());
        assert_eq!(text("nope"), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(text("/proc/nope"), "exec: \"/proc/nope\": stat /proc/nope: no such file or directory");
        assert_eq!(text("/etc"), "exec: \"/etc\": is a directory");
        assert_eq!(text("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
        assert!(find_program("/bin/sh", &env).is_ok());
    }
}
