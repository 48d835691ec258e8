//! Every node with its row, kept from one pass to the next.
//!
//! A row is what the view says of its node, and a sum over the tasks there. It is counted on as a pass places, and made anew of
//! the view when something else has changed of it ([`NodeTable::committed`], [`NodeTable::noted`]): so the table is at each
//! pass what it would be had it been made then, and costs what has changed. Whether it was kept can't be seen from outside,
//! which `kept` proves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::filter::{Filter, NodeWants};
use super::layout::Layout;
use super::members::Members;
use super::nodes::NodeRow;
use super::partition::{Partition, Place};
use super::pipeline::Pipeline;
use super::presence::Presence;
use super::spread::Tree;
use super::vacated::is_of_late;
use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::{GenericResource, Node, PortConfig, Task, TaskState, TaskStatus};
use crate::reconcilers::Word;
use crate::store::{Change, Object};
use crate::time::Timestamp;
use crate::view::View;

/// How many partitions are kept, each for the tasks that ask the same of a node. One has some 20 bytes for each node, and a bit of it for each number of live
/// tasks that nodes have.
const MOST_PARTITIONS: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct NodeTable {
    /// In the order of the nodes' ids.
    rows: Vec<NodeRow>,
    /// Where each service has live tasks, if it has any.
    presences: BTreeMap<ServiceId, Presence>,
    /// That of the service that is being placed, which is asked at every step: it is not among the others then.
    arranged: Option<(ServiceId, Presence)>,
    /// Tasks that have failed on some node, and perhaps some that are not there any more.
    failed: BTreeSet<(ServiceId, TaskId)>,
    /// Those of them that have come to be known so lately that a successor may be on its way.
    lately_failed: BTreeSet<TaskId>,
    layouts: Vec<Known>,
    partitions: Vec<Partition>,
    /// Grows with each use of a partition.
    uses: u64,
    is: Extent,
    /// The nodes whose rows are to be made anew.
    outdated: BTreeSet<NodeId>,
    /// What the last pass has placed, in that order, and is not known to be committed: it is in the rows already.
    placed: VecDeque<(TaskId, NodeId)>,
}

/// How the rows are apart, and the tree by which tasks are placed on them: none while it is lent.
#[derive(Debug, Clone)]
struct Known {
    layout: Arc<Layout>,
    tree: Option<Tree>,
}

/// Whether the rows are those of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Extent {
    /// Nodes have come or are gone, or it was never made.
    #[default]
    Partial,
    Whole,
}

/// A service's way through the rows of one leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'m> {
    pub(super) leaf: usize,
    /// The member of it with which this service begins.
    pub(super) start: usize,
    /// The members that it passes over.
    pub(super) without: Option<&'m Members>,
}

impl NodeTable {
    /// Brings it to what the view says.
    pub(super) fn refresh(&mut self, view: &View<'_>) {
        // Of a turn that was refused: it did not come to be.
        self.outdated.extend(self.placed.drain(..).map(|(_, node)| node));
        match self.is {
            Extent::Partial => self.make_anew(view),
            Extent::Whole => {
                for id in std::mem::take(&mut self.outdated) {
                    self.make_row_anew(view, id);
                }
            }
        }
    }

    /// Learns of committed changes, in their order.
    pub(super) fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            match (change.old.as_ref(), change.new.as_ref()) {
                (Some(Object::Node(old)), Some(Object::Node(new))) if !old.is_the_same_place_as(new) => {
                    self.outdated.insert(new.id);
                }
                (Some(Object::Node(_)), None) | (None, Some(Object::Node(_))) => self.is = Extent::Partial,
                (Some(Object::Task(old)), Some(Object::Task(new))) => self.changed(Some(old), Some(new)),
                (Some(Object::Task(old)), None) => self.changed(Some(old), None),
                (None, Some(Object::Task(new))) => self.changed(None, Some(new)),
                _ => {}
            }
        }
    }

    /// Learns of a worker's word.
    pub(super) fn noted(&mut self, word: &Word<'_>) {
        let before = claim_of(word.task, word.before);
        if before != claim_of(word.task, word.after) {
            self.outdated.extend(word.task.node);
        }
    }

    fn changed(&mut self, old: Option<&Task>, new: Option<&Task>) {
        if let (Some(old), None) = (old, new)
            && let Some(service) = old.service
        {
            self.failed.remove(&(service, old.id));
        }
        if !has_other_claim(old, new) {
            return;
        }
        let place = new.and_then(|task| Some((task.id, task.node?)));
        if place.is_some() && self.placed.front() == place.as_ref() {
            self.placed.pop_front();
        } else {
            self.outdated.extend([old, new].into_iter().flatten().filter_map(|task| task.node));
        }
    }

    fn make_anew(&mut self, view: &View<'_>) {
        let mut known = std::mem::take(&mut self.rows).into_iter().peekable();
        let mut rows = Vec::new();
        for node in view.nodes() {
            while known.next_if(|row| row.node.id < node.id).is_some() {}
            let kept = known.next_if(|row| row.node.id == node.id && !self.outdated.contains(&node.id));
            rows.push(kept.unwrap_or_else(|| self.read_row(view, node)));
        }
        self.presences.clear();
        for (index, row) in rows.iter().enumerate() {
            for (service, live) in row.services() {
                self.presences.entry(service).or_default().change(index, 0, live);
            }
        }
        self.rows = rows;
        self.layouts.clear();
        self.partitions.clear();
        self.outdated.clear();
        self.is = Extent::Whole;
    }

    /// The node's row as the view has it. Of tasks that have failed there a note is taken.
    fn read_row(&mut self, view: &View<'_>, node: &Arc<Node>) -> NodeRow {
        let mut failed = BTreeSet::new();
        let row = NodeRow::of(view, node, &mut failed);
        let news = failed.into_iter().filter(|it| self.failed.insert(*it));
        self.lately_failed.extend(news.map(|(_, task)| task));
        row
    }

    fn make_row_anew(&mut self, view: &View<'_>, id: NodeId) {
        let (Some(index), Some(node)) = (self.find(id), view.node(id)) else { return };
        let row = self.read_row(view, node);
        let old = std::mem::replace(&mut self.rows[index], row);
        let row = &self.rows[index];
        let before = old.services().map(|(service, live)| (service, live, row.live_of(Some(service))));
        let new = row.services().map(|(service, live)| (service, old.live_of(Some(service)), live));
        let new = new.filter(|(_, before, _)| *before == 0);
        for (service, before, after) in before.chain(new).filter(|(_, before, after)| before != after) {
            let presence = self.presences.entry(service).or_default();
            presence.change(index, before, after);
            if presence.is_empty() {
                self.presences.remove(&service);
            }
        }
        self.layouts.retain(|Known { layout, .. }| {
            let stays = layout.has_same_place(&old.node, &row.node);
            if !stays {
                for (service, presence) in &mut self.presences {
                    presence.forget(layout, |row| self.rows[row].live_of(Some(*service)));
                }
            }
            stays
        });
        self.partitions.retain_mut(|partition| {
            let stays = partition.layout().has_same_place(&old.node, &row.node);
            if stays {
                partition.look_again(index, row);
            }
            stays
        });
    }

    /// How many rows the next pass makes anew.
    #[cfg(test)]
    pub(super) fn outdated(&self) -> usize {
        self.outdated.len() + self.placed.len()
    }

    pub(super) fn rows(&self) -> &[NodeRow] {
        &self.rows
    }

    pub(super) fn find(&self, id: NodeId) -> Option<usize> {
        self.rows.binary_search_by_key(&id, |row| row.id).ok()
    }

    /// Where on the ring of rows a service begins.
    pub(super) fn start_of(&self, service: Option<ServiceId>) -> usize {
        let start = super::nodes::start_of(service);
        self.rows.partition_point(|row| row.id.bits() < start)
    }

    /// Where the service that is being placed has live tasks; none of tasks that have no service.
    pub(super) fn arranged(&self) -> Option<&Presence> {
        self.arranged.as_ref().map(|(_, presence)| presence)
    }

    /// Before tasks of the service are placed by that partition: has those that it has apart by its leaves.
    pub(super) fn arrange(&mut self, service: Option<ServiceId>, partition: usize) {
        let Some(service) = service else { return };
        let mut presence = self.presences.remove(&service).unwrap_or_default();
        let layout = self.partitions[partition].shared_layout();
        presence.arrange(layout, |row| self.rows[row].live_of(Some(service)));
        self.arranged = Some((service, presence));
    }

    /// After they were placed, if any were.
    pub(super) fn end_arrangement(&mut self) {
        self.presences.extend(self.arranged.take().filter(|(_, presence)| !presence.is_empty()));
    }

    /// Tasks of the service that may have failed.
    pub(super) fn failed(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        let (first, last) = ((service, TaskId::of(0)), (service, TaskId::of(u128::MAX)));
        self.failed.range(first..=last).map(|(_, task)| *task)
    }

    /// The tasks that have failed so lately that a successor may be on its way.
    pub(super) fn lately_failed(&mut self, view: &View<'_>, now: Timestamp) -> &BTreeSet<TaskId> {
        self.lately_failed.retain(|id| view.task(*id).is_some_and(|task| is_of_late(view, task, now)));
        &self.lately_failed
    }

    /// Counts a task that is placed there, see [`NodeRow::add`]. Partitions see it when they come to the row.
    pub(super) fn add(&mut self, index: usize, task: &Task, status: &TaskStatus) {
        self.count(index, task, status);
        self.placed.push_back((task.id, self.rows[index].id));
    }

    /// The same of one that is not there, for the rest of this pass: nobody commits it.
    pub(super) fn add_as_if(&mut self, index: usize, task: &Task, status: &TaskStatus) {
        self.count(index, task, status);
        self.outdated.insert(self.rows[index].id);
    }

    fn count(&mut self, index: usize, task: &Task, status: &TaskStatus) {
        let row = &mut self.rows[index];
        let live = row.live();
        row.add(task, status);
        if let Some(service) = task.service.filter(|_| row.live() > live) {
            match &mut self.arranged {
                Some((arranged, presence)) if *arranged == service => presence.add(index),
                _ => self.presences.entry(service).or_default().add(index),
            }
        }
    }

    /// The partition of the nodes that may have such tasks by these spread preferences, to be found with [`Self::partition`] until
    /// the next one is asked for.
    pub(super) fn partition_by(&mut self, preferences: &[String], pipeline: &Pipeline) -> usize {
        self.uses += 1;
        let wants = pipeline.of_node();
        let known = self.partitions.iter().position(|partition| partition.is_of(preferences, wants));
        let number = known.unwrap_or_else(|| {
            let layout = self.layout_by(preferences);
            let partition = Partition::of(layout, pipeline, &self.rows);
            if self.partitions.len() < MOST_PARTITIONS {
                self.partitions.push(partition);
                return self.partitions.len() - 1;
            }
            let oldest = (0..MOST_PARTITIONS).min_by_key(|number| self.partitions[*number].used).unwrap_or(0);
            self.partitions[oldest] = partition;
            oldest
        });
        self.partitions[number].used = self.uses;
        number
    }

    /// The tree by which a partition's rows are apart, until it is [given back](Self::give_back_tree).
    pub(super) fn lend_tree(&mut self, partition: usize) -> Tree {
        let layout = self.partitions[partition].shared_layout();
        let known = self.layouts.iter_mut().find(|known| Arc::ptr_eq(&known.layout, layout));
        known.and_then(|known| known.tree.take()).unwrap_or_else(|| Tree::of(layout.shape()))
    }

    pub(super) fn give_back_tree(&mut self, partition: usize, tree: Tree) {
        let layout = self.partitions[partition].shared_layout();
        if let Some(known) = self.layouts.iter_mut().find(|known| Arc::ptr_eq(&known.layout, layout)) {
            known.tree = Some(tree);
        }
    }

    fn layout_by(&mut self, preferences: &[String]) -> Arc<Layout> {
        let known =
            self.layouts.iter().map(|known| &known.layout).find(|layout| layout.is_of(preferences)).cloned();
        known.unwrap_or_else(|| {
            let layout = Arc::new(Layout::of(preferences, &self.rows));
            self.layouts.retain(|known| Arc::strong_count(&known.layout) > 1);
            let tree = Some(Tree::of(layout.shape()));
            self.layouts.push(Known { layout: Arc::clone(&layout), tree });
            layout
        })
    }

    pub(super) fn partition(&self, number: usize) -> &Partition {
        &self.partitions[number]
    }

    /// The place after `last` in a leaf, the first when there is no last: the fewest live tasks first, and among equal ones up
    /// from `start`, around the ring of ids. Rows that have a task of the service that is being placed are passed over.
    pub(super) fn after(
        &mut self,
        partition: usize,
        (leaf, start): (usize, usize),
        last: Option<Place>,
    ) -> Option<Place> {
        let without = self.arranged.as_ref().and_then(|(_, presence)| presence.members_of(leaf));
        self.partitions[partition].after(&self.rows, Walk { leaf, start, without }, last)
    }

    /// The row refuses such tasks, and will until it is made anew: nobody needs to pass over it any more.
    pub(super) fn strike(&mut self, partition: usize, row: usize, filter: Filter) {
        self.partitions[partition].strike(row, filter);
    }

    /// How many rows each filter refuses, if it is known that all refuse.
    pub(super) fn refused(&self, wants: &NodeWants) -> Option<[usize; Filter::ALL.len()]> {
        self.partitions.iter().filter(|partition| partition.wants() == wants).find_map(Partition::refused)
    }
}

/// What a task holds of its node; none of one that has no node, waits for the scheduler or has ended.
#[derive(Debug, PartialEq)]
struct Claim<'t> {
    is_live: bool,
    generic: &'t [GenericResource],
    ports: &'t [PortConfig],
}

fn claim_of<'t>(task: &'t Task, status: &'t TaskStatus) -> Option<Claim<'t>> {
    let holds_room = (TaskState::Assigned..=TaskState::Running).contains(&status.state);
    (task.node.is_some() && holds_room).then_some(Claim {
        is_live: task.desired_state <= TaskState::Complete,
        generic: &task.generic_resources,
        ports: &status.ports,
    })
}

fn has_other_claim(old: Option<&Task>, new: Option<&Task>) -> bool {
    fn claim(task: Option<&Task>) -> Option<(Option<NodeId>, Claim<'_>)> {
        task.and_then(|task| Some((task.node, claim_of(task, &task.status)?)))
    }
    claim(old) != claim(new)
}
