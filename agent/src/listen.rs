//! The sockets of the API: unix sockets for root and a group, TCP with TLS, and those that systemd has opened.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::{Config, Host};
use crate::tls;

/// The group of unix sockets where no setting names one; it need not be there.
const GROUP: &str = "docker";
/// The first of systemd's file descriptors (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;

/// One socket.
pub enum Listener {
    /// Of this machine.
    Unix(UnixListener),
    /// Of others, too.
    Tcp(TcpListener, Option<TlsAcceptor>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(listener) => write!(formatter, "{listener:?}"),
            Self::Tcp(listener, tls) => write!(formatter, "{listener:?}, TLS: {}", tls.is_some()),
        }
    }
}

/// All of them; unix sockets' files go when it is dropped.
#[derive(Debug, Default)]
pub struct Listeners {
    /// What is to be served.
    pub all: Vec<Listener>,
    /// To be removed in the end.
    files: Vec<PathBuf>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for file in &self.files {
            let _gone = std::fs::remove_file(file);
        }
    }
}

impl Listeners {
    /// Opens those of the settings.
    ///
    /// # Errors
    /// A socket that can't be had, or TCP that everybody could use without having been told so.
    pub fn open(config: &Config) -> Result<Self, String> {
        let acceptor = tls::acceptor(&config.tls)?;
        let mut listeners = Self::default();
        for host in &config.hosts {
            listeners
                .add(host, config, acceptor.as_ref())
                .map_err(|error| format!("failed to load listeners: {error}"))?;
            info!("API listen on {host}");
        }
        Ok(listeners)
    }

    fn add(&mut self, host: &Host, config: &Config, acceptor: Option<&TlsAcceptor>) -> Result<(), String> {
        match host {
            Host::Unix(path) => {
                let listener = unix(path, config.group.as_deref())?;
                self.files.push(path.clone());
                self.all.push(Listener::Unix(listener));
            }
            Host::Tcp(name, port) => {
                guarded(config, name)?;
                let failed = |error: io::Error| format!("listen tcp {name}:{port}: {error}");
                for address in (name.trim_matches(['[', ']']), *port).to_socket_addrs().map_err(failed)? {
                    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                    listener.set_nonblocking(true).map_err(failed)?;
                    let listener = TcpListener::from_std(listener).map_err(failed)?;
                    self.all.push(Listener::Tcp(listener, acceptor.cloned()));
                }
            }
            Host::Fd(which) => self.all.extend(activated(which, acceptor)?),
        }
        Ok(())
    }
}

/// TCP without verified clients gives the machine away: it is served where a setting says no to TLS or to verification, and
/// on loopback; dockerd waits and serves it.
fn guarded(config: &Config, name: &str) -> Result<(), String> {
    let (tls, verify) = (config.tls.enabled, config.tls.verify);
    if tls == Some(true) && verify != Some(false) {
        return Ok(());
    }
    warn!(
        "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network."
    );
    if tls.is_some() {
        return Ok(());
    }
    let loopback = name == "localhost"
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback {
        return Err(format!(
            "tcp://{name} would be open to every user and every script on this machine; say '--tls=false' or '--tlsverify=false' if that is meant"
        ));
    }
    Err(format!(
        "tcp://{name} would give root access on this machine to everyone who reaches it; use --tlsverify, or say '--tls=false' or '--tlsverify=false' if that is meant"
    ))
}

fn unix(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("can't create unix socket {}: {error}", path.display());
    // One that still answers is another daemon's.
    if UnixStream::connect(path).is_ok() {
        return Err(failed(&"bind: address already in use"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    // With the umask of the start only root can connect until the mode is set.
    let listener = StdUnixListener::bind(path).map_err(|error| failed(&error))?;
    let gid = match group_id(group.unwrap_or(GROUP)) {
        Some(gid) => gid,
        None if group.is_none() => 0,
        None => return Err(failed(&format_args!("group {} not found", group.unwrap_or_default()))),
    };
    std::os::unix::fs::chown(path, Some(0), Some(gid)).map_err(|error| failed(&error))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(|error| failed(&error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&error))?;
    UnixListener::from_std(listener).map_err(|error| failed(&error))
}

/// A group's number, by number or by name in `/etc/group`.
fn group_id(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// systemd's sockets. They are duplicated from their numbers by a pidfd: whoever holds a number alone proves nothing to the
/// compiler.
fn activated(which: &str, acceptor: Option<&TlsAcceptor>) -> Result<Vec<Listener>, String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let count = if ours { number("LISTEN_FDS").unwrap_or(0) } else { 0 };
    if count == 0 {
        return Err(
            "no sockets found via socket activation: make sure the service was started by systemd".to_owned()
        );
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let named: Vec<&str> = names.split(':').collect();
    let wanted = |index: i32| {
        let name = usize::try_from(index).ok().and_then(|index| named.get(index));
        which.is_empty() || which == "*" || which == (FIRST_FD + index).to_string() || name == Some(&which)
    };
    let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|error| format!("opening the daemon itself: {error}"))?;
    let mut found = Vec::new();
    for index in (0..count).filter(|index| wanted(*index)) {
        let socket = pidfd_getfd(&pidfd, FIRST_FD + index, PidfdGetfdFlags::empty())
            .map_err(|error| format!("taking systemd's socket {}: {error}", FIRST_FD + index))?;
        found.push(listener(socket, acceptor).map_err(|error| format!("systemd's socket: {error}"))?);
    }
    if found.is_empty() {
        return Err(format!("failed to find systemd activated socket: {which}"));
    }
    Ok(found)
}

fn listener(socket: OwnedFd, acceptor: Option<&TlsAcceptor>) -> io::Result<Listener> {
    use rustix::net::{AddressFamily, sockopt};
    match sockopt::socket_domain(&socket)? {
        AddressFamily::UNIX => {
            let listener = StdUnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Listener::Unix(UnixListener::from_std(listener)?))
        }
        _ => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(TcpListener::from_std(listener)?, acceptor.cloned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    fn config(line: &str) -> Config {
        let line = format!("--config-file /dev/null {line}");
        Config::load(&Flags::parse("ketchd", line.split_whitespace().map(str::to_owned)).unwrap()).unwrap()
    }

    #[test]
    fn open_tcp_wants_to_be_told_twice() {
        let guarded = |line: &str| guarded(&config(line), "0.0.0.0");
        assert!(guarded("-H tcp://0.0.0.0").unwrap_err().contains("--tlsverify"));
        assert!(guarded("-H tcp://0.0.0.0 --tls=false").is_ok());
        assert!(guarded("-H tcp://0.0.0.0 --tlsverify=false").is_ok());
        assert!(guarded("-H tcp://0.0.0.0 --tlsverify").is_ok());
    }

    #[tokio::test]
    async fn sockets_are_for_root_and_a_group_and_go() {
        let folder = crate::scratch::Folder::new("listen");
        let path = folder.path().join("socket");
        // A group by number can be given where the test runs as root only; its own is always allowed.
        let group = rustix::process::getegid().as_raw();
        let config = config(&format!("-H unix://{} -G {group}", path.display()));
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may give a socket to root");
            return;
        }
        let listeners = Listeners::open(&config).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(Listeners::open(&config).unwrap_err().contains("address already in use"));
        drop(listeners);
        assert!(!path.exists());
    }
}
