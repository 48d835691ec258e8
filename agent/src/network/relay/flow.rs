//! One direction of a connection: bytes go from one socket to the other through a pipe, and never through this process (splice(2)).
//! A direction has a pipe only while bytes are in it, so that one which rests costs its sockets alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags};

/// As much is moved at once, and as much is on its way at most.
const CHUNK: usize = 256 << 10;
/// Then it is others' turn.
const ROUNDS: usize = 8;
/// So many pipes wait for the next connection that needs one.
const SPARE: usize = 64;

/// A pipe: where to read, where to write.
type Pipe = (OwnedFd, OwnedFd);

/// Those that are empty.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    fn take(&mut self) -> io::Result<Pipe> {
        if let Some(spare) = self.0.pop() {
            return Ok(spare);
        }
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // What users may have of pipes may be used up: a small one does.
        let _size = rustix::pipe::fcntl_setpipe_size(&pipe.1, CHUNK);
        Ok(pipe)
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE {
            self.0.push(pipe);
        }
    }
}

/// A socket, and what the kernel has said of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) socket: OwnedFd,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
}

impl End {
    /// Nothing is known of it: it is tried.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, is_readable: true, is_writable: true }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Closes it so that the other side learns that something has gone wrong, and nothing waits.
    pub(super) fn reset(self) {
        let _set = rustix::net::sockopt::set_socket_linger(&self.socket, Some(std::time::Duration::ZERO));
    }
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The kernel says when there is more to do.
    Waits,
    /// There may be more to do at once.
    More,
    /// The end has been passed on.
    Ended,
}

/// A direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pipe: Option<Pipe>,
    filled: usize,
    has_read_all: bool,
    has_ended: bool,
}

impl Flow {
    /// Moves what can be moved, and passes the end on when it has come: the other direction may go on.
    ///
    /// # Errors
    /// One of the two is broken.
    pub(super) fn pump(
        &mut self,
        (from, to): (&mut End, &mut End),
        pipes: &mut Pipes,
    ) -> io::Result<Progress> {
        for _ in 0..ROUNDS {
            if self.has_ended {
                return Ok(Progress::Ended);
            }
            let has_moved = self.fill(from, pipes)? | self.empty(to)?;
            if self.filled == 0 {
                self.pipe.take().into_iter().for_each(|pipe| pipes.give_back(pipe));
                if self.has_read_all {
                    pass_end_on(to)?;
                    self.has_ended = true;
                    return Ok(Progress::Ended);
                }
            }
            if !has_moved {
                return Ok(Progress::Waits);
            }
        }
        Ok(Progress::More)
    }

    /// Into an empty pipe only: that it is full is never why nothing was read.
    fn fill(&mut self, from: &mut End, pipes: &mut Pipes) -> io::Result<bool> {
        if self.filled > 0 || self.has_read_all || !from.is_readable {
            return Ok(false);
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let read = splice(from.fd(), pipe.1.as_fd(), CHUNK);
        self.pipe = Some(pipe);
        match read? {
            None => from.is_readable = false,
            Some(0) => self.has_read_all = true,
            Some(length) => self.filled = length,
        }
        Ok(from.is_readable)
    }

    fn empty(&mut self, to: &mut End) -> io::Result<bool> {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.filled > 0 && to.is_writable) else {
            return Ok(false);
        };
        match splice(pipe.0.as_fd(), to.fd(), self.filled)? {
            None => to.is_writable = false,
            Some(length) => self.filled = self.filled.saturating_sub(length),
        }
        Ok(to.is_writable)
    }
}

/// `None`: not now.
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> io::Result<Option<usize>> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        return match rustix::pipe::splice(from, None, to, None, length, flags) {
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            moved => Ok(Some(moved?)),
        };
    }
}

fn pass_end_on(to: &End) -> io::Result<()> {
    match rustix::net::shutdown(to.fd(), Shutdown::Write) {
        // It has gone already.
        Err(Errno::NOTCONN) => Ok(()),
        done => Ok(done?),
    }
}
