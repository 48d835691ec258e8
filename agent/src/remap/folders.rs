//! The daemon's folders where containers' root is another user of the host: each set of ids has a data root of its own, and
//! what a container's first process has to walk through lets it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::Ids;
use crate::error::{Error, Kind, Result};

/// Makes the data root of these ids, below the one that is asked for, and lets their root go through both and through the exec
/// root: by the group, so that nobody else on the host gets at setuid files of containers (CVE-2021-41091).
///
/// # Errors
/// The disk; a folder above that others may not go through.
pub(crate) fn open_to_root(data_root: &Path, exec_root: &Path, ids: &Ids) -> Result<PathBuf> {
    let own = own_root(data_root, ids);
    match DirBuilder::new().mode(0o710).create(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::internal(
                format_args!("Cannot create daemon root: {}", own.display()),
                &error,
            ));
        }
        _ => {}
    }
    for folder in [data_root, &own, exec_root] {
        pass(folder, ids).map_err(|error| {
            Error::internal(format_args!("changing the owner of {}", folder.display()), &error)
        })?;
    }
    for folder in [&own, exec_root] {
        if let Some(closed) = closed_above(folder, ids) {
            return Err(Error::new(
                Kind::Internal,
                format!(
                    "a subdirectory in your graphroot path ({}) restricts access to the remapped root uid/gid; please fix by \
                     allowing 'o+x' permissions on existing directories: {}",
                    folder.display(),
                    closed.display()
                ),
            ));
        }
    }
    Ok(own)
}

/// Where the state of these ids is.
pub(crate) fn own_root(data_root: &Path, ids: &Ids) -> PathBuf {
    let (user, group) = ids.root();
    if ids.are_mapped() { data_root.join(format!("{user}.{group}")) } else { data_root.to_owned() }
}

/// Lets a container's root go through a folder of the daemon's.
///
/// # Errors
/// The disk.
pub(crate) fn pass(folder: &Path, ids: &Ids) -> io::Result<()> {
    if !ids.are_mapped() {
        return Ok(());
    }
    lchown(folder, None, Some(ids.root().1))?;
    fs::set_permissions(folder, Permissions::from_mode(0o710))
}

/// The folder above that root can't go through.
fn closed_above<'a>(folder: &'a Path, ids: &Ids) -> Option<&'a Path> {
    let (user, group) = ids.root();
    folder.ancestors().skip(1).find(|above| {
        fs::metadata(above).is_ok_and(|about| {
            let mode = about.mode();
            let may = |bit: u32, is_own: bool| is_own && mode & bit != 0;
            !(may(0o001, true) || may(0o010, about.gid() == group) || may(0o100, about.uid() == user))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{Folder, is_root};

    #[test]
    fn a_data_root_of_its_own() {
        if !is_root("changing owners needs") {
            return;
        }
        let scratch = Folder::new("remap");
        let (data, exec) = (scratch.path().join("d"), scratch.path().join("e"));
        for folder in [&data, &exec] {
            DirBuilder::new().mode(0o700).create(folder).unwrap();
        }
        let ids = Ids::new(&[(7000, 10)], &[(8000, 10)]).unwrap();
        let own = open_to_root(&data, &exec, &ids).unwrap();
        assert_eq!(own, data.join("7000.8000"));
        for folder in [&data, &own, &exec] {
            let about = fs::metadata(folder).unwrap();
            assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 8000, 0o710));
        }
        assert_eq!(open_to_root(&data, &exec, &ids).unwrap(), own);
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o700)).unwrap();
        let text = open_to_root(&data, &exec, &ids).unwrap_err().message;
        assert!(text.contains("restricts access to the remapped root uid/gid"), "{text}");
    }
}
