//! The Docker Engine API's objects, version 1.51, as data: what clients send and what they are shown. A file for each kind
//! of object; names are Docker's. No behaviour, no I/O.
//!
//! A list or map that a client may leave out is an `Option`: what it gave is what it is shown again, `null` or `[]`. Go
//! takes `null` for a missing value everywhere; who reads a body takes the nulls out first.

pub mod container;
pub mod exec;
pub mod host_config;
pub mod image;
pub mod mount;
pub mod network;
pub mod swarm;
pub mod volume;
