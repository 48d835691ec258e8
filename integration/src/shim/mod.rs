//! The shim under test and what it takes to drive it without containerd: its messages, its calls, its events, its streams.
//!
//! Nothing here shares code with the shim: the wire format is written down a second time, so that a mistake in one is seen
//! by the other. Called by the `shim_` tests and by the bench of shims.

pub mod bootstrap;
pub mod events;
pub mod protobuf;
pub mod stage;
pub mod stream;
pub mod task;
pub mod ttrpc;

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::Case;

pub use bootstrap::{Bootstrap, Form, Served, options, runc_options, runtime_root, runtime_state};
pub use events::{Event, Sink};
pub use protobuf::{Fields, Message, any, any_json};
pub use stage::Stage;
pub use stream::Stream;
pub use task::{Create, Exec, Status, Tasks};
pub use ttrpc::{Client, Failure};

/// Where `make peers` puts programs that run outside its root.
const PEERS: &str = "/var/cache/ketch/peers/bin";
const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/containerd-shim-ketch-v2");

/// Whose shim it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Ketch,
    /// containerd's own of 1.6, Debian's.
    Go16,
    /// containerd's own of 2.x, of the current peers.
    Go2,
}

/// A shim's binary.
#[derive(Clone, Debug)]
pub struct Shim {
    pub path: PathBuf,
    pub maker: Maker,
}

impl Shim {
    /// The one that SHIM names: a path, `peer` (Debian's containerd-shim-runc-v2) or `peer-new` (the current peers'); ours of
    /// the release build otherwise. Without the binary the test is skipped.
    ///
    /// # Panics
    /// When SHIM names what is not there.
    #[must_use]
    pub fn under_test(case: &Case) -> Self {
        case.root_only("a shim is containerd's, which runs as root");
        let shim = match std::env::var("SHIM").as_deref() {
            Ok("peer") => Self::go16(),
            Ok("peer-new") => Self::go2(),
            Ok(path) if !path.is_empty() => Self { path: path.into(), maker: Maker::Ketch },
            _ => {
                let shim = Self { path: DEFAULT.into(), maker: Maker::Ketch };
                case.needs(shim.path.exists(), "no containerd-shim-ketch-v2 in target/release (make build)");
                shim
            }
        };
        assert!(shim.path.exists(), "the shim {} is not there", shim.path.display());
        shim
    }

    /// Debian's.
    #[must_use]
    pub fn go16() -> Self {
        Self { path: "/usr/bin/containerd-shim-runc-v2".into(), maker: Maker::Go16 }
    }

    /// The current peers'.
    #[must_use]
    pub fn go2() -> Self {
        Self { path: peer("containerd-shim-runc-v2"), maker: Maker::Go2 }
    }

    /// A copy of its own for a test that takes the file away, as an update does.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copied(&self, case: &Case) -> Self {
        let path = case.folder("program").join(self.file_name());
        fs::copy(&self.path, &path).expect("copy the shim");
        Self { path, maker: self.maker }
    }

    #[must_use]
    pub fn is_ketch(&self) -> bool {
        self.maker == Maker::Ketch
    }

    /// The runtime type that has containerd look for it on its PATH.
    #[must_use]
    pub fn runtime_type(&self) -> &'static str {
        if self.is_ketch() { "io.containerd.ketch.v2" } else { "io.containerd.runc.v2" }
    }

    /// The file name that belongs to the runtime type.
    #[must_use]
    pub fn file_name(&self) -> &'static str {
        if self.is_ketch() { "containerd-shim-ketch-v2" } else { "containerd-shim-runc-v2" }
    }

    /// Marks what containerd's own shims do otherwise or not at all, with the reason.
    pub fn not_on_go(&self, case: &Case, reason: &str) {
        case.needs(self.is_ketch(), &format!("{}: {reason}", self.path.display()));
    }

    /// Marks what only the Go shim of 1.6 does otherwise or not at all, with the reason.
    pub fn not_on_go16(&self, case: &Case, reason: &str) {
        case.needs(self.maker != Maker::Go16, &format!("{} (1.6): {reason}", self.path.display()));
    }
}

/// A program of the current peers that runs outside of their root.
#[must_use]
pub fn peer(name: &str) -> PathBuf {
    let cache = std::env::var_os("KETCH_CACHE").map(|cache| Path::new(&cache).join("peers/bin"));
    cache.unwrap_or_else(|| PEERS.into()).join(name)
}
