//! The swarm of the Docker Engine API as objects of the cluster, and back: what routes read becomes specs that
//! [`ketch_cluster::control`] judges, what the store holds becomes JSON as dockerd shows it.
//!
//! A file for each kind of object. It is the one place that names both vocabularies. It sees the store of one moment, to
//! find networks by name and to show a task's networks; it has no I/O, no clock, and changes nothing. What JSON says and no
//! object can hold is refused here, in dockerd's words; whether an object is good is `control`'s matter. A spec that was
//! shown can be sent back: nothing of it is lost, not even what says nothing ([`Given`](ketch_cluster::objects::Given)).

pub mod cluster;
pub mod config;
pub mod container;
pub mod endpoint;
pub mod filters;
pub mod mount;
pub mod network;
pub mod node;
pub mod privileges;
pub mod query;
pub mod reference;
pub mod resources;
pub mod secret;
pub mod service;
pub mod task;

mod bytes;
mod defaults;
mod given;
mod moment;
mod span;

/// Why JSON makes no object, in the words that a client is shown. Its kind is the answer's status, as `control`'s are.
pub use ketch_cluster::control::ControlError as Refusal;
