//! The receiving end of `--console-socket` and of seccomp listeners: descriptors over a Unix socket, and a terminal's
//! master side.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::wait::DEADLINE;

/// A socket that the runtime sends descriptors to.
#[derive(Debug)]
pub struct FdSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

/// One message: its bytes and its descriptors.
#[derive(Debug)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// Kept open, since a sender may look at it.
    pub stream: UnixStream,
}

impl FdSocket {
    /// Listens at `folder/name`.
    ///
    /// # Panics
    /// When it cannot be bound.
    #[must_use]
    pub fn bind(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).expect("bind the descriptor socket");
        // The runtime's user may be another one.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("open the socket to everybody");
        Self { path, listener }
    }

    /// Waits for one connection and its message.
    ///
    /// # Panics
    /// When none comes before the deadline.
    #[must_use]
    pub fn receive(&self) -> Received {
        await_readable(&self.listener, "a connection on the descriptor socket");
        let (stream, _) = self.listener.accept().expect("accept");
        await_readable(&stream, "a message with descriptors");
        let mut bytes = vec![0; 65_536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .expect("recvmsg");
        bytes.truncate(got.bytes);
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Received { bytes, fds, stream }
    }

    /// Waits for a terminal.
    ///
    /// # Panics
    /// When the message carries no descriptor.
    #[must_use]
    pub fn terminal(&self) -> Terminal {
        let mut received = self.receive();
        let fd = received.fds.pop().expect("a descriptor in the message");
        Terminal { master: File::from(fd), seen: String::new() }
    }
}

/// The master side of a container's terminal.
#[derive(Debug)]
pub struct Terminal {
    pub master: File,
    seen: String,
}

impl Terminal {
    /// Opens a new terminal; gives its slave side too.
    ///
    /// # Panics
    /// When the machine gives none.
    #[must_use]
    pub fn open() -> (Self, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("open a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlock the terminal");
        let name = ptsname(&master, Vec::new()).expect("the terminal's name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(name.to_str().expect("a path of /dev/pts"))
            .expect("open the slave side");
        (Self { master: File::from(master), seen: String::new() }, slave.into())
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Reads until `text` has appeared; gives everything seen so far.
    ///
    /// # Panics
    /// When it does not appear before the deadline, or the terminal closes first.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &str {
        while !self.seen.contains(text) {
            assert!(readable(&self.master, DEADLINE), "no {text:?} on the terminal; seen: {:?}", self.seen);
            let mut bytes = [0; 4096];
            match self.master.read(&mut bytes) {
                Ok(count) if count > 0 => self.seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
                _ => panic!("the terminal closed before {text:?}; seen: {:?}", self.seen),
            }
        }
        &self.seen
    }
}

fn await_readable(fd: &impl std::os::fd::AsFd, what: &str) {
    assert!(readable(fd, DEADLINE), "{what}: not within {} s", DEADLINE.as_secs());
}

fn readable(fd: &impl std::os::fd::AsFd, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).expect("a timeout in seconds");
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
