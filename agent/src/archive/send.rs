//! [`send`]: what is at a path, as a tar.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, OFlags, fstat, statat};

use super::View;
use super::look::base;
use crate::image::pack::{Found, Packer, Walk};

/// Writes a file, a link as it is, or a folder with all that is in it. Names begin with the path's last component; that of the
/// root is nothing.
///
/// # Errors
/// The stream's, and the disk's; it is not there any more.
pub fn send<W: Write>(view: &View, path: &str, is_folder: bool, stream: W) -> io::Result<W> {
    // Of attributes capabilities only, as dockerd: what writes the files elsewhere may not know others.
    let mut packer = Packer::new(stream, |name| name == b"security.capability");
    let name = base(path);
    if !is_folder {
        let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        let parent = view.look_up(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let about = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let found = Found { path: name.as_bytes().to_vec(), about, parent };
        let _entry = packer.add(&found, name.as_bytes().to_vec())?;
        return packer.finish();
    }
    let folder = view.look_up(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let first = if name == "/" { "" } else { name }.as_bytes();
    let own = Found { path: b".".to_vec(), about: fstat(&folder)?, parent: folder.try_clone()? };
    let _entry = packer.add(&own, first.to_vec())?;
    let mut walk = Walk::new(&folder)?;
    while let Some(found) = walk.next()? {
        let name = [first, b"/", found.path.as_slice()].concat();
        if let Err(error) = packer.add(&found, name) {
            let shown = std::ffi::OsStr::from_bytes(&found.path);
            return Err(io::Error::new(error.kind(), format!("{}: {error}", shown.display())));
        }
    }
    packer.finish()
}
