//! The daemon's settings: flags over `daemon.json` over what dockerd's are without either.

use std::path::PathBuf;

/// Settings that are decided when the daemon starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// What outlives the machine's restart: images, containers, volumes, the store.
    pub data_root: PathBuf,
    /// What does not: sockets, bundles, fifos.
    pub exec_root: PathBuf,
    /// Where the API is served; a path of a unix socket.
    pub socket: PathBuf,
    /// The runtime's binary.
    pub runtime: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
}
