//! Unix sockets: socketpair(2), connect(2), setsockopt(2), sendmsg(2) and recvmsg(2) with descriptors (cmsg(3)).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Errno, SyscallError};

/// How messages keep their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// Each send is one receive.
    SeqPacket,
    /// A byte stream.
    Stream,
    /// Datagrams.
    Datagram,
}

impl SocketKind {
    fn to_nix(self) -> SockType {
        match self {
            Self::SeqPacket => SockType::SeqPacket,
            Self::Stream => SockType::Stream,
            Self::Datagram => SockType::Datagram,
        }
    }
}

/// socketpair(2).
pub fn pair(kind: SocketKind) -> Result<(OwnedFd, OwnedFd), SyscallError> {
    socketpair(AddressFamily::Unix, kind.to_nix(), None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| SyscallError::new("socketpair", "", errno))
}

/// socket(2) and connect(2) to a socket in the file system.
pub fn connect_unix(kind: SocketKind, path: &Path) -> Result<OwnedFd, SyscallError> {
    let detail = || path.display().to_string();
    let address = UnixAddr::new(path).map_err(|errno| SyscallError::new("connect", detail(), errno))?;
    let fd = socket(AddressFamily::Unix, kind.to_nix(), SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| SyscallError::new("socket", detail(), errno))?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("connect", detail(), errno)),
        }
    }
}

/// Where a stream socket listens.
#[derive(Debug, Clone, Copy)]
pub enum UnixName<'a> {
    /// In the file system.
    Path(&'a Path),
    /// In the abstract namespace (unix(7)).
    Abstract(&'a [u8]),
}

/// socket(2) and connect(2) to a listener whose queue may be full: the kernel waits no longer than `limit` for a place
/// in it, and then fails with EAGAIN. The same limit holds for every later write to the socket (SO_SNDTIMEO).
pub fn connect_stream_within(name: UnixName<'_>, limit: Duration) -> Result<OwnedFd, SyscallError> {
    let detail = || match name {
        UnixName::Path(path) => path.display().to_string(),
        UnixName::Abstract(name) => format!("@{}", name.escape_ascii()),
    };
    let failed = |call| move |errno| SyscallError::new(call, detail(), errno);
    let address = match name {
        UnixName::Path(path) => UnixAddr::new(path),
        UnixName::Abstract(name) => UnixAddr::new_abstract(name),
    };
    let address = address.map_err(failed("connect"))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("socket"))?;
    let limit = TimeVal::microseconds(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &limit).map_err(failed("setsockopt"))?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed("connect")(errno)),
        }
    }
}

/// sendmsg(2) of `data` and copies of `fds`, without SIGPIPE.
pub fn send(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SyscallError> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &[IoSlice::new(data)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("sendmsg", "", errno)),
        }
    }
}

/// write(2) of `data` as one packet, for where a seccomp filter may know no other call. SIGPIPE is the caller's.
pub fn write(socket: impl AsFd, data: &[u8]) -> Result<(), SyscallError> {
    loop {
        match nix::unistd::write(socket.as_fd(), data) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("write", "", errno)),
        }
    }
}

/// read(2) of a packet, for where a seccomp filter may know no other call: its length, 0 at the end of the stream.
pub fn read(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, SyscallError> {
    loop {
        match nix::unistd::read(socket.as_fd(), buffer) {
            Ok(length) => return Ok(length),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("read", "", errno)),
        }
    }
}

/// recvmsg(2) of nothing: waits for the next packet of a socket that keeps their bounds, leaves it there, and tells its
/// length; 0 at the end of the stream.
pub fn next_length(socket: impl AsFd) -> Result<usize, SyscallError> {
    loop {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut [], None, flags) {
            Ok(message) => return Ok(message.bytes),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("recvmsg", "", errno)),
        }
    }
}

/// recvmsg(2): the length of what was put in `buffer` (0 at the end of the stream) and the descriptors that came along.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), SyscallError> {
    loop {
        let mut control = nix::cmsg_space!([RawFd; 8]);
        let mut slices = [IoSliceMut::new(buffer)];
        let received = recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        match received {
            Ok(message) => {
                let failed = |errno| SyscallError::new("recvmsg", "", errno);
                let mut fds = Vec::new();
                for control in message.cmsgs().map_err(failed)? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just installed these descriptors in this process for us
                        // (MSG_CMSG_CLOEXEC); nothing else owns them.
                        fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                if message.flags.contains(MsgFlags::MSG_TRUNC) {
                    return Err(failed(Errno::EMSGSIZE));
                }
                return Ok((message.bytes, fds));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SyscallError::new("recvmsg", "", errno)),
        }
    }
}
