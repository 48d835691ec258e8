//! This machine as a node of a cluster: what `ketch-node` reaches outside itself. [`world`] is its clock, its connections and
//! its disk. It decides nothing about the cluster.

pub mod world;
