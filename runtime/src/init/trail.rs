//! What `--debug` tells of a start: its steps, in the words that runc's debug log has for them, as that is what people (and
//! runc's own test suite) search a log for. Told by the parent, as the child has no log.

use std::fmt::{self, Display, Formatter};

use ketch_sys::process::Pid;

use crate::log;

/// A process is about to be born in the container's namespaces. nsexec is runc's name for whoever does that.
pub(super) fn namespaces() {
    log::debug("nsexec container setup");
}

/// The CPUs of an `exec` until it is in the container's cgroup.
pub(super) fn affinity(mask: &[u8]) {
    log::debug(format_args!("nsexec: affinity: {}", Mask(mask)));
}

pub(super) fn born(pid: Pid) {
    log::debug(format_args!("child process in init(): {pid}"));
}

/// The container's first process is set up, and waits for `start`.
pub(super) fn first_is_ready() {
    log::debug("init: closing the pipe to signal completion");
}

/// That of an `exec` is.
pub(super) fn joined_is_ready() {
    log::debug("setns_init: about to exec");
}

/// Bit n of byte n/8 for each CPU n, as one hexadecimal number.
struct Mask<'a>(&'a [u8]);

impl Display for Mask<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter().rev().skip_while(|byte| **byte == 0);
        write!(f, "{:#x}", bytes.next().unwrap_or(&0))?;
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn a_mask_is_one_number() {
        let text = |mask: &[u8]| Mask(mask).to_string();
        assert_eq!(text(&[0x3]), "0x3");
        assert_eq!(text(&[0x2, 0, 0]), "0x2");
        assert_eq!(text(&[0x01, 0x0a]), "0xa01");
        assert_eq!(text(&[]), "0x0");
    }
}
