//! The start of a shim, as containerd 2.3 starts one: `containerd-shim-ketch-v2 start` in the bundle, what it should know
//! on its standard input, its address on its standard output. Where the address's shim has died, the one that is started
//! takes its container over.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use ketch_shim_api::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use ketch_shim_api::options::Options;
use ketch_shim_api::wire::Any;
use prost::Message;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NAMESPACE;
use super::connection::Connection;
use super::strays::Strays;
use crate::error::{Error, Kind, Result};

/// What a socket's path may have, its end included.
const LONGEST_SOCKET: usize = 108;
/// A slash and the name that shims give their sockets.
const SOCKET_NAME: usize = 65;
/// The file in a bundle that is locked by whoever is starting a shim there, or cleaning up.
const BUSY: &str = "busy";
/// How long that may take.
const STARTED: Duration = Duration::from_secs(20);
/// How long a shim may take to start, or to clean up: the runtime is called for it.
const DONE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const BEAT: Duration = Duration::from_millis(10);

/// What all shims of a daemon are started with.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The shim's binary.
    pub shim: PathBuf,
    /// The runtimes' binaries.
    pub runtimes: Vec<PathBuf>,
    /// The daemon's folder of sockets and bundles.
    pub exec_root: PathBuf,
    /// Where shims send events.
    pub events: PathBuf,
}

impl Launch {
    /// Where shims have their sockets: below the daemon's own folder, if that leaves room for a name.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        let own = self.exec_root.join("s");
        if own.as_os_str().len() + SOCKET_NAME < LONGEST_SOCKET {
            return own;
        }
        let digest = Sha256::digest(self.exec_root.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Path::new("/run/ketchd-sockets").join(name)
    }

    /// Where the runtime keeps its state.
    #[must_use]
    pub fn runtime_root(&self) -> PathBuf {
        self.exec_root.join("runtime")
    }

    /// The options of a container whose runtime is `binary`, and whose streams are this user's and group's.
    #[must_use]
    pub fn options(&self, binary: &Path, (io_uid, io_gid): (u32, u32)) -> Any {
        Any::pack(&Options {
            binary_name: binary.to_string_lossy().into_owned(),
            root: self.runtime_root().to_string_lossy().into_owned(),
            io_uid,
            io_gid,
            ..Options::default()
        })
    }

    /// The shim's program. What systemd tells this daemon by its environment is not for containers: a runtime would hand
    /// the sockets on, and have the container say when it is ready.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.shim);
        for name in ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"] {
            let _shim = command.env_remove(name);
        }
        command
    }

    /// Starts the shim of the container whose bundle this is, and connects to it.
    ///
    /// # Errors
    /// The shim can't be executed, fails (its words), or does not listen where it says.
    pub async fn start(&self, id: &str, bundle: &Path, binary: &Path) -> Result<Connection> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(
                Kind::Internal,
                format!("failed to start shim: start {}: {error}", self.shim.display()),
            )
        };
        let events = self.events.to_string_lossy().into_owned();
        let asked = BootstrapParams {
            instance_id: id.to_owned(),
            namespace: NAMESPACE.to_owned(),
            containerd_ttrpc_address: events.clone(),
            containerd_grpc_address: events.clone(),
            socket_dir: Some(self.sockets().to_string_lossy().into_owned()),
            extensions: vec![Extension { value: Some(self.options(binary, (0, 0))) }],
            ..BootstrapParams::default()
        };
        let busy = claim(bundle).await.map_err(|error| failed(&error))?;
        // It goes to the bundle itself: a child that has to be sent there is forked, and a daemon's pages are many to copy.
        let mut child = self
            .command()
            .args(["-namespace", NAMESPACE, "-id", id, "-address", &events, "-bundle"])
            .arg(bundle)
            .arg("start")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(busy.try_clone().map_err(|error| failed(&error))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read all has words of its own about why.
            let _unread = stdin.write_all(&asked.encode_to_vec()).await;
        }
        let output = in_time(child.wait_with_output()).await.map_err(|error| failed(&error))?;
        if !output.status.success() {
            return Err(failed(&words(busy)));
        }
        let answer = BootstrapResult::decode(output.stdout.as_slice()).map_err(|error| failed(&error))?;
        let socket = answer.address.strip_prefix("unix://").unwrap_or(&answer.address).to_owned();
        Connection::open(Path::new(&socket), self.strays(bundle)).await.map_err(|error| failed(&error))
    }

    /// Connects to the shim that a bundle names; `None` if it is dead, or there was none.
    pub async fn connect(&self, bundle: &Path) -> Option<Connection> {
        Connection::open(&socket_of(bundle)?, self.strays(bundle)).await.ok()
    }

    /// Has the shim's binary clean up what a dead shim has left: the container is killed.
    ///
    /// # Errors
    /// It can't be executed, or fails.
    pub async fn delete(&self, id: &str, bundle: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("cleaning up after the shim of {id}: {error}"))
        };
        let events = self.events.to_string_lossy().into_owned();
        let busy = claim(bundle).await.map_err(|error| failed(&error))?;
        let output = self
            .command()
            .args(["-namespace", NAMESPACE, "-id", id, "-address", &events, "-bundle"])
            .arg(bundle)
            .arg("delete")
            // One that hangs is known by it.
            .current_dir(bundle)
            .stdin(Stdio::null())
            .stderr(busy.try_clone().map_err(|error| failed(&error))?)
            .kill_on_drop(true)
            .output();
        let output = in_time(output).await.map_err(|error| failed(&error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(&words(busy)))
    }

    /// Has the runtime itself kill a container and take it away.
    ///
    /// # Errors
    /// It can't be executed, or fails: its words.
    pub async fn delete_by_runtime(&self, id: &str, binary: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("deleting {id} by {}: {error}", binary.display()))
        };
        let output = Command::new(binary)
            .arg("--root")
            .arg(self.runtime_root().join(NAMESPACE))
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = in_time(output).await.map_err(|error| failed(&error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(&String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Waits for whatever a daemon that was killed had begun in a bundle: the start of a shim, or the cleaning up after one.
    ///
    /// # Errors
    /// It does not come to an end.
    pub async fn settle(&self, bundle: &Path) -> Result<()> {
        claim(bundle).await.map(drop).map_err(|error| {
            Error::internal(
                format_args!("waiting for a shim that is being started in {}", bundle.display()),
                &error,
            )
        })
    }

    /// The shim of a bundle, and what it runs there.
    #[must_use]
    pub fn strays(&self, bundle: &Path) -> Strays {
        Strays { bundle: bundle.to_owned(), shim: self.shim.clone(), runtimes: self.runtimes.clone() }
    }

    /// Kills a shim that nobody knows the address of, and what it runs.
    pub async fn end_strays(&self, bundle: &Path) {
        let strays = self.strays(bundle);
        let _ended = tokio::task::spawn_blocking(move || strays.end(Duration::ZERO)).await;
    }

    /// Removes the sockets of shims that are dead, but those that bundles name: by a dead socket the next shim knows that there is
    /// a container to take over.
    pub fn clear_sockets(&self, bundles: impl Iterator<Item = PathBuf>) {
        let named: BTreeSet<PathBuf> = bundles.filter_map(|bundle| socket_of(&bundle)).collect();
        let sockets = std::fs::read_dir(self.sockets()).into_iter().flatten().flatten();
        for path in sockets.map(|entry| entry.path()).filter(|path| !named.contains(path)) {
            let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
            if std::os::unix::net::UnixStream::connect(&path).is_err_and(refused) {
                let _gone = std::fs::remove_file(&path);
            }
        }
    }
}

/// The socket of the shim that a bundle names.
fn socket_of(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join("address")).ok()?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

/// The one who works in a bundle: the lock is on the open file that is the program's standard error, so that it is held for as
/// long as the program lives, and not the daemon that has started it.
async fn claim(bundle: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(bundle.join(BUSY))?;
    let deadline = Instant::now() + STARTED;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => tokio::time::sleep(BEAT).await,
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(0)?;
    Ok(file)
}

/// What a program says at its end; one that does not end is killed.
async fn in_time(output: impl Future<Output = std::io::Result<Output>>) -> std::io::Result<Output> {
    let late = |_| std::io::Error::other(format!("it has not ended after {} s", DONE.as_secs()));
    tokio::time::timeout(DONE, output).await.map_err(late)?
}

/// What a program has said before it failed.
fn words(mut busy: File) -> String {
    let mut text = Vec::new();
    let _unread = busy.rewind().and_then(|()| busy.read_to_end(&mut text));
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_move_where_their_names_fit() {
        let launch = |exec_root: &str| Launch {
            shim: "/s".into(),
            runtimes: Vec::new(),
            exec_root: exec_root.into(),
            events: "/e".into(),
        };
        assert_eq!(launch("/run/ketchd").sockets(), Path::new("/run/ketchd/s"));
        let long = launch(&format!("/tmp/{}", "x".repeat(60))).sockets();
        assert!(long.starts_with("/run/ketchd-sockets") && long.as_os_str().len() < 43, "{long:?}");
    }
}
