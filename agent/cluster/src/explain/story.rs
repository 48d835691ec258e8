//! One task in sentences. Called by [`Teller`] alone.

use std::collections::BTreeMap;

use super::{TaskStory, Teller};
use crate::constraint::Descriptor;
use crate::id::{NodeId, ServiceId};
use crate::objects::decision::{Cause, Placed};
use crate::objects::node::NodeState;
use crate::objects::task::{Gate, RestartCondition, Stop};
use crate::objects::{Task, TaskState};
use crate::time::Timestamp;

/// How many earlier tasks are told of.
const MOST_EARLIER: usize = 4;

impl Teller<'_> {
    pub(super) fn story(&self, task: &Task) -> TaskStory {
        let status = self.view.status(task);
        let why = self.cause(task).into_iter().chain(self.place(task)).collect();
        TaskStory {
            id: task.id.to_string(),
            name: self.called(task),
            node: task.node.map(|node| self.name_of(node)),
            state: status.state,
            state_for_seconds: self.now.since(status.since).as_secs(),
            desired: task.desired_state,
            cause: task.decision.cause,
            why,
            waits: self.waits(task),
            nodes: Vec::new(),
            earlier: self.earlier(task),
        }
    }

    /// Why it was made.
    fn cause(&self, task: &Task) -> Option<String> {
        let before = task.replaces.and_then(|id| self.view.task(id));
        let place = before.and_then(|before| before.node);
        let on = place.map_or_else(|| "its node".to_owned(), |node| format!("node {}", self.name_of(node)));
        Some(match task.decision.cause {
            Cause::Unknown => return None,
            Cause::Created => "made with the service".to_owned(),
            Cause::Scaled => "made since the service wants more tasks than before".to_owned(),
            Cause::NodeCame => "made since its node is there for the service".to_owned(),
            Cause::Run => format!("made for run {} of the job", task.job_iteration.unwrap_or_default()),
            Cause::Restarted { exit_code } => match (before, exit_code) {
                (Some(before), _) => format!("restarted: {}", self.ended(before)),
                (None, Some(code)) => {
                    format!("restarted: the one before ended by itself with exit code {code}")
                }
                (None, None) => "restarted: the one before ended by itself".to_owned(),
            },
            Cause::NodeDown => {
                let node = place.and_then(|node| self.view.node(node));
                let is_down = node.is_some_and(|node| node.status.state != NodeState::Ready);
                let said = node.filter(|_| is_down).map(|node| format!(" ({})", node.status.message));
                format!("moved: {on} {} down{}", if is_down { "is" } else { "was" }, said.unwrap_or_default())
            }
            Cause::NodeRemoved => format!("moved: {on} was removed from the cluster"),
            Cause::Drained => format!("moved: {on} is drained"),
            Cause::Moved => {
                // Who is preempted or rebalanced says so in its record; its end alone is no error.
                let displaced = before.and_then(|before| before.displaced.as_ref());
                let said = displaced.map(|it| it.reason.as_str());
                let error = before.map(|before| &*before.status.error);
                let said = said.into_iter().chain(error).find(|text| !text.is_empty());
                let said = said.unwrap_or("it did not fit there any more");
                format!("moved: the one before was asked to leave {on}: {said}")
            }
            Cause::Updated => "made since the service's spec has changed".to_owned(),
            Cause::RolledBack => "made since the service goes back to its spec of before".to_owned(),
        })
    }

    /// Why it is where it is.
    fn place(&self, task: &Task) -> Vec<String> {
        let Some(node) = task.node else { return Vec::new() };
        let name = self.name_of(node);
        let Some(Placed { nodes, of_service, live }) = task.decision.placed else {
            let is_global = task.service.is_some() && task.slot == 0;
            return if is_global { vec![format!("on {name}: each node has one")] } else { Vec::new() };
        };
        let mut told = vec![format!(
            "on {name}: chosen of {nodes} node{}, with {of_service} task{} of the service and {live} in all",
            plural(nodes),
            plural(of_service),
        )];
        let object = self.view.node(node);
        for text in &task.spec.placement.spread {
            if let (Some(object), Some(descriptor)) = (object, Descriptor::parse(text)) {
                told.push(format!("spread over {text}: {name} has {:?}", descriptor.of(object)));
            }
        }
        told
    }

    /// What keeps it from running, or how it ended.
    fn waits(&self, task: &Task) -> Vec<String> {
        let status = self.view.status(task);
        let state = status.state;
        let said = |instead: &str| {
            if status.error.is_empty() { instead.to_owned() } else { status.error.to_string() }
        };
        if state.is_terminal() {
            return std::iter::once(self.end(task)).chain(self.given_up(task)).collect();
        }
        if task.desired_state > TaskState::Complete {
            let lost = task
                .node
                .and_then(|node| self.view.node(node))
                .filter(|node| matches!(node.status.state, NodeState::Down | NodeState::Disconnected));
            let lost = lost.map(|_| ", and its node is not there to say whether it has");
            return vec![format!("was asked to stop{}", lost.unwrap_or_default())];
        }
        match state {
            TaskState::New if task.gate == Gate::Closed => vec![said("waits for other services")],
            TaskState::New => vec![said("waits for its addresses")],
            TaskState::Pending => vec![said("waits for the scheduler")],
            TaskState::Running => Vec::new(),
            _ => self.held(task).into_iter().chain([said(&status.message)]).collect(),
        }
    }

    /// Of one that may not start yet.
    fn held(&self, task: &Task) -> Option<String> {
        if task.desired_state != TaskState::Ready {
            return None;
        }
        if let Some(moment) = task.start_after.filter(|moment| *moment > self.now) {
            return Some(format!(
                "held for {} more, its restart delay",
                seconds(moment.since(self.now).as_secs())
            ));
        }
        let before = task.replaces.and_then(|id| self.view.task(id))?;
        (!self.view.state(before).is_terminal()).then(|| format!("held until task {} has stopped", before.id))
    }

    /// Whether it has ended by itself, and nothing came after it in its slot.
    pub(super) fn is_given_up(&self, task: &Task) -> bool {
        let ended = self.view.state(task).is_terminal() && task.stop == Stop::NotAsked;
        ended && task.desired_state < TaskState::Remove && self.newest_of_slot(task) <= task.meta.created_at
    }

    /// When the newest task of its slot was made. Of a service that is bound to nodes a node is one, and its tasks are found among all
    /// of the service's: once for each answer.
    fn newest_of_slot(&self, task: &Task) -> Timestamp {
        let made = task.meta.created_at;
        let Some(service) = task.service else { return made };
        if !self.is_bound_to_nodes(service) {
            return self.of_slot(task).map(|other| other.meta.created_at).fold(made, Ord::max);
        }
        let mut newest = self.newest.borrow_mut();
        let of_service = newest.entry(service).or_insert_with(|| {
            let mut newest = BTreeMap::new();
            for task in self.view.tasks_of(service) {
                let last = newest.entry(task.node).or_insert(task.meta.created_at);
                *last = task.meta.created_at.max(*last);
            }
            newest
        });
        of_service.get(&task.node).copied().unwrap_or(made)
    }

    fn is_bound_to_nodes(&self, service: ServiceId) -> bool {
        self.view.service(service).is_some_and(|service| service.spec.mode.is_bound_to_nodes())
    }

    /// Why nothing replaces a task that has ended, if nothing does.
    fn given_up(&self, task: &Task) -> Option<String> {
        let service = self.view.service(task.service?).filter(|_| self.is_given_up(task))?;
        if service.spec.mode.is_job() && self.view.state(task) == TaskState::Complete {
            return Some("it is done".to_owned());
        }
        let policy = task.spec.restart.unwrap_or_default();
        let attempts = match policy.max_attempts {
            0 => String::new(),
            most => format!(", at most {most} time{}", if most == 1 { "" } else { "s" }),
        };
        let is_forever = policy.max_attempts == 0 && policy.condition == RestartCondition::Any;
        let policy = condition(policy.condition);
        (!is_forever).then(|| format!("not replaced: its restart policy is {policy}{attempts}"))
    }

    fn earlier(&self, task: &Task) -> Vec<String> {
        let mut before: Vec<_> =
            self.of_slot(task).filter(|other| other.meta.created_at < task.meta.created_at).collect();
        before.sort_by_key(|other| std::cmp::Reverse(other.meta.created_at));
        before.into_iter().take(MOST_EARLIER).map(|other| self.ended(other)).collect()
    }

    /// The tasks of its slot.
    fn of_slot<'t>(&'t self, task: &'t Task) -> impl Iterator<Item = &'t Task> {
        let of = task.service.map(|service| self.view.tasks_in(service, task.slot));
        let is_global = task.service.is_some_and(|service| self.is_bound_to_nodes(service));
        of.into_iter()
            .flatten()
            .map(AsRef::as_ref)
            .filter(move |other: &&Task| other.id != task.id && (!is_global || other.node == task.node))
    }

    /// Another task, where it was and how it ended.
    fn ended(&self, task: &Task) -> String {
        let on = task.node.map(|node| format!(" on {}", self.name_of(node))).unwrap_or_default();
        format!("task {}{on}: {}", task.id, self.end(task))
    }

    fn end(&self, task: &Task) -> String {
        let status = self.view.status(task);
        let code = status
            .container
            .as_ref()
            .map(|container| container.exit_code)
            .filter(|_| status.state.is_terminal());
        let code = code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
        let error = if status.error.is_empty() { String::new() } else { format!(": {}", status.error) };
        format!("{} for {}{code}{error}", word(status.state), self.ago(status.since))
    }

    /// As `docker service ps` has it.
    fn called(&self, task: &Task) -> String {
        match (task.slot, task.node) {
            (0, Some(node)) => format!("{}.{}", task.service_name, self.name_of(node)),
            (slot, _) => format!("{}.{slot}", task.service_name),
        }
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        let description = self.view.node(node).and_then(|node| node.description.as_ref());
        let name = description.map(|it| it.hostname.clone()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| node.to_string())
    }

    pub(super) fn ago(&self, moment: Timestamp) -> String {
        seconds(self.now.since(moment).as_secs())
    }
}

fn condition(condition: RestartCondition) -> &'static str {
    match condition {
        RestartCondition::None => "never",
        RestartCondition::OnFailure => "on failure",
        RestartCondition::Any => "always",
    }
}

pub(super) fn word(state: TaskState) -> String {
    format!("{state:?}").to_lowercase()
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// In the largest two units.
pub(super) fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
