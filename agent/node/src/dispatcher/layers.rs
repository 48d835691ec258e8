//! Which node gets a layer from which: the leader knows which nodes have tasks of an image, and so a right to it, and what those
//! have said of its blobs ([`sought`](super::sought)). Layers themselves go from node to node, never through here.

mod entitled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ketch_cluster::fault::Fault;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::{Service, Task, TaskSpec, TaskState};
use ketch_cluster::view::View;
use tokio::time::Instant;

use self::entitled::Entitled;
use super::Dispatcher;
use super::sought::{Asker, Peers, Table, Way};
use crate::calls::{
    BlobName, LayerAsked, LayerFound, LayerRight, LayerRightAsked, LayerSource, LayerStep, is_digest,
};
use crate::locks::lock;
use crate::mark::Marks;
use crate::wire::Refusal;

/// As many nodes are looked at for one blob.
const MOST_PEERS: usize = 64;

/// Of one term.
#[derive(Debug, Default)]
pub(super) struct Layers {
    table: Mutex<Table>,
    entitled: Mutex<Entitled>,
}

impl Dispatcher {
    pub(super) fn find_layer(&self, node: NodeId, asked: LayerAsked) -> Result<LayerFound, Refusal> {
        self.is_session(node, asked.session)?;
        let LayerAsked { session, name, step, avoid } = asked;
        if !name.is_right() {
            return Err(Refusal::Invalid("a layer is named by two digests".to_owned()));
        }
        let wanted = self.leader.view(|view| credentials(view, node, &name.image));
        if wanted.is_empty() {
            return Err(Refusal::NotFound(format!("no task of node {node} is of image {}", name.image)));
        }
        // Only who seeks is told of others.
        let entitled = match step {
            LayerStep::Seeks => self.entitled(&name.image, wanted),
            _ => Arc::default(),
        };
        if let LayerStep::Blames(other) = step {
            tracing::warn!(%node, %other, layer = name.blob, "a node says that another one gave it wrong bytes");
        }
        let addresses: BTreeMap<NodeId, String> = (entitled.keys().filter(|it| **it != node))
            .filter_map(|node| Some((*node, self.sessions.layers_at(*node)?)))
            .take(if Fault::HoldersUnnamed.is_made() { 0 } else { MOST_PEERS })
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

    /// Whether another node may have from this one, for a task of its own, what belongs to an image: by the credentials by which a
    /// registry gave it here, whatever tasks there are and were.
    pub(super) fn layer_right(&self, node: NodeId, asked: &LayerRightAsked) -> Result<LayerRight, Refusal> {
        self.is_session(node, asked.session)?;
        if !is_digest(&asked.image) {
            return Err(Refusal::Invalid("an image is named by its digest".to_owned()));
        }
        // Nobody finds out by many of them what a task's credentials are.
        if asked.marks.by.len() > Marks::MOST {
            return Err(Refusal::Invalid(format!("something has at most {} marks", Marks::MOST)));
        }
        let by = self.leader.view(|view| {
            let task = view.task(asked.task).filter(|task| task.node == Some(asked.node))?;
            let credentials = credentials_for(&task.spec, &asked.image).filter(|_| lives(view, task))?;
            let first = asked.marks.by.first().copied().filter(|_| Fault::RightSkipped.is_made());
            first.or_else(|| asked.marks.for_credentials(credentials.as_deref()))
        });
        Ok(LayerRight { by })
    }

    /// Who may have the image by these credentials. It takes a look at all services: many who ask at once are told the same.
    pub(super) fn entitled(&self, image: &str, wanted: BTreeSet<Credentials>) -> Arc<BTreeMap<NodeId, bool>> {
        let about = (image.to_owned(), wanted);
        let known = lock(&self.layers.entitled).of(&about, Instant::now());
        known.unwrap_or_else(|| {
            let found = Arc::new(self.leader.view(|view| entitled(view, &about.0, &about.1)));
            lock(&self.layers.entitled).learn(about, Arc::clone(&found), Instant::now());
            found
        })
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
        lock(&self.table).take(name, said, about, (Instant::now(), is_there))
    }

    pub(super) fn clear(&self) {
        lock(&self.table).clear();
        lock(&self.entitled).clear();
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
    let of_node = view.tasks_on(node).filter(|task| lives(view, task));
    of_node.filter_map(|task| credentials_for(&task.spec, image)).collect()
}

fn lives(view: &View<'_>, task: &Task) -> bool {
    view.state(task) <= TaskState::Running
}

/// The nodes with tasks of the image by one of these credentials, and whether a container of it was made there. Somebody who knows a
/// digest alone learns of none, and neither does a service without such credentials.
fn entitled(view: &View<'_>, image: &str, wanted: &BTreeSet<Credentials>) -> BTreeMap<NodeId, bool> {
    let is_of = |spec: &TaskSpec| credentials_for(spec, image).is_some_and(|it| wanted.contains(&it));
    let was = |service: &Service| service.previous_spec.as_ref().is_some_and(|spec| is_of(&spec.task));
    let services = view.services().filter(|it| is_of(&it.spec.task) || was(it)).map(|service| service.id);
    let mut found = BTreeMap::new();
    for task in services.flat_map(|service| view.tasks_of(service)) {
        let Some(other) = task.node else { continue };
        let state = view.state(task);
        if !is_of(&task.spec) || state < TaskState::Assigned {
            continue;
        }
        *found.entry(other).or_default() |= (TaskState::Ready..=TaskState::Failed).contains(&state);
        if found.len() > MOST_PEERS * 4 {
            break;
        }
    }
    found
}
