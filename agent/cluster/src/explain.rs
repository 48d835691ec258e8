//! Why things are as they are: each task's place, wait, move or restart, in sentences, for `ketchd cluster explain`.
//!
//! What was decided is read where it was recorded: in [`Decision`](crate::objects::Decision) and the statuses of tasks, in the tasks
//! that a slot's history keeps, in nodes' verdicts. What holds as of now (what each node says to a task that waits) is asked anew of
//! the scheduler's filters. Nothing is decided here and nothing written. `ketchd`'s route calls it on the leader;
//! [`shown`] is how its command prints the answer. `design/explain.md`.

mod shown;
mod story;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::autoscale;
use crate::control::{ControlError, ErrorKind, find_node, find_service, find_task, texts};
use crate::id::{NodeId, ServiceId};
use crate::objects::decision::Cause;
use crate::objects::{Node, Service, ServiceMode, Task, TaskState, Version};
use crate::orchestrator::schedule;
use crate::scheduler::refusals::{Answer, answers, is_closed};
use crate::time::Timestamp;
use crate::view::View;

use self::story::seconds;

/// How many tasks one answer tells of.
const MOST_TASKS: usize = 200;
/// How many nodes are named for each task that waits.
const MOST_NODES: usize = 50;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Explained {
    Service(Group),
    Task(TaskStory),
    Node(Group),
}

/// A service or a node with its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub name: String,
    /// Of a service its mode, of a node its state.
    pub state: String,
    /// What concerns all of it.
    pub notes: Vec<String>,
    pub tasks: Vec<TaskStory>,
    /// Of how many more tasks nothing is said here.
    pub left_out: usize,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStory {
    pub id: String,
    /// Of the service and the slot: `web.1`; of a global one the node's name in place of the number.
    pub name: String,
    /// The node's name.
    pub node: Option<String>,
    pub state: TaskState,
    pub state_for_seconds: u64,
    pub desired: TaskState,
    pub cause: Cause,
    /// Why it was made, and why it is where it is.
    pub why: Vec<String>,
    /// What keeps it from running, or how it ended.
    pub waits: Vec<String>,
    /// What nodes say to it as of now.
    pub nodes: Vec<NodeAnswer>,
    /// Those before it in its slot, the newest first, as far as history keeps them.
    pub earlier: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    pub node: String,
    /// None where it could have the task.
    pub refusal: Option<String>,
}

/// Explains the service, task or node of that name or id, in that order.
///
/// # Errors
/// When nothing is called so, or several things of the first kind are.
pub fn explain(view: &View<'_>, text: &str, now: Timestamp) -> Result<Explained, ControlError> {
    let teller = Teller { view, now, newest: RefCell::default() };
    if let Some(service) = found(find_service(view, text))? {
        return Ok(Explained::Service(teller.service(&service)));
    }
    if let Some(task) = found(find_task(view, text))? {
        return Ok(Explained::Task(teller.task(&task)));
    }
    if let Some(node) = found(find_node(view, text))? {
        return Ok(Explained::Node(teller.node(&node)));
    }
    Err(texts::nothing_to_explain(text))
}

fn found<T>(looked: Result<T, ControlError>) -> Result<Option<T>, ControlError> {
    match looked {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        looked => looked.map(Some),
    }
}

struct Teller<'v> {
    view: &'v View<'v>,
    now: Timestamp,
    /// When the newest task of each node was made, of those services bound to nodes that were asked for.
    newest: RefCell<BTreeMap<ServiceId, BTreeMap<Option<NodeId>, Timestamp>>>,
}

impl Teller<'_> {
    fn service(&self, service: &Service) -> Group {
        let mut tasks: Vec<_> = self.view.tasks_of(service.id).filter(|task| self.is_present(task)).collect();
        tasks.sort_by_key(|task| (task.slot, task.node, task.meta.created_at));
        Group {
            id: service.id.to_string(),
            name: service.spec.name.clone(),
            state: mode(service.spec.mode),
            notes: self.notes_on(service),
            left_out: tasks.len().saturating_sub(MOST_TASKS),
            tasks: self.stories(&tasks),
        }
    }

    fn notes_on(&self, service: &Service) -> Vec<String> {
        let update = service
            .update_status
            .as_ref()
            .map(|status| format!("its update of {} ago: {}", self.ago(status.started_at), status.message));
        let passed = service.job.and_then(|job| job.schedule).and_then(|schedule| schedule.passed);
        let passed = passed.map(|passed| {
            format!("the due time of {} ago made no run: {}", self.ago(passed.due), passed.why.text())
        });
        let ahead = schedule::ahead_by(service, self.now).map(|ahead| {
            let span = seconds(ahead.as_secs());
            format!(
                "no run for {span}: a leader's clock that was ahead has decided on the due times until then"
            )
        });
        let scaling = autoscale::see(self.view, service.id).map(|sight| sight.told());
        update.into_iter().chain(passed).chain(ahead).chain(scaling).collect()
    }

    fn node(&self, node: &Node) -> Group {
        let mut tasks: Vec<_> = self.view.tasks_on(node.id).filter(|task| self.is_present(task)).collect();
        tasks.sort_by_key(|task| (&task.service_name, task.slot, task.meta.created_at));
        let closed = is_closed(node).map(|why| format!("takes no new tasks: {why}"));
        let mut notes = vec![closed.unwrap_or_else(|| "takes new tasks".to_owned())];
        if !node.status.message.is_empty() {
            notes.push(format!("{} ago: {}", self.ago(node.status.since), node.status.message));
        }
        let ended = self.view.tasks_on(node.id).filter(|task| !self.is_present(task)).count();
        if ended > 0 {
            notes.push(format!("{ended} earlier task{} in history", if ended == 1 { "" } else { "s" }));
        }
        Group {
            id: node.id.to_string(),
            name: self.name_of(node.id),
            state: format!("{:?}", node.status.state).to_lowercase(),
            notes,
            left_out: tasks.len().saturating_sub(MOST_TASKS),
            tasks: self.stories(&tasks),
        }
    }

    /// With what each node says, also of a task that has one.
    fn task(&self, task: &Task) -> TaskStory {
        let mut story = self.story(task);
        let is_placed = task.node.is_some() && !self.view.state(task).is_terminal();
        if is_placed || self.view.state(task) == TaskState::Pending {
            // Its own node counts it already.
            let others = answers(self.view, task).into_iter().filter(|it| Some(it.node) != task.node);
            story.nodes = self.said(others);
        }
        story
    }

    fn stories(&self, tasks: &[&Arc<Task>]) -> Vec<TaskStory> {
        // Tasks of one spec are told the same: a look at all nodes for each were many.
        let mut answered = BTreeMap::<(Option<ServiceId>, Version), Vec<NodeAnswer>>::new();
        let mut told = Vec::new();
        for task in tasks.iter().take(MOST_TASKS) {
            let mut story = self.story(task);
            if self.view.state(task) == TaskState::Pending && task.desired_state <= TaskState::Complete {
                let said = answered.entry((task.service, task.spec_version));
                let said = said.or_insert_with(|| self.said(answers(self.view, task).into_iter()));
                story.nodes.clone_from(said);
            }
            told.push(story);
        }
        told
    }

    fn said(&self, answers: impl Iterator<Item = Answer>) -> Vec<NodeAnswer> {
        let named = answers.map(|it| NodeAnswer { node: self.name_of(it.node), refusal: it.refusal });
        named.take(MOST_NODES).collect()
    }

    /// Whether it is no history: it is wanted, may still run, or is the last of a slot that was given up.
    fn is_present(&self, task: &Task) -> bool {
        let is_live = task.desired_state <= TaskState::Complete || !self.view.state(task).is_terminal();
        is_live || self.is_given_up(task)
    }
}

fn mode(mode: ServiceMode) -> String {
    match mode {
        ServiceMode::Replicated { replicas } => format!("replicated, {replicas} wanted"),
        ServiceMode::Global => "global".to_owned(),
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            format!("replicated job, {total_completions} wanted")
        }
        ServiceMode::GlobalJob => "global job".to_owned(),
    }
}
