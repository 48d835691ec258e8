//! [`Reader`]: an archive's members, one after the other.

use std::io::{Read, Result};

use super::header::{self, Header, malformed};
use super::pax::{self, Records};
use super::{BLOCK, Entry, Kind, sparse};

/// Reads members from a stream, which may be any bytes. Between two calls of [`Reader::next_entry`] it reads as the member's
/// data; what is not read of that is skipped.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Of the present member's data.
    left: u64,
    /// Behind that, up to the next block.
    padding: u64,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Of an archive's beginning.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, done: false }
    }

    /// What is behind the archive's end, or where reading has stopped.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next member; `None` at the end. An archive may end without its two empty blocks.
    ///
    /// # Errors
    /// The stream's, and [`std::io::ErrorKind::InvalidData`] for what is no tar.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut expected = false;
        while let Some(header) = self.header()? {
            expected = true;
            let size = header.size(header::SIZE)?;
            match header.0[header::TYPE] {
                b'x' => records = Records::parse(&self.whole(size)?)?,
                b'L' => long_name = Some(self.name(size)?),
                b'K' => long_link = Some(self.name(size)?),
                b'g' => drop(self.whole(size)?),
                _ => {
                    let mut entry = self.entry(&header, &records)?;
                    // PAX rules over GNU, and that over the header.
                    if let (None, Some(name)) = (records.text("path")?, long_name) {
                        entry.path = name;
                    }
                    if let (None, Some(link)) = (records.text("linkpath")?, long_link) {
                        entry.link = link;
                    }
                    return Ok(Some(entry));
                }
            }
        }
        if expected { Err(malformed("it ends in front of a member")) } else { Ok(None) }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        if self.done {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => {
                    self.done = true;
                    return Ok(None);
                }
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let header = Header(block);
        if header.is_zero() {
            self.done = true;
            return Ok(None);
        }
        header.check()?;
        Ok(Some(header))
    }

    fn entry(&mut self, header: &Header, records: &Records) -> Result<Entry> {
        let mut path = header.text(header::NAME);
        if header.is_posix() {
            let prefix = header.text(header::PREFIX);
            if !prefix.is_empty() {
                path = [prefix.as_slice(), &path].join(&b'/');
            }
        }
        let kind = match header.0[header::TYPE] {
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            other => return Err(malformed(&format!("a member of unknown type {other:#x}"))),
        };
        let id = |field, key| match records.number(key)? {
            Some(value) => u32::try_from(value).map_err(|_| malformed("an id out of range")),
            None => header.id(field),
        };
        let mut entry = Entry {
            kind,
            mode: u32::try_from(header::number(&header.0[header::MODE])? & 0o7777).unwrap_or_default(),
            uid: id(header::UID, "uid")?,
            gid: id(header::GID, "gid")?,
            path: records.text("path")?.map_or(path, <[u8]>::to_vec),
            link: records.text("linkpath")?.map_or_else(|| header.text(header::LINK), <[u8]>::to_vec),
            ..Entry::default()
        };
        // chown(2) takes the largest for "leave it".
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(malformed("an id out of range"));
        }
        (entry.seconds, entry.nanoseconds) = match records.time("mtime")? {
            Some(time) => time,
            None => (header::number(&header.0[header::MTIME])?, 0),
        };
        if matches!(kind, Kind::Char | Kind::Block) {
            entry.device = (header.id(header::MAJOR)?, header.id(header::MINOR)?);
        }
        for (key, value) in records.all() {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
        // Only files have data, whatever size others state.
        if kind == Kind::File {
            self.data_of(&mut entry, header, records)?;
        }
        Ok(entry)
    }

    fn data_of(&mut self, entry: &mut Entry, header: &Header, records: &Records) -> Result<()> {
        let stated = match records.number("size")? {
            Some(size) => size,
            None => header.size(header::SIZE)?,
        };
        let mut size = stated;
        if header.0[header::TYPE] == b'S' {
            entry.sparse = Some(sparse::of_gnu(header, &mut self.inner)?);
        } else if let Some((map, taken)) = sparse::of_pax(records, &mut self.inner, stated)? {
            size -= taken;
            entry.sparse = Some(map);
            if let Some(name) = records.text("GNU.sparse.name")? {
                entry.path = name.to_vec();
            }
        }
        if let Some(map) = &mut entry.sparse {
            sparse::check(map, size)?;
        }
        entry.size = size;
        self.left = size;
        self.padding = stated.next_multiple_of(BLOCK as u64).saturating_sub(stated);
        Ok(())
    }

    /// What describes the next member.
    fn whole(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > pax::LIMIT {
            return Err(malformed("a description of more than a mebibyte"));
        }
        let mut bytes = Vec::new();
        let padded = size.next_multiple_of(BLOCK as u64);
        let read = self.inner.by_ref().take(padded).read_to_end(&mut bytes)?;
        if read as u64 != padded {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(usize::try_from(size).unwrap_or_default());
        Ok(bytes)
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = self.whole(size)?;
        Ok(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
    }

    fn skip(&mut self) -> Result<()> {
        let size = self.left.checked_add(self.padding).ok_or_else(|| malformed("a size out of range"))?;
        (self.left, self.padding) = (0, 0);
        if size > 0 && std::io::copy(&mut self.inner.by_ref().take(size), &mut std::io::sink())? != size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}
