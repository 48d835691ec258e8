//! A client's connection and the one to a backend that is made for it: first the header, then both directions until both have ended.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::flow::{End, Flow, Pipes, Progress};
use super::process::keep_alive;

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    /// The published port by which it came.
    pub(super) port: u16,
    pub(super) client: End,
    pub(super) stage: Stage,
    /// It has more to do at once, and waits for its turn.
    pub(super) is_busy: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The backend has not answered yet.
    Connecting(Connecting),
    Joined(Joined),
}

#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) backend: OwnedFd,
    pub(super) to: SocketAddr,
    /// It has until then.
    pub(super) until: Instant,
    /// Who is asked next.
    pub(super) others: VecDeque<SocketAddr>,
    pub(super) header: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Joined {
    pub(super) backend: End,
    pub(super) to: SocketAddr,
    up: Flow,
    down: Flow,
}

/// Begins to connect to a backend.
///
/// # Errors
/// It can't be reached, by what is known at once.
pub(super) fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    keep_alive(&socket)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// What has become of a backend that was asked.
#[derive(Debug)]
pub(super) enum Answer {
    Joined(Joined),
    /// The kernel has spoken of something else.
    NotYet(Connecting),
    Refused(Connecting, io::Error),
}

impl Connecting {
    /// What the kernel says of the backend's socket.
    pub(super) fn look(self) -> Answer {
        match self.greet() {
            Ok(true) => {
                let (up, down) = (Flow::default(), Flow::default());
                Answer::Joined(Joined { backend: End::new(self.backend), to: self.to, up, down })
            }
            Ok(false) => Answer::NotYet(self),
            Err(error) => Answer::Refused(self, error),
        }
    }

    /// A connection that is new has room for a few bytes: they go whole, or it is not well. `false`: there is none yet.
    fn greet(&self) -> io::Result<bool> {
        sockopt::socket_error(&self.backend)??;
        match rustix::net::send(&self.backend, &self.header, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == self.header.len() => Ok(true),
            Ok(_) => Err(io::Error::other("it takes no header")),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Joined {
    /// Moves what can be moved, both ways.
    ///
    /// # Errors
    /// One of the two is broken.
    pub(super) fn pump(&mut self, client: &mut End, pipes: &mut Pipes) -> io::Result<Progress> {
        let up = self.up.pump((&mut *client, &mut self.backend), pipes)?;
        let down = self.down.pump((&mut self.backend, client), pipes)?;
        Ok(match (up, down) {
            (Progress::Ended, Progress::Ended) => Progress::Ended,
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            _ => Progress::Waits,
        })
    }
}

impl Connection {
    /// Ends both sides at once.
    pub(super) fn reset(self) {
        self.client.reset();
        if let Stage::Joined(joined) = self.stage {
            joined.backend.reset();
        }
    }
}
