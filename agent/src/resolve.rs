//! openat2(2) below a descriptor, for paths that somebody else may change meanwhile. Whoever opens by a name in a container's
//! root, a volume or an image's layer does it by this.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// The kernel gives up with EAGAIN when anything at all is renamed or mounted on the machine while it resolves a `..`.
const ATTEMPTS: usize = 128;

/// Opens a path below a folder, without inheriting the descriptor; `resolve` says how far names may lead.
///
/// # Errors
/// The kernel's; EAGAIN only after many attempts.
pub(crate) fn openat2(
    folder: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    path.into_with_c_str(|path| {
        for _ in 1..ATTEMPTS {
            match rustix::fs::openat2(&folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                opened => return opened,
            }
        }
        rustix::fs::openat2(&folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    })
}
