//! The folder below every container's layers: what the runtime mounts upon, and what programs look for. It is where the image
//! has none of its own; as it is below, nothing of it is a change that the container has made.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use crate::remap::Ids;

const FOLDERS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
/// By the first, programs see that they are in a container.
const FILES: [&str; 5] = [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
const LINKS: [(&str, &str); 1] = [("etc/mtab", "/proc/mounts")];

/// Makes it, or what is missing of it; it belongs to containers' root.
///
/// # Errors
/// The disk.
pub(super) fn lay(ground: &Path, ids: &Ids) -> io::Result<()> {
    let mut folders = DirBuilder::new();
    let folders = folders.recursive(true).mode(0o755);
    folders.create(ground)?;
    for folder in FOLDERS {
        folders.create(ground.join(folder))?;
    }
    for file in FILES {
        let mut options = OpenOptions::new();
        let _file = options.write(true).create(true).truncate(false).mode(0o755).open(ground.join(file))?;
    }
    for (link, target) in LINKS {
        match symlink(target, ground.join(link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // Whatever the daemon's umask is.
    for path in [""].iter().chain(&FOLDERS).chain(&FILES) {
        fs::set_permissions(ground.join(path), fs::Permissions::from_mode(0o755))?;
        ids.give(&ground.join(path))?;
    }
    for (link, _) in LINKS {
        ids.give(&ground.join(link))?;
    }
    Ok(())
}
