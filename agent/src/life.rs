//! The daemon's life: its process id's file, what it says to systemd, its signals, and its end.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::server;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::listen::Listeners;
use crate::log::Loudness;
use crate::{metrics, remap};

/// So many of SIGINT and SIGTERM are taken for patience; the next ends the daemon as it is.
const PATIENCE: u32 = 3;
/// How long requests may take that are under way when the daemon ends.
const REQUESTS_END: Duration = Duration::from_secs(5);

/// The file of the process id; it goes with this.
#[derive(Debug)]
struct Pidfile(PathBuf);

impl Pidfile {
    fn write(path: &Path) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!(
                "failed to start daemon, ensure docker is not running or delete {}: {why}",
                path.display()
            )
        };
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(|error| format!("failed to create pidfile directory: {error}"))?;
        }
        let before = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) =
            before.filter(|pid| *pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists())
        {
            return Err(failed(&format_args!("process with PID {pid} is still running")));
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| failed(&error))?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(|error| failed(&error))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!("removing {}: {error}", self.0.display());
        }
    }
}

/// Tells systemd, where it has asked to be told (sd_notify(3)).
fn tell_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        warn!("telling systemd {state}: {error}");
    }
}

/// Runs the daemon to its end.
///
/// # Errors
/// What keeps it from starting, in dockerd's words where it has some.
pub fn run(config: Config) -> Result<ExitCode, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("ketchd needs to be started with root privileges.".to_owned());
    }
    // Others' masks would keep containers' users out of folders, or let all into the socket for a moment.
    let _before = rustix::process::umask(rustix::fs::Mode::from(0o022));
    crate::open_files::raise();
    ketchd_sys::bound_heaps();
    let loudness = crate::log::begin(&config);
    info!("Starting up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the threads: {error}"))?;
    let ended = runtime.block_on(serve(config, loudness));
    // Work on a disk that does not answer must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(config: Config, loudness: Loudness) -> Result<ExitCode, String> {
    let signals = |kind| signal(kind).map_err(|error| format!("catching signals: {error}"));
    let stops = [
        (signals(SignalKind::interrupt())?, SignalKind::interrupt()),
        (signals(SignalKind::terminate())?, SignalKind::terminate()),
    ];
    let reload = signals(SignalKind::hangup())?;
    let (stop, mut stopping) = watch::channel(false);
    for (signal, kind) in stops {
        drop(tokio::spawn(stops_of(signal, kind, stop.clone())));
    }
    let _pidfile = Pidfile::write(&config.pidfile)?;
    let ids = remap::ids_of(&config.containers.remapped)?;
    let listeners = Listeners::open(&config)?;
    let metrics = match config.metrics.clone() {
        Some(address) => {
            let listener = tokio::net::TcpListener::bind(&address)
                .await
                .map_err(|error| format!("failed to start metrics server: listen tcp {address}: {error}"))?;
            Some(listener)
        }
        None => None,
    };
    let opened = tokio::task::spawn_blocking(move || Daemon::open(config, ids)).await;
    let daemon = opened
        .map_err(|error| format!("failed to start daemon: {error}"))?
        .map_err(|error| format!("failed to start daemon: {error}"))?;
    tokio::select! {
        begun = daemon.begin() => begun.map_err(|error| format!("failed to start daemon: {error}"))?,
        _ = stopping.wait_for(|stop| *stop) => return Ok(ExitCode::SUCCESS),
    }
    if let Some(listener) = metrics {
        drop(tokio::spawn(metrics::serve(listener, Arc::clone(&daemon))));
    }
    drop(tokio::spawn(reloads(reload, Arc::clone(&daemon), loudness)));
    tell_systemd("READY=1");
    info!("Daemon has completed initialization");
    server::serve(&listeners.all, &daemon, stopping, REQUESTS_END).await;
    tell_systemd("STOPPING=1");
    if !daemon.end().await {
        warn!("The daemon's end took too long; what is left is taken up at the next start");
    }
    info!("Daemon shutdown complete");
    Ok(ExitCode::SUCCESS)
}

/// The first signal begins the end; so do the next, which are harmless; then patience ends.
async fn stops_of(mut signal: Signal, kind: SignalKind, stop: watch::Sender<bool>) {
    let mut count = 0;
    while signal.recv().await.is_some() {
        info!("Processing signal {}", kind.as_raw_value());
        count += 1;
        if count > PATIENCE {
            info!("Forcing daemon shutdown without cleanup; {PATIENCE} interrupts received");
            std::process::exit(128 + kind.as_raw_value());
        }
        let _before = stop.send_replace(true);
    }
}

async fn reloads(mut signal: Signal, daemon: Arc<Daemon>, loudness: Loudness) {
    while signal.recv().await.is_some() {
        info!("Got signal to reload configuration, reloading from: {}", daemon.config.file.0.display());
        tell_systemd("RELOADING=1");
        match daemon.config.reload() {
            Ok(live) => {
                loudness.set(&daemon.config);
                daemon.images.set_registries(crate::daemon::registries(&daemon.config));
                daemon.images.set_bounds(crate::daemon::bounds(&daemon.config));
                let mut attributes = live.attributes();
                let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let _none = attributes.insert("name".to_owned(), name);
                daemon.events.publish("daemon", "reload", &daemon.id, attributes);
                info!("Reloaded configuration");
            }
            Err(error) => tracing::error!("{error}"),
        }
        tell_systemd("READY=1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_of_the_living_is_respected() {
        let folder = crate::scratch::Folder::new("life");
        let path = folder.path().join("deep/pid");
        let pidfile = Pidfile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(pidfile);
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        let error = Pidfile::write(&path).unwrap_err();
        assert_eq!(
            error,
            format!(
                "failed to start daemon, ensure docker is not running or delete {}: process with PID 1 is still running",
                path.display()
            )
        );
        std::fs::write(&path, "4194305").unwrap();
        drop(Pidfile::write(&path).unwrap());
    }
}
