//! What is written once and read seldom goes past the page cache: a pull of gigabytes neither takes the memory of what runs nor
//! waits for memory to be found, and is on the disk when it is done. Where the file system knows no such writes, and where the
//! disk is slower than what comes, it is written as ever.
//!
//! Called by `layers` for blobs, and by `unpack` for large files.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};

/// What a file system may ask addresses, offsets and lengths to be a multiple of, in bytes.
const ALIGNED: usize = 4096;
/// Written at once, in bytes.
pub(super) const BUFFER: usize = 512 << 10;
/// Files of fewer bytes are not worth it.
pub(super) const LARGE: u64 = 256 << 10;
/// After so many bytes the disk is judged.
const TRIAL: u64 = 16 << 20;
/// In bytes for each second: half of what one processor inflates; several are written at once.
const SLOW: u64 = 100 << 20;

/// A place in memory that such writes are made from, and how the disk does.
#[derive(Debug)]
pub(super) struct Direct {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
    /// For the present file.
    on: bool,
    refused: bool,
    written: u64,
    waited: Duration,
}

impl Direct {
    pub(super) fn new() -> Self {
        let memory = vec![0; BUFFER + ALIGNED];
        let start = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self { memory, start, filled: 0, on: false, refused: false, written: 0, waited: Duration::ZERO }
    }

    /// Where the next bytes go; it is never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.start + self.filled..self.start + BUFFER]
    }

    /// So many are there now; a full place is written.
    pub(super) fn fill(&mut self, count: usize, file: &mut File) -> io::Result<()> {
        self.filled += count;
        if self.filled == BUFFER { self.write(file) } else { Ok(()) }
    }

    /// Has a new file's writes go past the page cache, if they may.
    pub(super) fn begin(&mut self, file: &File) {
        if !self.refused && !self.is_slow() {
            self.on = set(file, true).is_ok();
            self.refused = !self.on;
        }
    }

    /// Writes what is left of it: only whole blocks may go past the cache.
    pub(super) fn end(&mut self, file: &mut File) -> io::Result<()> {
        let odd = self.filled % ALIGNED;
        self.filled -= odd;
        let at = self.start + self.filled;
        self.write(file)?;
        self.stop(file)?;
        file.write_all(&self.memory[at..at + odd])
    }

    fn write(&mut self, file: &mut File) -> io::Result<()> {
        let since = Instant::now();
        let mut left = self.start..self.start + std::mem::take(&mut self.filled);
        let direct = if self.on { left.len() as u64 } else { 0 };
        while !left.is_empty() {
            match file.write(&self.memory[left.clone()]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left.start += count,
                // It was granted, and is not done; or the disk's blocks are larger.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.on => {
                    self.refused = true;
                    self.stop(file)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if direct > 0 {
            self.written += direct;
            self.waited += since.elapsed();
        }
        if self.is_slow() { self.stop(file) } else { Ok(()) }
    }

    fn stop(&mut self, file: &File) -> io::Result<()> {
        if std::mem::take(&mut self.on) { set(file, false) } else { Ok(()) }
    }

    fn is_slow(&self) -> bool {
        let second = 1_000_000;
        self.written >= TRIAL
            && u128::from(self.written) * second < u128::from(SLOW) * self.waited.as_micros()
    }
}

/// Turns it on or off; new files have no other flag that this could change.
fn set(file: &File, on: bool) -> io::Result<()> {
    Ok(fcntl_setfl(file, if on { OFlags::DIRECT } else { OFlags::empty() })?)
}

/// A whole file that is written so. It is complete once it is flushed.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    direct: Direct,
    passed: u64,
}

impl DirectFile {
    /// A new file, that is to have so many bytes.
    pub(super) fn new(file: File, size: u64) -> Self {
        let mut direct = Direct::new();
        if size >= LARGE {
            direct.begin(&file);
        }
        Self { file, direct, passed: 0 }
    }

    /// As many bytes can be read from the file.
    pub(super) fn readable(&self) -> u64 {
        self.passed - self.direct.filled as u64
    }
}

impl Write for DirectFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.direct.room();
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.passed += count as u64;
        self.direct.fill(count, &mut self.file)?;
        Ok(count)
    }

    /// To be called at the end: what is written behind it goes through the cache.
    fn flush(&mut self) -> io::Result<()> {
        self.direct.end(&mut self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn files_are_whole_whatever_their_length() {
        let folder = Folder::new("direct");
        for size in [0, 1, ALIGNED, BUFFER - 1, BUFFER, BUFFER + ALIGNED, 3 * BUFFER + 4097] {
            let whole: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let path = folder.path().join(size.to_string());
            let mut file = DirectFile::new(File::create(&path).unwrap(), LARGE);
            for piece in whole.chunks(70_000) {
                file.write_all(piece).unwrap();
            }
            file.flush().unwrap();
            // Flushed again nothing more comes.
            file.flush().unwrap();
            assert!(std::fs::read(&path).unwrap() == whole, "{size}");
        }
    }

    #[test]
    fn a_slow_disk_is_not_waited_for() {
        let folder = Folder::new("direct-slow");
        let mut file = File::create(folder.path().join("f")).unwrap();
        let mut direct = Direct { written: TRIAL, waited: Duration::from_secs(1), ..Direct::new() };
        assert!(direct.is_slow());
        direct.begin(&file);
        assert!(!direct.on);
        direct.fill(BUFFER, &mut file).unwrap();
        direct.end(&mut file).unwrap();
        assert_eq!(file.metadata().unwrap().len(), BUFFER as u64);
        let fast = Direct { written: TRIAL, waited: Duration::from_millis(20), ..Direct::new() };
        assert!(!fast.is_slow());
    }
}
