//! What a node remembers of itself beside its keys: written whole, and last of all when it joins, so that a crash before leaves
//! a node of no cluster.

use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::cluster::RaftConfig;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use super::error::NodeError;
use super::join::Advertised;
use crate::calls::ManagerAddress;
use crate::executor::DataPath;
use crate::world::Disk;

const NAME: &str = "node.json";

/// Of a node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    /// Where it listens, and where others reach it: `host:port`.
    pub(super) listen: String,
    pub(super) advertise: String,
    #[serde(default)]
    pub(super) advertised: Advertised,
    /// Where its datagrams of the cluster's networks arrive, if that is not where it is reached, and at which UDP port.
    #[serde(default)]
    pub(super) data_address: Option<IpAddr>,
    pub(super) data_path_port: u16,
    /// Of a manager: who it is in raft. Drawn with each log that it begins.
    #[serde(default)]
    pub(super) raft_id: Option<u64>,
    /// Of a manager: whether raft has let it in. Until then it asks.
    #[serde(default)]
    pub(super) entered: bool,
    /// Of a manager: how raft is set, as it last knew it.
    #[serde(default)]
    pub(super) raft: RaftConfig,
    /// The managers as it last knew them.
    #[serde(default)]
    pub(super) managers: Vec<ManagerAddress>,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it listens: `host:port`.
    pub listen: String,
    /// Where others reach it, `host:port`; none: where they did before.
    pub advertise: Option<String>,
    /// Where the data plane's datagrams arrive; none: where the node is reached.
    pub data_address: Option<IpAddr>,
}

impl Document {
    /// The node is somewhere else from now on.
    pub(super) fn move_to(&mut self, place: Place) {
        self.listen = place.listen;
        if let Some(advertise) = place.advertise {
            (self.advertise, self.data_address) = (advertise, place.data_address);
        } else if place.data_address.is_some() {
            self.data_address = place.data_address;
        }
    }

    /// None when the node is known by a name only.
    pub(super) fn data_path(&self) -> Option<DataPath> {
        let host = self.advertise.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = self.data_address.or_else(|| host.parse().ok())?;
        Some(DataPath { node: self.node, address, port: self.data_path_port })
    }

    pub(super) fn read(disk: &dyn Disk) -> Result<Option<Self>, NodeError> {
        let Some(bytes) = disk.read(NAME)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| NodeError::failed("reading node.json", &error))
    }

    pub(super) fn write(&self, disk: &dyn Disk) -> Result<(), NodeError> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| NodeError::failed("writing node.json", &error))?;
        Ok(disk.write(NAME, &bytes)?)
    }
}
