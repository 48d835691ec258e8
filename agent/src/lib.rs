//! ketchd: a Docker Engine on one machine. `main.rs` reads the flags and calls [`daemon::Daemon`].
//!
//! A request's way: `api` (HTTP to calls) -> `engine` (containers; it asks `image` for a root, `network` for a sandbox,
//! `volume` for mounts) -> `shim` (ttrpc to containerd-shim-ketch-v2) -> the runtime.

pub mod api;
pub mod archive;
mod blocking;
pub mod build;
pub mod check;
pub mod command;
pub mod compat;
pub mod config;
pub mod daemon;
pub mod daemon_json;
pub mod dockerfile;
mod duration;
pub mod engine;
pub mod error;
pub mod events;
mod exec_root;
pub mod flags;
pub mod host;
pub mod image;
pub mod init;
pub mod life;
pub mod listen;
mod locks;
pub mod log;
pub mod logs;
pub mod metrics;
mod mounted;
pub mod network;
pub mod node;
mod open_files;
mod overlay;
mod paths;
mod random;
mod remap;
mod removal;
mod resolve;
pub mod settings;
pub mod shim;
pub mod size;
mod spare;
pub mod stack;
pub mod store;
pub mod system;
pub mod tar;
pub mod timestamp;
pub mod tls;
pub mod volume;
mod zone;

#[cfg(test)]
mod scratch;

/// What `docker version` shows. The number is that of the engine whose behaviour is meant, as clients compare it.
pub const VERSION: &str = "28.5.0+ketch.0.1.0";
