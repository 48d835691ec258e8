//! Whole clusters in one process and one order of events: real managers on real raft, dispatchers and workers, over turmoil's
//! network, on disks that lose what was not synced, with containers that are a model. A seed is a whole run: its faults, its
//! users and its outcome. `make sim` runs many; see `agent/sim/DESIGN.md`.
//!
//! It is for development: no product links it.

mod answers;
mod cluster;
mod container;
mod disk;
mod displaced;
mod faults;
mod invariants;
mod jobs;
mod labels;
mod layered;
mod layers;
mod linear;
mod loads;
mod locks;
mod machine;
mod model;
mod random;
mod reach;
mod requests;
mod run;
mod scene;
mod site;
mod trace;
mod users;
mod wishes;
mod world;

pub use run::{Failure, Outcome, Play, run};
