//! One direction of copying between the caller's stdio and the container's.
//!
//! Never waits: [`Relay::wait_for`] says what to poll for, [`Relay::advance`] moves what can be moved then. Between two
//! pipes bytes are spliced, else they go through a buffer. The caller's own descriptors are left blocking, as they are
//! shared with other processes: no more is written to them at once than a ready pipe surely takes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::poll::Until;
use ketch_sys::{Errno, stream};

/// What poll(2) promises of a writable pipe: PIPE_BUF.
const CERTAIN_WRITE: usize = 4096;

const SPLICE_LENGTH: usize = 64 * 1024;

const BUFFER_LENGTH: usize = 16 * 1024;

/// Copies from one descriptor to another until the first ends or the second is closed, then closes both of its own.
#[derive(Debug)]
pub(super) struct Relay {
    ends: Option<Ends>,
}

#[derive(Debug)]
struct Ends {
    from: File,
    to: File,
    how: How,
    until: Until,
}

#[derive(Debug)]
enum How {
    Splice,
    /// `bytes` from `start` on are still to be written.
    Buffer {
        bytes: Vec<u8>,
        start: usize,
    },
}

impl Relay {
    pub(super) fn new(from: OwnedFd, to: OwnedFd) -> Self {
        let how = if stream::is_pipe(&from) && stream::is_pipe(&to) { How::Splice } else { How::buffer() };
        Self { ends: Some(Ends { from: from.into(), to: to.into(), how, until: Until::Readable }) }
    }

    /// What has to be ready for the next step; `None` when everything is copied.
    pub(super) fn wait_for(&self) -> Option<(BorrowedFd<'_>, Until)> {
        let ends = self.ends.as_ref()?;
        let fd = match ends.until {
            Until::Readable => ends.from.as_fd(),
            Until::Writable => ends.to.as_fd(),
        };
        Some((fd, ends.until))
    }

    /// Takes one step; to be called when what [`Relay::wait_for`] named is ready.
    pub(super) fn advance(&mut self) {
        let Some(ends) = self.ends.as_mut() else { return };
        // Neither a read nor a write that fails has anyone to be told: the other end went away, and closing passes that
        // on (to a container as SIGPIPE, as it would be without us in between).
        if !matches!(ends.step(), Ok(Progress::Open)) {
            self.ends = None;
        }
    }

    /// Moves what there is without waiting for more: what a terminal still holds when its last process has ended.
    pub(super) fn drain(&mut self) {
        while let Some(ends) = self.ends.as_mut() {
            match ends.step() {
                Ok(Progress::Open) if ends.until == Until::Writable => {}
                Ok(Progress::Open) if ends.is_more_ready() => {}
                _ => self.ends = None,
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Ended,
}

impl How {
    fn buffer() -> Self {
        // Its memory comes with the first read.
        Self::Buffer { bytes: Vec::new(), start: 0 }
    }
}

impl Ends {
    fn step(&mut self) -> io::Result<Progress> {
        match &mut self.how {
            How::Splice => match stream::splice(&self.from, &self.to, SPLICE_LENGTH) {
                Ok(Some(0)) => return Ok(Progress::Ended),
                Ok(Some(_)) => self.until = Until::Readable,
                // Whichever of the two was just found ready, it is the other that is not.
                Ok(None) => self.until = other(self.until),
                // A pipe opened O_APPEND cannot be spliced to.
                Err(error) if error.errno == Errno::EINVAL => self.how = How::buffer(),
                Err(error) => return Err(error.into()),
            },
            How::Buffer { bytes, start } if *start == bytes.len() => {
                *start = 0;
                match stream::read(&self.from, bytes, BUFFER_LENGTH) {
                    Ok(0) => return Ok(Progress::Ended),
                    Ok(_) => self.until = Until::Writable,
                    Err(error) if error.errno == Errno::EAGAIN => {}
                    Err(error) => return Err(error.into()),
                }
            }
            How::Buffer { bytes, start } => {
                let upto = bytes.len().min(*start + CERTAIN_WRITE);
                match self.to.write(&bytes[*start..upto]) {
                    Ok(count) => *start += count,
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(error),
                }
                if *start == bytes.len() {
                    self.until = Until::Readable;
                }
            }
        }
        Ok(Progress::Open)
    }

    fn is_more_ready(&self) -> bool {
        ketch_sys::process::poll_readable(&[self.from.as_fd()], Some(std::time::Duration::ZERO))
            .is_ok_and(|ready| ready == [true])
    }
}

fn other(until: Until) -> Until {
    match until {
        Until::Readable => Until::Writable,
        Until::Writable => Until::Readable,
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn run(relay: &mut Relay) {
        while let Some(wait) = relay.wait_for() {
            assert_eq!(ketch_sys::poll::wait(&[wait]).unwrap(), [true]);
            relay.advance();
        }
    }

    #[test]
    fn pipes_are_spliced_to_the_end() {
        let ((from, mut source), (mut sink, to)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut relay = Relay::new(from.into(), to.into());
        assert!(matches!(relay.ends.as_ref().unwrap().how, How::Splice));
        source.write_all(b"one two").unwrap();
        drop(source);
        run(&mut relay);
        let mut text = String::new();
        sink.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[test]
    fn a_file_is_copied_to_the_end() {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let from = File::open("/proc/self/maps").unwrap();
        let (mut sink, to) = io::pipe().unwrap();
        let mut relay = Relay::new(from.into(), to.into());
        assert!(matches!(relay.ends.as_ref().unwrap().how, How::Buffer { .. }));
        run(&mut relay);
        let mut copied = Vec::new();
        sink.read_to_end(&mut copied).unwrap();
        assert_eq!(copied.is_empty(), text.is_empty());
    }

    #[test]
    fn a_reader_that_went_away_ends_the_copy() {
        let ((from, mut source), (sink, to)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut relay = Relay::new(from.into(), to.into());
        drop(sink);
        source.write_all(b"x").unwrap();
        run(&mut relay);
        assert!(source.write_all(b"y").is_err(), "the container's end must see it");
    }

    #[test]
    fn draining_takes_what_is_there_and_no_more() {
        let ((from, mut source), (mut sink, to)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut relay = Relay {
            ends: Some(Ends {
                from: File::from(OwnedFd::from(from)),
                to: File::from(OwnedFd::from(to)),
                how: How::buffer(),
                until: Until::Readable,
            }),
        };
        source.write_all(b"rest").unwrap();
        relay.drain();
        let mut text = String::new();
        sink.read_to_string(&mut text).unwrap();
        assert_eq!(text, "rest");
    }
}
