//! Checkpoint and restore, by criu: the executor of [`crate::plan::criu`].
//!
//! criu is a program of the host's: it is found on PATH, started as `criu swrk`, and spoken to over a socket
//! ([`service`]), in the messages of its `rpc.proto` ([`message`], [`wire`]). [`dump`] saves a container's processes to a
//! folder of images, [`restore`] brings them back; [`images`] is what is read and written of that folder here, [`streams`]
//! what of a container leads to its caller. Knows nothing of state.json, whose side of it is `container`'s.

mod dump;
mod error;
mod images;
pub mod message;
mod mounts;
mod processes;
mod restore;
mod service;
mod streams;
pub mod wire;

pub use dump::{CheckpointRequest, Extent, Subject, checkpoint};
pub use error::CriuError;
pub use restore::{Restoration, RestoreRequest, RestoreSteps, restore, was_shown_notify_folder};
pub use streams::names as stream_names;
