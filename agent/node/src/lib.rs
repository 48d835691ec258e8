//! A node of the cluster: what it is in the cluster ([`node`]), and its three parts. A manager holds the log and, while it
//! leads, drives the reconcilers; its dispatcher tells workers what to run and hears how it goes; a worker runs it.
//!
//! Nothing here opens a socket or a file, reads the wall clock, draws a random number or starts a container: all of these come
//! through [`world`] and [`executor`], each with two implementations, the system's (in ketchd) and the simulation's. Spans
//! of time are waited for by tokio's clock, which the simulation drives. Decisions about objects are `ketch-cluster`'s.
//! `DESIGN.md` beside this folder says who calls whom.

mod base64_bytes;
pub mod calls;
pub mod dispatcher;
pub mod executor;
#[cfg(test)]
mod fixture;
pub mod layers;
mod locks;
pub mod manager;
pub mod mark;
pub mod measure;
pub mod news;
pub mod node;
pub mod wire;
pub mod worker;
pub mod world;
