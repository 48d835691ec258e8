//! The socket over which a runtime hands out the master of a new terminal (SCM_RIGHTS, one message).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::net::UnixListener;

use crate::RuntimeError;

/// A listening console socket; gone with this.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens at `path`, in place of what is there.
    ///
    /// # Errors
    /// The socket can't be bound.
    pub fn bind(path: PathBuf) -> Result<Self, RuntimeError> {
        let _absent = std::fs::remove_file(&path);
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Self { path, listener }),
            Err(source) => Err(RuntimeError::Console { path, source }),
        }
    }

    /// Where the runtime finds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master. Without a deadline: the caller knows whether the runtime still runs.
    ///
    /// # Errors
    /// The runtime closed the connection without a descriptor.
    pub async fn receive(&self) -> Result<OwnedFd, RuntimeError> {
        self.accept().await.map_err(|source| RuntimeError::Console { path: self.path.clone(), source })
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        loop {
            stream.readable().await?;
            match stream.try_io(tokio::io::Interest::READABLE, || receive_descriptor(stream.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().and_then(|mut rights| rights.next()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
