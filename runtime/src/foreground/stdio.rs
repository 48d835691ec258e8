//! The two ends of a process's standard streams: what it is started with, and what the runtime keeps.
//!
//! Also the descriptors that callers hand through (`--preserve-fds`, socket activation). Owns the rules about terminals
//! and console sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ketch_sys::socket::{self, SocketKind};
use ketch_sys::{Errno, SyscallError, path, stream};

use super::{ForegroundError, HostTerminal, Stdio};
use crate::compat;
use crate::init::ProcessIo;

/// The first descriptor behind the standard ones.
const FIRST_EXTRA: i32 = 3;

/// Whether the runtime stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// Until the process ends, passing everything on.
    Attached,
    /// It leaves, and the process keeps the caller's streams or sends its terminal to the console socket.
    Detached,
}

/// How a process is to be connected.
#[derive(Debug)]
pub struct Connection<'a> {
    /// Whether the runtime stays.
    pub attachment: Attachment,
    /// The process gets a terminal.
    pub terminal: bool,
    /// Where the terminal's master is sent.
    pub console_socket: Option<&'a Path>,
    /// Where a pidfd of the process is sent.
    pub pidfd_socket: Option<&'a Path>,
    /// Sockets of an activation, from descriptor 3 on.
    pub listen_fds: u32,
    /// Further descriptors behind those.
    pub preserve_fds: u32,
    /// User and group of the container's root on the host, who owns the pipes.
    pub owner: (u32, u32),
}

/// A process could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// A detached terminal needs somebody to take it.
    #[error("{}", compat::TERMINAL_WITHOUT_SOCKET)]
    TerminalWithoutSocket,
    /// A console socket is for a detached terminal only.
    #[error("{}", compat::SOCKET_WITHOUT_TERMINAL)]
    SocketWithoutTerminal,
    /// A socket of the activation is not there.
    #[error("unable to stat socket-activation fd {number} (of {count}): no such file or directory")]
    NotActivated {
        /// Counted from 0.
        number: u32,
        /// `LISTEN_FDS`.
        count: u32,
    },
    /// A descriptor to be preserved is not there.
    #[error("unable to stat preserved-fd {number} (of {count}): no such file or directory")]
    NotPreserved {
        /// Counted from 0.
        number: u32,
        /// How many were asked for.
        count: u32,
    },
    /// A socket of the caller could not be reached.
    #[error("dial unix {path}: {}", ketch_sys::error::errno_text(source.errno), path = path.display())]
    Connect {
        /// The socket.
        path: std::path::PathBuf,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// Pipes or sockets could not be made.
    #[error("make the process's streams")]
    Make(#[source] io::Error),
    /// The caller's terminal.
    #[error(transparent)]
    Foreground(#[from] ForegroundError),
}

/// What the runtime keeps of the process's streams.
#[derive(Debug)]
pub enum HostEnd {
    /// Nothing.
    Inherited,
    /// Three pipes.
    Pipes {
        /// To be written.
        stdin: OwnedFd,
        /// To be read.
        stdout: OwnedFd,
        /// To be read.
        stderr: OwnedFd,
    },
    /// A socket on which the terminal's master comes, to be shown on the caller's terminal.
    Console {
        /// The socket.
        socket: OwnedFd,
        /// The caller's terminal.
        host: HostTerminal,
    },
}

impl Connection<'_> {
    /// Makes both ends.
    ///
    /// # Errors
    /// The flags contradict each other, or the kernel refuses.
    pub fn make(&self) -> Result<(ProcessIo, HostEnd), ConnectionError> {
        let detached = self.attachment == Attachment::Detached;
        let console_socket = self.console_socket.filter(|path| !path.as_os_str().is_empty());
        if detached && self.terminal && console_socket.is_none() {
            return Err(ConnectionError::TerminalWithoutSocket);
        }
        if (!detached || !self.terminal) && console_socket.is_some() {
            return Err(ConnectionError::SocketWithoutTerminal);
        }
        let mut io = ProcessIo { preserved_fds: self.check_preserved()?, ..ProcessIo::default() };
        let host = match console_socket {
            Some(path) => {
                io.console_socket = Some(connect(path)?);
                HostEnd::Inherited
            }
            None if self.terminal => {
                let host = HostTerminal::find()?;
                let (ours, theirs) = socket::pair(SocketKind::Stream).map_err(made)?;
                io.console_socket = Some(theirs);
                io.shown = Some(host.shown());
                HostEnd::Console { socket: ours, host }
            }
            None if detached => HostEnd::Inherited,
            None => {
                let (theirs, host) = self.pipes().map_err(ConnectionError::Make)?;
                io.streams = Some(theirs);
                host
            }
        };
        if let Some(path) = self.pidfd_socket.filter(|path| !path.as_os_str().is_empty()) {
            io.pidfd_socket = Some(connect(path)?);
        }
        Ok((io, host))
    }

    /// All of them must be there: a free number would be taken by one of the runtime's own, which the process would then
    /// get. No count is too large for this, as the first that is missing ends it.
    fn check_preserved(&self) -> Result<u32, ConnectionError> {
        let missing = |first: Option<i32>, count: u32| {
            let is_there = |number| {
                first.and_then(|first| first.checked_add_unsigned(number)).is_some_and(stream::is_inherited)
            };
            (0..count).find(|number| !is_there(*number))
        };
        if let Some(number) = missing(Some(FIRST_EXTRA), self.listen_fds) {
            return Err(ConnectionError::NotActivated { number, count: self.listen_fds });
        }
        let not_preserved = |number| ConnectionError::NotPreserved { number, count: self.preserve_fds };
        match missing(FIRST_EXTRA.checked_add_unsigned(self.listen_fds), self.preserve_fds) {
            Some(number) => Err(not_preserved(number)),
            None => self.listen_fds.checked_add(self.preserve_fds).ok_or_else(|| not_preserved(0)),
        }
    }

    /// Three pipes that belong to the container's root, so that it can open `/dev/stdout` again.
    fn pipes(&self) -> io::Result<([OwnedFd; 3], HostEnd)> {
        let (stdin, our_stdin) = io::pipe()?;
        let (our_stdout, stdout) = io::pipe()?;
        let (our_stderr, stderr) = io::pipe()?;
        let theirs = [OwnedFd::from(stdin), OwnedFd::from(stdout), OwnedFd::from(stderr)];
        if self.owner != (0, 0) {
            for pipe in &theirs {
                match path::change_owner(pipe.as_fd(), self.owner.0, self.owner.1) {
                    // A user can't give its files away; the pipes work, and only can't be opened again by name.
                    Err(error) if error.errno == Errno::EPERM => {}
                    other => other?,
                }
            }
        }
        let host =
            HostEnd::Pipes { stdin: our_stdin.into(), stdout: our_stdout.into(), stderr: our_stderr.into() };
        Ok((theirs, host))
    }
}

impl HostEnd {
    /// The runtime's streams, once the process exists (a terminal's master has been sent then).
    ///
    /// # Errors
    /// No master came, or it is no terminal.
    pub fn open(self) -> Result<Stdio, ForegroundError> {
        match self {
            Self::Inherited => Ok(Stdio::Inherited),
            Self::Pipes { stdin, stdout, stderr } => Ok(Stdio::Pipes { stdin, stdout, stderr }),
            Self::Console { socket, host } => {
                // The terminal's name comes along; it is nobody's business here.
                let mut name = [0; 4096];
                let (_, mut fds) = socket::receive(&socket, &mut name).map_err(ForegroundError::Terminal)?;
                let master = fds.pop().ok_or(ForegroundError::NoTerminal)?;
                Ok(Stdio::Terminal { master, host })
            }
        }
    }
}

fn connect(path: &Path) -> Result<OwnedFd, ConnectionError> {
    socket::connect_unix(SocketKind::Stream, path)
        .map_err(|source| ConnectionError::Connect { path: path.to_owned(), source })
}

fn made(error: SyscallError) -> ConnectionError {
    ConnectionError::Make(error.into())
}

/// How many sockets of an activation were handed to this very process (sd_listen_fds(3)): `LISTEN_FDS`, if `LISTEN_PID`
/// names it.
#[must_use]
pub fn activation_sockets() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
    if number("LISTEN_PID") != Some(ketch_sys::process::own_pid().into()) {
        return 0;
    }
    // A number that is too large is not none at all: it is found to be wrong when the descriptors are looked for.
    number("LISTEN_FDS").map_or(0, |count| u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(attachment: Attachment, terminal: bool, socket: Option<&Path>) -> Connection<'_> {
        Connection {
            attachment,
            terminal,
            console_socket: socket,
            pidfd_socket: None,
            listen_fds: 0,
            preserve_fds: 0,
            owner: (0, 0),
        }
    }

    #[test]
    fn terminals_and_console_sockets_must_fit() {
        let socket = Some(Path::new("/no/such/socket"));
        let error = connection(Attachment::Detached, true, None).make().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot allocate tty if runc will detach without setting console socket"
        );
        for (attachment, terminal) in
            [(Attachment::Attached, true), (Attachment::Attached, false), (Attachment::Detached, false)]
        {
            let error = connection(attachment, terminal, socket).make().unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot use console socket if runc will not detach or allocate tty"
            );
        }
        let error = connection(Attachment::Detached, true, socket).make().unwrap_err();
        assert_eq!(error.to_string(), "dial unix /no/such/socket: no such file or directory");
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_not_preserved() {
        let mut connection = connection(Attachment::Detached, false, None);
        // Whoever runs the tests may hand over a descriptor or two, hence any number.
        for count in [1_000_000, u32::MAX] {
            connection.preserve_fds = count;
            let text = connection.make().unwrap_err().to_string();
            assert!(text.starts_with("unable to stat preserved-fd "), "{text}");
            assert!(text.ends_with(&format!(" (of {count}): no such file or directory")), "{text}");
        }
        connection.listen_fds = u32::MAX;
        let text = connection.make().unwrap_err().to_string();
        assert!(text.starts_with("unable to stat socket-activation fd "), "{text}");
    }

    #[test]
    fn an_attached_process_gets_pipes() {
        let (io, host) = connection(Attachment::Attached, false, None).make().unwrap();
        assert!(io.streams.is_some() && matches!(host, HostEnd::Pipes { .. }));
        let (io, host) = connection(Attachment::Detached, false, None).make().unwrap();
        assert!(io.streams.is_none() && matches!(host, HostEnd::Inherited));
    }
}
