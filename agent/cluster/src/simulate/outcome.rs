//! Before and after, compared for people: what becomes of each service, where its new tasks are, which wait and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Names;
use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::service::UpdateState;
use crate::objects::{Service, Task, TaskState, Version};
use crate::scheduler::refusals::answers;
use crate::view::View;

/// How many tasks and nodes are named for each service.
const MOST_NAMED: usize = 100;

/// What would be different.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Those that are touched: asked for, or whose tasks would move.
    pub services: Vec<ServiceOutcome>,
    pub new_networks: Names,
    pub new_secrets: Names,
    pub new_configs: Names,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOutcome {
    pub name: String,
    pub fate: Fate,
    /// Tasks that would be made and have a node.
    pub placed: Vec<Placed>,
    /// Tasks that would be stopped.
    pub stopped: Vec<Placed>,
    /// Tasks that would find no node, or wait for something else.
    pub waiting: Vec<Waiting>,
    /// Of a rolling update: how it would end, if every task of it runs.
    pub update: Option<String>,
    /// How many more tasks there are of each of the three lists together.
    pub left_out: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    Created,
    /// Its spec changes, and its tasks are replaced.
    Rolled,
    /// Its spec changes, and its tasks stay.
    Updated,
    Unchanged,
    /// It is not asked for, and its tasks change all the same.
    Affected,
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placed {
    pub task: String,
    pub node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waiting {
    pub task: String,
    pub why: String,
    /// Node and its refusal, of one that waits for a node.
    pub nodes: Vec<(String, String)>,
}

pub(super) fn of(before: &View<'_>, after: &View<'_>) -> Outcome {
    let ids: BTreeSet<ServiceId> = before.services().chain(after.services()).map(|it| it.id).collect();
    let mut services: Vec<_> = ids.into_iter().filter_map(|id| service(before, after, id)).collect();
    services.sort_by(|one, other| one.name.cmp(&other.name));
    let networks = after.networks().filter(|it| before.network(it.id).is_none());
    let secrets = after.secrets().filter(|it| before.secret(it.id).is_none());
    let configs = after.configs().filter(|it| before.config(it.id).is_none());
    Outcome {
        services,
        new_networks: networks.map(|it| it.spec.name.clone()).collect(),
        new_secrets: secrets.map(|it| it.spec.name.clone()).collect(),
        new_configs: configs.map(|it| it.spec.name.clone()).collect(),
    }
}

/// None of a service that nothing happens to and nobody has asked for.
fn service(before: &View<'_>, after: &View<'_>, id: ServiceId) -> Option<ServiceOutcome> {
    let (old, new) = (before.service(id), after.service(id));
    let is_live = |view: &View<'_>, task: &Task| {
        task.desired_state <= TaskState::Complete && !view.state(task).is_terminal()
    };
    let live = |view: &View<'_>| -> BTreeMap<TaskId, Task> {
        let tasks = view.tasks_of(id).filter(|task| is_live(view, task));
        tasks.map(|task| (task.id, Task::clone(task))).collect()
    };
    let (had, has) = (live(before), live(after));
    let made = has.iter().filter(|(id, _)| !had.contains_key(id)).map(|(_, task)| task);
    let (placed, unplaced): (Vec<_>, Vec<_>) =
        made.partition(|task| task.node.is_some() && after.state(task) >= TaskState::Assigned);
    let still: Vec<_> = has.values().filter(|task| after.state(task) < TaskState::Assigned).collect();
    let gone: Vec<_> = had.iter().filter(|(id, _)| !has.contains_key(id)).map(|(_, task)| task).collect();
    let is_moved = !(placed.is_empty() && unplaced.is_empty() && gone.is_empty());
    let fate = fate(old.map(AsRef::as_ref), new.map(AsRef::as_ref), is_moved, !gone.is_empty())?;
    let is_asked = !matches!(fate, Fate::Affected);
    let waiting: Vec<_> = if is_asked { still } else { unplaced };
    let named =
        |view: &View<'_>, task: &&Task| Placed { task: called(view, task), node: name_of(view, task.node) };
    let count = placed.len() + gone.len() + waiting.len();
    let mut outcome = ServiceOutcome {
        name: new.or(old)?.spec.name.clone(),
        fate,
        placed: placed.iter().map(|task| named(after, task)).collect(),
        stopped: gone.iter().map(|task| named(before, task)).collect(),
        waiting: all_waits(after, &waiting),
        update: new.and_then(|service| update_of(service)),
        left_out: 0,
    };
    for list in [&mut outcome.placed, &mut outcome.stopped] {
        list.sort();
        list.truncate(MOST_NAMED);
    }
    outcome.left_out = count - outcome.placed.len() - outcome.stopped.len() - outcome.waiting.len();
    Some(outcome)
}

fn fate(old: Option<&Service>, new: Option<&Service>, is_moved: bool, loses: bool) -> Option<Fate> {
    match (old, new) {
        (None, Some(_)) => Some(Fate::Created),
        (Some(_), None) => Some(Fate::Removed),
        (Some(old), Some(new)) if old.spec != new.spec => {
            let is_scaled_alone = old.spec.task == new.spec.task;
            Some(if loses && !is_scaled_alone { Fate::Rolled } else { Fate::Updated })
        }
        // Asked for, and the same.
        (Some(old), Some(new)) if old.meta.version != new.meta.version && !is_moved => Some(Fate::Unchanged),
        (Some(_), Some(_)) => is_moved.then_some(Fate::Affected),
        (None, None) => None,
    }
}

fn update_of(service: &Service) -> Option<String> {
    let status = service.update_status.as_ref()?;
    Some(match status.state {
        UpdateState::Completed => "completes".to_owned(),
        UpdateState::RollbackCompleted => "the rollback completes".to_owned(),
        UpdateState::Updating | UpdateState::RollbackStarted => "does not come to its end".to_owned(),
        UpdateState::Paused | UpdateState::RollbackPaused => status.message.clone(),
    })
}

/// Tasks of one spec are told the same: a look at all nodes for each were many.
fn all_waits(view: &View<'_>, tasks: &[&Task]) -> Vec<Waiting> {
    let mut refused = BTreeMap::<(Version, Option<NodeId>), Vec<(String, String)>>::new();
    let mut all = Vec::new();
    for task in tasks.iter().take(MOST_NAMED) {
        let error = view.status(task).error.clone();
        let nodes = match view.state(task) {
            TaskState::Pending => {
                refused.entry((task.spec_version, task.node)).or_insert_with(|| refusals(view, task)).clone()
            }
            _ => Vec::new(),
        };
        let why = if error.is_empty() { "waits".to_owned() } else { error.to_string() };
        all.push(Waiting { task: called(view, task), why, nodes });
    }
    all
}

fn refusals(view: &View<'_>, task: &Task) -> Vec<(String, String)> {
    let refused = answers(view, task).into_iter();
    let named = refused.filter_map(|it| Some((name_of(view, Some(it.node)), it.refusal?)));
    named.take(MOST_NAMED).collect()
}

fn called(view: &View<'_>, task: &Task) -> String {
    match (task.slot, task.node) {
        (0, Some(node)) => format!("{}.{}", task.service_name, name_of(view, Some(node))),
        (slot, _) => format!("{}.{slot}", task.service_name),
    }
}

fn name_of(view: &View<'_>, node: Option<NodeId>) -> String {
    let Some(id) = node else { return "no node".to_owned() };
    let description = view.node(id).and_then(|node| node.description.as_ref());
    let name = description.map(|it| it.hostname.clone()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| id.to_string())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, names) in
            [("network", &self.new_networks), ("secret", &self.new_secrets), ("config", &self.new_configs)]
        {
            names.iter().try_for_each(|name| writeln!(f, "{kind} {name}: would be created"))?;
        }
        self.services.iter().try_for_each(|service| write!(f, "{service}"))
    }
}

impl fmt::Display for ServiceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self.fate {
            Fate::Created => "would be created",
            Fate::Rolled => "would be updated, its tasks replaced",
            Fate::Updated => "would be updated, its tasks stay",
            Fate::Unchanged => "would stay as it is",
            Fate::Affected => "is not asked for, and its tasks would change",
            Fate::Removed => "would be removed",
        };
        writeln!(f, "service {}: {fate}", self.name)?;
        if let Some(update) = &self.update {
            writeln!(f, "  update: {update}, if every task runs")?;
        }
        self.stopped.iter().try_for_each(|it| writeln!(f, "  - {} on {}", it.task, it.node))?;
        self.placed.iter().try_for_each(|it| writeln!(f, "  + {} on {}", it.task, it.node))?;
        for it in &self.waiting {
            writeln!(f, "  ? {} would wait: {}", it.task, it.why)?;
            it.nodes.iter().try_for_each(|(node, why)| writeln!(f, "      {node}: {why}"))?;
        }
        if self.left_out > 0 {
            writeln!(f, "  and {} more tasks", self.left_out)?;
        }
        Ok(())
    }
}
