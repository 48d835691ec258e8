//! Network namespaces with a name: a file that the namespace is bound to, so that it lives without a process.
//!
//! A namespace is made, and entered, by a thread that ends there: no thread of the daemon's pools ever changes its own.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::LinkNameSpaceType;

use crate::blocking::on_a_thread;
use crate::error::{Error, Result};

const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// Makes a namespace at a path, or takes the one at `from`, and gives what `inside` gives, which runs in it.
pub(super) fn create<T: Send>(
    path: &Path,
    from: Option<&Path>,
    inside: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let failed = |action: &str, error: io::Error| {
        Error::internal(format_args!("{action} the network namespace {}", path.display()), &error)
    };
    File::create(path).map_err(|error| failed("making the file of", error)).map(drop)?;
    let made = on_a_thread("netns", || {
        match from {
            Some(from) => {
                let made = File::open(from).map_err(|error| failed("opening", error))?;
                rustix::thread::move_into_link_name_space(made.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| failed("entering", error.into()))?;
            }
            None => {
                #[expect(
                    deprecated,
                    reason = "unsafe for CLONE_FILES and the like only; a thread of its own has one namespace more"
                )]
                rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
                    .map_err(|error| failed("making", error.into()))?;
            }
        }
        rustix::mount::mount_bind(OF_THIS_THREAD, path).map_err(|error| failed("binding", error.into()))?;
        inside()
    });
    if made.is_err() {
        remove(path)?;
    }
    made
}

/// Runs `inside` in the namespace at a path.
pub(super) fn enter<T: Send>(path: &Path, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failed = |action: &str, error: io::Error| {
        Error::internal(format_args!("{action} the network namespace {}", path.display()), &error)
    };
    let namespace = File::open(path).map_err(|error| failed("opening", error))?;
    on_a_thread("netns", || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| failed("entering", error.into()))?;
        inside()
    })
}

/// A TCP socket of the namespace at a path, which has no address yet and never blocks.
pub(super) fn socket(path: &Path, to: IpAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    enter(path, || {
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).map_err(
            |error| Error::internal("making a socket in a container's network", &io::Error::from(error)),
        )
    })
}

/// Runs `inside` in a new namespace, which ends with it.
pub(super) fn alone<T: Send>(inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread("netns", || {
        #[expect(deprecated, reason = "unsafe for CLONE_FILES and the like only; this thread ends here")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
            .map_err(|error| Error::internal("making a network namespace", &io::Error::from(error)))?;
        inside()
    })
}

/// Whether a namespace is bound to the path.
pub(super) fn is_bound(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type.cast_unsigned() == 0x6e73_6673)
}

/// Takes the name away; the namespace goes with its last process. One that is not there is well.
pub(super) fn remove(path: &Path) -> Result<()> {
    // Once for each time that it was bound: a daemon that was killed between the two steps binds it again.
    while is_bound(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|error| {
            Error::internal(format_args!("unmounting {}", path.display()), &io::Error::from(error))
        })?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::internal(format_args!("removing {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
