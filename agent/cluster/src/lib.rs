//! The cluster as data and decisions: what its objects are, how a committed change enters the store, and what each
//! reconciler wants changed next.
//!
//! Nothing here has a clock, randomness, I/O or tokio: time and the bits of new ids are arguments, fixed before a
//! proposal, so that every manager that applies the same log holds the same store, and a seed replays a whole cluster.
//! `ketchd`'s manager calls it: an API request becomes [`StoreAction`](store::StoreAction)s by `control`, the committed
//! ones enter by [`Store::apply`](store::Store::apply), and each change wakes the reconcilers of what it touched.

pub mod allocator;
pub mod assignment;
pub mod autoscale;
pub mod constraint;
pub mod control;
pub mod data_keys;
pub mod explain;
pub mod fault;
#[cfg(test)]
mod fixture;
pub mod id;
pub mod label;
pub mod objects;
pub mod orchestrator;
mod own_ports;
pub mod payloads;
pub mod reconciled;
pub mod reconcilers;
pub mod scheduler;
pub mod simulate;
pub mod store;
pub mod template;
pub mod time;
pub mod token;
pub mod view;
