//! Whose the exec root is: what runs there is ended by a daemon that does not know it, so no other may ever take it for its own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Kind, Result};
use crate::random::is_id;

/// Names the daemon by its id, and is locked while one runs.
const OWNER: &str = "daemon-id";

/// Takes an exec root for the daemon of this id, for as long as the file that this gives is open.
///
/// # Errors
/// Another daemon runs with it; or one of another data root has left containers in it.
pub(crate) fn claim(exec_root: &Path, id: &str) -> Result<File> {
    let path = exec_root.join(OWNER);
    let failed = |error: std::io::Error| Error::internal(format_args!("claiming {}", path.display()), &error);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        refused(format!(
            "another ketchd runs with the exec root {}: give this one its own by --exec-root",
            exec_root.display()
        ))
    })?;
    let mut owner = String::new();
    let _length = Read::by_ref(&mut file).take(256).read_to_string(&mut owner).map_err(failed)?;
    if owner == id {
        return Ok(file);
    }
    if !owner.is_empty() && has_bundles(exec_root).map_err(failed)? {
        return Err(refused(format!(
            "the exec root {} has containers of a ketchd with another data root (its id is {owner}, this one's {id}): give this one \
             its own by --exec-root, or its data root by --data-root; if that daemon is gone for good, end its containers and remove \
             {}",
            exec_root.display(),
            path.display()
        )));
    }
    // Over the one of before, which is never gone in between: an empty one would let any daemon take the containers over.
    file.rewind()
        .and_then(|()| file.write_all(id.as_bytes()))
        .and_then(|()| file.set_len(id.len() as u64))
        .map_err(failed)?;
    Ok(file)
}

fn refused(message: String) -> Error {
    Error::new(Kind::Conflict, message)
}

/// Whether there is a folder of a container.
fn has_bundles(exec_root: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(exec_root)? {
        let name = entry?.file_name();
        if is_id(&name.to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn one_daemon_at_a_time_and_never_over_anothers_containers() {
        let scratch = Folder::new("exec-root");
        let root = scratch.path();
        let first = claim(root, "one").unwrap();
        assert!(
            claim(root, "two").unwrap_err().message.starts_with("another ketchd runs with the exec root ")
        );
        drop(first);
        drop(claim(root, "one").unwrap());
        // Nothing of it is left: the root is free.
        drop(claim(root, "two").unwrap());
        fs::DirBuilder::new().create(root.join("a".repeat(64))).unwrap();
        drop(claim(root, "two").unwrap());
        let refused = claim(root, "one").unwrap_err().message;
        assert!(
            refused.contains("its id is two, this one's one") && refused.contains("--exec-root"),
            "{refused}"
        );
        drop(claim(root, "two").unwrap());
    }
}
