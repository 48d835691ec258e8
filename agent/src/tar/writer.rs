//! [`Writer`]: an archive, member by member.

use std::io::{Error, ErrorKind, Result, Write};

use super::header::{self, Field};
use super::{BLOCK, Entry, Kind, pax};

/// Writes members to a stream. After [`Writer::append`] exactly the entry's size of data is to be written to it.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// At an archive's beginning.
    pub fn new(inner: W) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Begins a member. What does not fit into a ustar header goes into PAX records in front of it.
    ///
    /// # Errors
    /// The stream's; and the member before this one is not complete.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        self.complete()?;
        let mut records = Vec::new();
        let mut block = fields(entry, &mut records);
        for (name, value) in &entry.xattrs {
            records.extend(pax::record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value));
        }
        if !records.is_empty() {
            let about = Entry {
                path: b"PaxHeaders.0/records".to_vec(),
                mode: 0o644,
                size: records.len() as u64,
                ..Entry::default()
            };
            let mut front = fields(&about, &mut Vec::new());
            front[header::TYPE] = b'x';
            self.inner.write_all(&summed(front))?;
            self.inner.write_all(&records)?;
            self.inner.write_all(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        block[header::TYPE] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.inner.write_all(&summed(block))?;
        self.left = entry.size;
        self.padding = padding(entry.size);
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn finish(mut self) -> Result<W> {
        self.complete()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn complete(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "a file became shorter while it was archived"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.inner.write_all(&[0; BLOCK][..padding])
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if most == 0 && !bytes.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "more data than the member has"));
        }
        let count = self.inner.write(&bytes[..most])?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or_default()
}

fn fields(entry: &Entry, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    name(&mut block, header::NAME, &entry.path, "path", records);
    name(&mut block, header::LINK, &entry.link, "linkpath", records);
    octal(&mut block, header::MODE, u64::from(entry.mode & 0o7777));
    for (field, key, value) in [
        (header::UID, "uid", u64::from(entry.uid)),
        (header::GID, "gid", u64::from(entry.gid)),
        (header::SIZE, "size", entry.size),
    ] {
        if !octal(&mut block, field, value) {
            records.extend(pax::record(key.as_bytes(), value.to_string().as_bytes()));
        }
    }
    let seconds = u64::try_from(entry.seconds);
    if entry.nanoseconds > 0 || !seconds.is_ok_and(|seconds| octal(&mut block, header::MTIME, seconds)) {
        let text = match (entry.seconds, entry.nanoseconds) {
            (seconds, 0) => seconds.to_string(),
            // -2 and half a second is written as -1.5.
            (seconds @ ..0, past) => {
                let whole = (seconds + 1).unsigned_abs();
                format!("-{whole}.{:09}", 1_000_000_000 - past)
            }
            (seconds, past) => format!("{seconds}.{past:09}"),
        };
        records.extend(pax::record(b"mtime", text.as_bytes()));
    }
    block[header::MAGIC].copy_from_slice(b"ustar\x0000");
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        octal(&mut block, header::MAJOR, u64::from(entry.device.0));
        octal(&mut block, header::MINOR, u64::from(entry.device.1));
    }
    block
}

fn name(block: &mut [u8; BLOCK], field: Field, value: &[u8], key: &str, records: &mut Vec<u8>) {
    let room = field.len();
    let most = value.len().min(room);
    block[field][..most].copy_from_slice(&value[..most]);
    if value.len() > room {
        records.extend(pax::record(key.as_bytes(), value));
    }
}

/// Whether the number fits; the field is 0 otherwise.
fn octal(block: &mut [u8; BLOCK], field: Field, value: u64) -> bool {
    let digits = field.len() - 1;
    let fits = value >> (3 * digits) == 0;
    let text = format!("{:0digits$o}\0", if fits { value } else { 0 });
    block[field].copy_from_slice(text.as_bytes());
    fits
}

fn summed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[header::CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::tar::Reader;

    fn round_trip(entry: &Entry, data: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.append(entry).unwrap();
        writer.write_all(data).unwrap();
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut reader = Reader::new(archive.as_slice());
        let read = reader.next_entry().unwrap().unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(reader.next_entry().unwrap().is_none());
        (read, bytes)
    }

    #[test]
    fn entries_are_read_as_written() {
        for (seconds, nanoseconds) in
            [(0, 0), (1_700_000_000, 0), (1_700_000_000, 500), (-2, 500_000_000), (-7, 0), (10, 0)]
        {
            let entry = Entry {
                path: vec![b'n'; 300],
                link: vec![b'l'; 200],
                mode: 0o4755,
                uid: 3_000_000,
                gid: 7,
                seconds,
                nanoseconds,
                size: 3,
                xattrs: vec![(b"user.a".to_vec(), b"\0\xff".to_vec())],
                ..Entry::default()
            };
            assert_eq!(round_trip(&entry, b"abc"), (entry, b"abc".to_vec()));
        }
        let device = Entry { path: b"d".to_vec(), kind: Kind::Char, device: (5, 1), ..Entry::default() };
        assert_eq!(round_trip(&device, b""), (device, vec![]));
    }

    #[test]
    fn data_is_as_long_as_said() {
        let mut writer = Writer::new(Vec::new());
        writer.append(&Entry { size: 2, ..Entry::default() }).unwrap();
        assert!(writer.write_all(b"abc").is_err());
        writer.append(&Entry { size: 2, ..Entry::default() }).unwrap();
        assert!(writer.finish().is_err());
    }
}
