//! ketchd's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ketchd::api::server;
use ketchd::config::Config;
use ketchd::daemon::Daemon;
use tokio::signal::unix::{SignalKind, signal};

/// A Docker Engine on one machine.
#[derive(Parser)]
#[command(name = "ketchd", version)]
struct Flags {
    /// Where images, containers and volumes are kept
    #[arg(long, default_value = "/var/lib/ketchd")]
    data_root: PathBuf,
    /// Where sockets and bundles are
    #[arg(long, default_value = "/run/ketchd")]
    exec_root: PathBuf,
    /// The socket of the API, as unix://PATH
    #[arg(long, short = 'H', default_value = "unix:///run/ketchd.sock")]
    host: String,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let beside =
        std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or_default();
    let config = Config {
        data_root: flags.data_root,
        exec_root: flags.exec_root,
        socket: PathBuf::from(flags.host.strip_prefix("unix://").unwrap_or(&flags.host)),
        runtime: beside.join("ketch"),
        shim: beside.join("containerd-shim-ketch-v2"),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to start daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let socket = config.socket.clone();
    let daemon = Daemon::open(config)?;
    daemon.begin().await?;
    let _gone = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = server::serve(listener, daemon) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
