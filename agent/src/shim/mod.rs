//! The shim's client: one `containerd-shim-ketch-v2` per container, spoken to by ttrpc. It knows nothing of Docker.
//!
//! [`launch`] starts a shim, or has a new one take a dead one's container over; [`connection`] carries calls, several at
//! once, and [`strays`] ends a shim that does not answer; [`task`] is a container seen through its shim; [`events`] takes what shims tell on their own. Called by `engine`.

pub mod connection;
pub mod events;
pub mod launch;
pub mod strays;
pub mod task;

pub use connection::{CallError, Connection};
pub use launch::Launch;
pub use task::{Exit, Task};

/// The namespace that all containers of a ketchd are in, for the shim and for the runtime.
pub const NAMESPACE: &str = "ketchd";
