//! A node's keys as they are held: who it is, and whom it believes.

use std::collections::BTreeSet;
use std::sync::Arc;

use ketch_ca::folder::{Folder, Kept, RaftKeys};
use ketch_ca::identity::Identity;
use ketch_ca::join::Joined;
use ketch_ca::key::NodeKey;
use ketch_ca::root;
use ketch_ca::trust::Trust;
use ketch_cluster::id::ClusterId;
use ketch_cluster::objects::node::{CaKeyId, NodeRole};
use ketch_cluster::token::UnlockKey;

use crate::node::error::NodeError;
use crate::world::Credentials;

#[derive(Clone)]
pub(super) struct Keys {
    pub(super) identity: Identity,
    pub(super) roots: String,
    pub(super) raft: Option<RaftKeys>,
    /// What they are sealed with on the disk.
    pub(super) unlock: Option<UnlockKey>,
    chain: String,
    key: Arc<NodeKey>,
}

impl Keys {
    pub(super) fn new(kept: Kept, roots: String, unlock: Option<UnlockKey>) -> Result<Self, NodeError> {
        let identity = Identity::of_chain(&kept.chain);
        let identity = identity.map_err(|error| NodeError::failed("the node's certificate", &error))?;
        let Kept { key, chain, raft } = kept;
        Ok(Self { identity, roots, raft, unlock, chain, key: Arc::new(key) })
    }

    pub(super) fn take(&mut self, joined: Joined) {
        let Joined { identity, key, chain, roots } = joined;
        if identity.role == NodeRole::Worker {
            // Only managers lock themselves, and have a log.
            (self.raft, self.unlock) = (None, None);
        }
        (self.identity, self.key, self.chain, self.roots) = (identity, Arc::new(key), chain, roots);
    }

    pub(super) fn write(&self, folder: &Folder) -> Result<(), NodeError> {
        let key =
            NodeKey::read(self.key.pkcs8()).map_err(|error| NodeError::failed("the node's key", &error))?;
        folder.write(&Kept { key, chain: self.chain.clone(), raft: self.raft }, self.unlock.as_ref())?;
        Ok(folder.write_roots(&self.roots)?)
    }

    /// As they are by the roots alone: a manager knows of removed nodes, too.
    pub(super) fn credentials(&self, cluster: ClusterId) -> Result<Credentials, NodeError> {
        let trust =
            Trust::in_roots(&self.roots).map_err(|error| NodeError::failed("the cluster's roots", &error))?;
        Ok(Credentials {
            identity: self.identity,
            chain: self.chain.clone(),
            key: Arc::clone(&self.key),
            trust: Arc::new(trust.in_cluster(cluster)),
        })
    }

    /// The roots, by the keys that they are of.
    pub(super) fn root_ids(&self) -> Vec<CaKeyId> {
        let blocks = self.roots.split_inclusive("-----END CERTIFICATE-----\n");
        let ids: BTreeSet<_> =
            blocks.filter_map(|block| root::describe(block).ok()).map(|it| it.id).collect();
        ids.into_iter().collect()
    }
}
