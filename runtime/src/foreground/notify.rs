//! sd_notify(3) for what runs in a container: `NOTIFY_SOCKET` of the runtime is the caller's, the container has its own,
//! and its `READY=` is passed on with `MAINPID=`, then a barrier is waited for.
//!
//! The container's folder and the mount of it are the plan's; this file owns the socket in it. Called by `cli`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_sys::{process, socket};

use super::ForegroundError;
use crate::log;

/// How long systemd has to close the barrier's pipe; one that does not know the barrier never does.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(30);

/// The container's own notification socket, bound and waiting.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    host: PathBuf,
}

impl NotifySocket {
    /// Binds `<state folder>/notify/notify.sock`, whose messages go to the socket `host` (a path, or `@` and a name).
    pub fn bind(state_folder: &Path, host: &Path) -> Result<Self, ForegroundError> {
        let path = state_folder.join("notify").join("notify.sock");
        let failed = |source| ForegroundError::Notify { path: path.clone(), source };
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        // Any user in the container may send.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Self { socket, host: host.to_owned() })
    }

    /// Waits until the container is ready and says so, or until its first process has ended.
    pub fn wait(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), ForegroundError> {
        loop {
            let ready =
                process::poll_readable(&[self.socket.as_fd(), pidfd], None).map_err(ForegroundError::Wait)?;
            if ready[0] {
                if self.forward(pid)? {
                    return Ok(());
                }
            } else if ready[1] {
                return Ok(());
            }
        }
    }

    /// Says that the container is ready, in its place: one that was saved has said so before, and will not again.
    pub fn announce_restored(&self, main_pid: i32) -> Result<(), ForegroundError> {
        self.announce(b"READY=1", main_pid).map_err(|source| self.failed(source))
    }

    /// Takes one message; passes it on if it says that the container is ready, with `main_pid` as the process to watch.
    pub(super) fn forward(&self, main_pid: i32) -> Result<bool, ForegroundError> {
        let mut buffer = [0_u8; 4096];
        let length = self.socket.recv(&mut buffer).map_err(|source| self.failed(source))?;
        let ready = buffer[..length].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready else { return Ok(false) };
        self.announce(ready, main_pid).map_err(|source| self.failed(source))?;
        Ok(true)
    }

    fn announce(&self, ready: &[u8], main_pid: i32) -> io::Result<()> {
        let client = UnixDatagram::unbound()?;
        match self.host.as_os_str().as_bytes() {
            [b'@', name @ ..] => client.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            _ => client.connect(&self.host)?,
        }
        client.send(&[ready, b"\n"].concat())?;
        client.send(format!("MAINPID={main_pid}\n").as_bytes())?;
        barrier(&client)
    }

    fn failed(&self, source: io::Error) -> ForegroundError {
        ForegroundError::Notify { path: self.host.clone(), source }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// sd_notify_barrier(3): the other side closes the pipe once it has seen everything that was sent before.
fn barrier(client: &UnixDatagram) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    socket::send(client, b"BARRIER=1", &[writer.as_fd()])?;
    drop(writer);
    match process::poll_readable(&[reader.as_fd()], Some(BARRIER_TIMEOUT))?.first() {
        Some(true) => {}
        _ => log::warn("Timeout after waiting 30s for barrier. Ignored."),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_goes_to_the_callers_socket() {
        let folder = std::env::temp_dir().join(format!("ketch-notify-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(folder.join("notify")).unwrap();
        let host = UnixDatagram::bind(folder.join("host")).unwrap();
        let notify = NotifySocket::bind(&folder, &folder.join("host")).unwrap();
        let container = UnixDatagram::unbound().unwrap();
        container.connect(folder.join("notify/notify.sock")).unwrap();

        container.send(b"STATUS=starting").unwrap();
        assert!(!notify.forward(7).unwrap());
        container.send(b"STATUS=up\nREADY=1").unwrap();
        // systemd's part: receive, and close what came with the barrier. Done before the wait would time out, because
        // the pipe's only other end is in the socket's queue and dies with it.
        let systemd = std::thread::Builder::new().spawn(move || {
            let mut buffer = [0; 64];
            let mut messages = Vec::new();
            for _ in 0..3 {
                let (length, _fds) = socket::receive(&host, &mut buffer).unwrap();
                messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            messages
        });
        assert!(notify.forward(7).unwrap());
        assert_eq!(systemd.unwrap().join().unwrap(), ["READY=1\n", "MAINPID=7\n", "BARRIER=1"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
