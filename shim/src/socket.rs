//! The shim's socket: its name, which containerd's shims all make alike, and who may have it.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use sha2::{Digest, Sha256};

use crate::error::ShimError;

/// Where sockets are when nobody says otherwise. Their paths must stay below 108 bytes.
pub(crate) const DEFAULT_FOLDER: &str = "/run/containerd/s";

/// What was found in the socket's place.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// A shim that answers.
    Alive,
    /// Nothing: the socket is ours now.
    New(UnixListener),
    /// A socket that nobody listens on: its shim died. It is ours now.
    TakenOver(UnixListener),
}

/// The path for a group of containers of one namespace of one containerd.
pub(crate) fn path(folder: &Path, containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let whose = [containerd, namespace, group].into_iter().filter(|part| !part.is_empty());
    folder.join(name_for(&whose.collect::<Vec<_>>().join("/")))
}

/// A file name for what a text says, of any length and with any characters.
pub(crate) fn name_for(whose: &str) -> String {
    let mut name = String::new();
    for byte in Sha256::digest(whose.as_bytes()) {
        let _infallible = write!(name, "{byte:02x}");
    }
    name
}

/// Takes the socket, unless a shim answers there. Starts that race for one group wait for each other on the folder: else
/// the second would unlink what the first has just bound.
///
/// # Errors
/// The folder or the socket can't be made.
pub(crate) fn claim(path: &Path) -> Result<Claimed, ShimError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(ShimError::file("make", folder))?;
    let lock = File::open(folder).map_err(ShimError::file("open", folder))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(ShimError::system("lock the sockets' folder"))?;
    match bind(path) {
        Ok(listener) => Ok(Claimed::New(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(Claimed::Alive);
            }
            std::fs::remove_file(path).map_err(ShimError::file("remove", path))?;
            bind(path).map(Claimed::TakenOver).map_err(ShimError::file("bind", path))
        }
        Err(source) => Err(ShimError::File { action: "bind", path: path.to_owned(), source }),
    }
}

/// Nobody but root may ever connect, not even between two calls.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound
}

/// Removes the socket that a dead shim has left; one that answers stays.
pub(crate) fn remove_dead(path: &Path) {
    if UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _gone = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_containerds_shims() {
        let path = path(Path::new(DEFAULT_FOLDER), "/run/containerd/containerd.sock", "default", "a");
        // printf %s /run/containerd/containerd.sock/default/a | sha256sum
        let name = "82795ca4b9b166c1139546afbf9dfd59d74776e0b49c8edfbb195f9d8b9e94a6";
        assert_eq!(path, Path::new(DEFAULT_FOLDER).join(name));
    }

    #[test]
    fn a_socket_is_claimed_once_and_again_when_its_owner_is_gone() {
        let folder = std::env::temp_dir().join(format!("ketch-shim-socket-{}", std::process::id()));
        let path = folder.join("s");
        let Claimed::New(first) = claim(&path).unwrap() else { panic!("nobody has it") };
        assert!(matches!(claim(&path).unwrap(), Claimed::Alive));
        drop(first);
        assert!(matches!(claim(&path).unwrap(), Claimed::TakenOver(_)));
        remove_dead(&path);
        assert!(!path.exists());
        std::fs::remove_dir(&folder).unwrap();
    }
}
