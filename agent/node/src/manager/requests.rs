//! Requests of users that need more than the store: who is in raft, how long certificates hold, the next root.

use std::collections::BTreeSet;
use std::sync::Arc;

use ketch_ca::given::{GivenRoot, GivenRootError};
use ketch_ca::rotation;
use ketch_cluster::control::{
    ClusterUpdate, ControlError, Force, NewRoot, NodeRemoval, NodeUpdate, RaftMembers, remove_node, texts,
    update_cluster, update_node,
};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::cluster::CaConfig;
use ketch_cluster::objects::{Cluster, NodeSpec, Version};
use ketch_cluster::store::{Object, StoreAction};
use ketch_cluster::view::View;
use tokio::sync::watch;

use super::error::ChangeError;
use super::leader::Leader;
use super::members::{leader_of, raft_members};

type Requested = Result<(), ChangeError<ControlError>>;

impl Leader {
    /// `docker node update`, `promote`, `demote`.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn update_node(&self, id: NodeId, version: Version, spec: NodeSpec) -> Requested {
        let members = raft_members(&self.log);
        self.change(|view, now, _| {
            let update = NodeUpdate { version, spec, members: &members };
            update_node(view, id, update, now).map(|actions| ((), actions))
        })
        .await
    }

    /// `docker node rm`: its certificates are refused for as long as the last one of them can hold.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove_node(&self, id: NodeId, force: Force) -> Requested {
        let members = raft_members(&self.log);
        self.change(|view, now, _| {
            let expiry = view.cluster().map(|cluster| cluster.spec.ca.node_certificate_expiry);
            // Those that were issued before the expiry was lowered, too.
            let longest = expiry.unwrap_or_default().max(CaConfig::default().node_certificate_expiry);
            let removal = NodeRemoval { force, members: &members, certificate_ends: now.after(longest) };
            remove_node(view, id, &removal, now).map(|actions| ((), actions))
        })
        .await
    }

    /// `docker swarm update`, and `docker swarm ca --rotate`: a higher `force_rotate` begins the move to another root.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn update_cluster(&self, update: ClusterUpdate) -> Requested {
        self.change(|view, now, _| {
            let is_rotation = rotates(view, &update);
            let mut actions = update_cluster(view, update, now)?;
            if is_rotation {
                replace(&mut actions, |cluster| {
                    rotation::begin(cluster, now).map_err(|error| texts::root_not_made(&error))
                })?;
            }
            Ok(((), actions))
        })
        .await
    }

    /// The same, with a move to this root.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn update_cluster_to(&self, update: ClusterUpdate, root: NewRoot) -> Requested {
        self.change(|view, now, _| {
            let not_taken = |error: GivenRootError| texts::root_not_taken(&error);
            let root = GivenRoot::read(&root.certificate, &root.key, now).map_err(not_taken)?;
            let mut actions = update_cluster(view, update, now)?;
            replace(&mut actions, |cluster| rotation::begin_with(cluster, root, now).map_err(not_taken))?;
            Ok(((), actions))
        })
        .await
    }

    /// The voters, and whether this leader hears from each.
    #[must_use]
    pub fn members(&self) -> RaftMembers {
        raft_members(&self.log)
    }

    /// The node that leads, as far as this one knows: itself.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        leader_of(&self.log).map(|(node, _)| node)
    }

    /// The nodes that are to renew their certificates now, since the root changes. Of others [`Membership`] may name the next
    /// issuer later.
    ///
    /// [`Membership`]: crate::calls::Membership
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<Arc<BTreeSet<NodeId>>> {
        self.renewals.subscribe()
    }
}

/// Has the update write another cluster.
fn replace(
    actions: &mut [StoreAction],
    by: impl FnOnce(&Cluster) -> Result<Cluster, ControlError>,
) -> Result<(), ControlError> {
    let updates = actions.iter_mut().find_map(|action| match action {
        StoreAction::Update(Object::Cluster(cluster)) => Some(cluster),
        _ => None,
    });
    if let Some(cluster) = updates {
        *cluster = Arc::new(by(cluster)?);
    }
    Ok(())
}

fn rotates(view: &View<'_>, update: &ClusterUpdate) -> bool {
    view.cluster().is_some_and(|known| known.spec.ca.force_rotate < update.spec.ca.force_rotate)
}
