//! Opening files on the host by path: open(2). Nothing here may be used inside a rootfs.
//!
//! Least kernel: any.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens `path` to append, made with mode 0644 when it is not there; every write is on disk when it returns, so that the
/// last words of a runtime that is killed are not lost.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(libc::O_SYNC).open(path)
}
