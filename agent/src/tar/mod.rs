//! The tar format: read from and written to streams; nothing is unpacked here, and nothing is believed.
//!
//! [`Reader`] understands ustar, GNU (long names, base-256 numbers, sparse files) and PAX (long names, large numbers,
//! attributes, sparse files of all three versions); [`Writer`] writes ustar, with PAX where that is too small. Used by
//! `image` for layers and archives of images, and by whoever copies files to and from containers.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

use rustix::fs::{FileType, makedev};

pub use reader::Reader;
pub use writer::Writer;

/// What an archive is made of, in bytes.
pub const BLOCK: usize = 512;

/// One member of an archive. Names are bytes, as the archive has them: neither cleaned nor safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky; never a type.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed: seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// How many bytes of data follow it in the archive.
    pub size: u64,
    /// What a link points to.
    pub link: Vec<u8>,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes, if there are holes between.
    pub sparse: Option<Sparse>,
}

impl Entry {
    /// What mknod(2) is asked for: of a device its kind and number, of anything else a fifo.
    #[must_use]
    pub fn node(&self) -> (FileType, u64) {
        let number = makedev(self.device.0, self.device.1);
        match self.kind {
            Kind::Char => (FileType::CharacterDevice, number),
            Kind::Block => (FileType::BlockDevice, number),
            _ => (FileType::Fifo, 0),
        }
    }
}

/// A file's data with holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// How long the file is.
    pub real_size: u64,
    /// Offset and length of each piece, in order, without overlap; the lengths sum up to the entry's size.
    pub pieces: Vec<(u64, u64)>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    #[default]
    File,
    /// Another name for a file before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}
