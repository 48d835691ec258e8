//! What the cache knows a file by: a sum of its name, mode, owner, attributes and content; never of its times. The same sums
//! as the classic builder has them, which are in the history of images.

use std::collections::HashMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::tar::{Entry, Kind};

/// By clean name.
pub(super) type Sums = HashMap<Vec<u8>, String>;

/// Of one file, while it is read.
#[derive(Debug)]
pub(super) struct FileSum(Sha256);

impl FileSum {
    /// Of what an archive says of it; a folder's name ends with a slash.
    pub(super) fn begin(entry: &Entry) -> Self {
        let mut sum = Sha256::new();
        let letter = match entry.kind {
            Kind::File => "0",
            Kind::HardLink => "1",
            Kind::Symlink => "2",
            Kind::Char => "3",
            Kind::Block => "4",
            Kind::Directory => "5",
            Kind::Fifo => "6",
        };
        let size = entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_size);
        let text = |value: u64| value.to_string().into_bytes();
        for (key, value) in [
            ("name", entry.path.clone()),
            ("mode", text((entry.mode & 0o7777).into())),
            ("uid", text(entry.uid.into())),
            ("gid", text(entry.gid.into())),
            ("size", text(size)),
            ("typeflag", letter.as_bytes().to_vec()),
            ("linkname", entry.link.clone()),
            ("uname", Vec::new()),
            ("gname", Vec::new()),
            ("devmajor", text(entry.device.0.into())),
            ("devminor", text(entry.device.1.into())),
        ] {
            sum.update(key.as_bytes());
            sum.update(&value);
        }
        let mut attributes: Vec<_> = entry.xattrs.iter().collect();
        attributes.sort();
        for (name, value) in attributes {
            sum.update(name);
            sum.update(value);
        }
        Self(sum)
    }

    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// With the file's content.
    pub(super) fn of_content(mut self, mut content: impl Read) -> io::Result<String> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(self.finish()),
                Ok(count) => self.pass(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Several as one: `dir:`, `multi:`.
pub(super) fn of_all(kind: &str, sums: &[String]) -> String {
    let sum = Sha256::digest(sums.join(",").as_bytes());
    let digits: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}:{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_classic_builders() {
        let content = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n";
        let entry = Entry {
            path: b"etc/passwd".to_vec(),
            mode: 0o644,
            size: content.len() as u64,
            ..Entry::default()
        };
        let sum = FileSum::begin(&entry).of_content(content.as_slice()).unwrap();
        assert_eq!(sum, "d9ba768c34e7bbd92036a4a15561041a9944b757f45c8b90143b8e89beeb114e");
    }
}
