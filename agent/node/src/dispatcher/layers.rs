//! Which node gets a layer from which: the leader knows which nodes have tasks of an image, and so a right to it, and what those
//! have said of its blobs ([`sought`](super::sought)). Layers themselves go from node to node, never through here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::{TaskSpec, TaskState};
use ketch_cluster::view::View;
use tokio::time::Instant;

use super::Dispatcher;
use super::sought::{Asker, Peers, Table, Way};
use crate::calls::{
    BlobName, LayerAsked, LayerFound, LayerRight, LayerRightAsked, LayerSource, LayerStep, is_digest,
};
use crate::wire::Refusal;

/// As many nodes are looked at for one blob.
const MOST_PEERS: usize = 64;

/// Of one term.
#[derive(Debug, Default)]
pub(super) struct Layers(Mutex<Table>);

impl Dispatcher {
    pub(super) fn find_layer(&self, node: NodeId, asked: LayerAsked) -> Result<LayerFound, Refusal> {
        self.is_session(node, asked.session)?;
        let LayerAsked { session, name, step, avoid } = asked;
        if !name.is_right() {
            return Err(Refusal::Invalid("a layer is named by two digests".to_owned()));
        }
        // Only who seeks is told of others: it takes a look at all services.
        let entitled = self.leader.view(|view| match step {
            LayerStep::Seeks => entitled(view, node, &name.image),
            _ => (!credentials(view, node, &name.image).is_empty()).then(BTreeMap::new),
        });
        let Some(entitled) = entitled else {
            return Err(Refusal::NotFound(format!("no task of node {node} is of image {}", name.image)));
        };
        if let LayerStep::Blames(other) = step {
            tracing::warn!(%node, %other, layer = name.blob, "a node says that another one gave it wrong bytes");
        }
        let addresses: BTreeMap<NodeId, String> = (entitled.keys())
            .filter_map(|node| Some((*node, self.sessions.layers_at(*node)?)))
            .take(MOST_PEERS)
            .collect();
        let peers = Peers {
            complete: entitled.iter().filter(|(_, complete)| **complete).map(|(node, _)| *node).collect(),
            all: addresses.keys().copied().collect(),
        };
        let way = self.layers.take(
            &name,
            (Asker { node, session }, step),
            (&peers, &avoid.into_iter().collect()),
            |it| self.sessions.has(it.node, it.session),
        );
        Ok(match way {
            Way::Registry => LayerFound { sources: Vec::new(), registry: true },
            Way::Nodes(nodes) => {
                let source = |node| Some(LayerSource { node, address: addresses.get(&node)?.clone() });
                LayerFound { sources: nodes.into_iter().filter_map(source).collect(), registry: false }
            }
        })
    }

    /// Whether another node may have from this one what belongs to an image. By which of its tasks' credentials the image came here
    /// nobody knows: the other one must have them all.
    pub(super) fn layer_right(&self, node: NodeId, asked: &LayerRightAsked) -> Result<LayerRight, Refusal> {
        self.is_session(node, asked.session)?;
        if !is_digest(&asked.image) {
            return Err(Refusal::Invalid("an image is named by its digest".to_owned()));
        }
        let may = self.leader.view(|view| {
            let wanted = credentials(view, asked.node, &asked.image);
            let given: BTreeSet<_> =
                view.tasks_on(node).filter_map(|task| credentials_for(&task.spec, &asked.image)).collect();
            !given.is_empty() && given.is_subset(&wanted)
        });
        Ok(LayerRight { may })
    }
}

impl Layers {
    fn take(
        &self,
        name: &BlobName,
        said: (Asker, LayerStep),
        about: (&Peers, &BTreeSet<NodeId>),
        is_there: impl Fn(Asker) -> bool,
    ) -> Way {
        self.lock().take(name, said, about, (Instant::now(), is_there))
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tasks of an image have been given for the registry; nothing is something, too: whoever needs none may have it.
type Credentials = Option<String>;

/// Those of a task, if it is of the image.
fn credentials_for(spec: &TaskSpec, image: &str) -> Option<Credentials> {
    let container = spec.container()?;
    let (_, digest) = container.image.rsplit_once('@')?;
    (digest == image).then(|| container.registry_auth.as_ref().map(|it| it.as_str().to_owned()))
}

/// By what a node may have the image: its tasks that have not ended.
fn credentials(view: &View<'_>, node: NodeId, image: &str) -> BTreeSet<Credentials> {
    let lives = view.tasks_on(node).filter(|task| view.state(task) <= TaskState::Running);
    lives.filter_map(|task| credentials_for(&task.spec, image)).collect()
}

/// The other nodes with tasks of the image by the same credentials, and whether a container of it was made there; none when the node
/// that asks has no right to the image itself. Somebody who knows a digest alone has none, and neither has a service by whose
/// credentials, or without any, the image was not fetched.
fn entitled(view: &View<'_>, node: NodeId, image: &str) -> Option<BTreeMap<NodeId, bool>> {
    let wanted = credentials(view, node, image);
    if wanted.is_empty() {
        return None;
    }
    let is_of = |spec: &TaskSpec| credentials_for(spec, image).is_some_and(|it| wanted.contains(&it));
    let own = view.tasks_on(node).filter(|task| is_of(&task.spec)).filter_map(|task| task.service);
    let same = view.services().filter(|service| is_of(&service.spec.task)).map(|service| service.id);
    let services: BTreeSet<_> = own.chain(same).collect();
    let mut found = BTreeMap::new();
    for task in services.into_iter().flat_map(|service| view.tasks_of(service)) {
        let Some(other) = task.node.filter(|other| *other != node) else { continue };
        let state = view.state(task);
        if !is_of(&task.spec) || state < TaskState::Assigned {
            continue;
        }
        *found.entry(other).or_default() |= (TaskState::Ready..=TaskState::Failed).contains(&state);
        if found.len() > MOST_PEERS * 4 {
            break;
        }
    }
    Some(found)
}
