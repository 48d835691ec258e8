//! The numbers of this node's part in a cluster: its tasks, of a manager the log, of the leader its loops. The clusters' whole
//! sums come from the leader alone, so that no scraper adds them up three times.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ketch_cluster::objects::TaskState;
use ketch_cluster::view::View;
use ketch_node::dispatcher::Dispatcher;
use ketch_node::manager::Leader;
use ketch_node::node::{Figures, Node};

use super::page::{Family, Page};
use crate::locks::locked;

/// Counting all tasks costs a look at each while the store is held, some 0.1 s of a million: whoever asks so soon is told the same.
const FRESH: Duration = Duration::from_secs(2);

/// The sums over the cluster, and when they were made.
#[derive(Debug, Default)]
pub(super) struct LastSums(Mutex<Option<(Instant, Sums)>>);

/// How many of each there are.
#[derive(Debug, Clone, Default)]
struct Sums {
    nodes: BTreeMap<String, usize>,
    tasks: BTreeMap<TaskState, usize>,
    services: usize,
}

impl LastSums {
    /// Those of less than [`FRESH`] ago, or new ones; one at a time makes them, and the others wait for his.
    fn now(&self, make: impl FnOnce() -> Sums) -> Sums {
        let mut last = locked(&self.0);
        if let Some((made, sums)) = &*last
            && made.elapsed() < FRESH
        {
            return sums.clone();
        }
        let sums = make();
        *last = Some((Instant::now(), sums.clone()));
        sums
    }
}

pub(super) fn add(page: &mut Page, node: &Node, sums: &LastSums) {
    let Figures { tasks, log, leads } = node.figures();
    for (state, count) in tasks {
        let family = Family::gauge("ketch_worker_tasks", "Tasks of this node, by state");
        page.number(family, &[("state", word(state).as_str())], count);
    }
    if let Some(status) = log {
        add_log(page, &status);
    }
    if let Some((leader, dispatcher)) = leads {
        add_reconcilers(page, &leader);
        add_dispatcher(page, &dispatcher);
        add_objects(page, &sums.now(|| leader.view(Sums::of)));
    }
}

fn add_log(page: &mut Page, status: &ketch_raft::Status) {
    let mut gauge = |name, help, value: u64| page.number(Family::gauge(name, help), &[], value);
    gauge("ketch_raft_term", "The term of the log's leader", status.leadership.term);
    gauge("ketch_raft_is_leader", "Whether this manager leads", status.leadership.is_leader().into());
    gauge(
        "ketch_raft_has_leader",
        "Whether this manager knows a leader",
        status.leadership.leader.is_some().into(),
    );
    gauge("ketch_raft_voters", "Managers that vote", status.voters.len() as u64);
    for (name, help, index) in [
        ("ketch_raft_last_index", "The log's last entry here", status.last),
        ("ketch_raft_commit_index", "The last entry that a quorum has", status.committed),
        ("ketch_raft_applied_index", "The last entry in the store", status.applied),
        ("ketch_raft_snapshot_index", "The last entry in the snapshot", status.snapshot),
    ] {
        gauge(name, help, index.unwrap_or_default());
    }
    let behind =
        status.replicated.iter().map(|(_, at)| status.last.unwrap_or(0).saturating_sub(at.unwrap_or(0)));
    if let Some(most) = behind.max() {
        gauge("ketch_raft_slowest_peer_entries_behind", "How far the slowest other manager is behind", most);
    }
}

fn add_reconcilers(page: &mut Page, leader: &Leader) {
    if let Some((ready, later)) = leader.queue_lengths() {
        let queue =
            Family::gauge("ketch_reconciler_queue_length", "What is to be reconciled, now or at its moment");
        page.number(queue, &[("when", "now")], ready);
        page.number(queue, &[("when", "later")], later);
    }
    let counted = leader.counted();
    let turns = counted.turns();
    let family =
        Family::counter("ketch_reconciler_turns_total", "Turns of reconcilers that wanted something");
    for (&reconciler, turns) in &turns {
        page.number(family, &[("reconciler", reconciler), ("outcome", "committed")], turns.committed);
        page.number(family, &[("reconciler", reconciler), ("outcome", "refused")], turns.refused);
    }
    let family = Family::counter("ketch_reconciler_seconds_total", "What these turns took, by what was done");
    for (&reconciler, turns) in &turns {
        let labels = |step| [("reconciler", reconciler), ("step", step)];
        page.number(family, &labels("decide"), turns.deciding.as_secs_f64());
        page.number(family, &labels("commit"), turns.committing.as_secs_f64());
    }
    let placed = Family::counter(
        "ketch_scheduler_decisions_total",
        "Tasks given a node, and times one was told why it waits",
    );
    page.number(placed, &[("decision", "placed")], counted.placed.count());
    page.number(placed, &[("decision", "unplaced")], counted.unplaced.count());
    let decided = Family::counter(
        "ketch_leader_decisions_total",
        "Decisions on services that ask for them by labels: replicas by load, room made, moves, due times",
    );
    for (decision, count) in counted.decisions.all() {
        page.number(decided, &[("decision", decision)], count);
    }
    let family = Family::histogram(
        "ketch_raft_proposal_seconds",
        "From a proposal until it is in the store, or refused",
    );
    page.spans(family, &[], &counted.proposals.now());
    let family = Family::counter(
        "ketch_raft_failed_proposals_total",
        "Proposals that did not enter the store, or nobody knows",
    );
    page.number(family, &[], counted.failed_proposals.count());
}

fn add_dispatcher(page: &mut Page, dispatcher: &Dispatcher) {
    let family = Family::gauge("ketch_dispatcher_sessions", "Workers with a session");
    page.number(family, &[], dispatcher.open_sessions());
    let counted = dispatcher.counted();
    for (name, help, counter) in [
        ("ketch_dispatcher_sessions_total", "Sessions that workers have begun", &counted.sessions),
        ("ketch_dispatcher_heartbeats_total", "Heartbeats that were heard", &counted.heartbeats),
        ("ketch_dispatcher_silent_nodes_total", "Nodes whose heartbeats ended", &counted.silent),
        ("ketch_dispatcher_words_total", "Words of workers on their tasks", &counted.words),
    ] {
        page.number(Family::counter(name, help), &[], counter.count());
    }
}

impl Sums {
    fn of(view: &View<'_>) -> Self {
        let mut sums = Self { services: view.services().count(), ..Self::default() };
        for node in view.nodes() {
            *sums.nodes.entry(format!("{:?}", node.status.state).to_lowercase()).or_default() += 1;
        }
        for task in view.tasks() {
            *sums.tasks.entry(view.state(task)).or_default() += 1;
        }
        sums
    }
}

fn add_objects(page: &mut Page, Sums { nodes, tasks, services }: &Sums) {
    let family = Family::gauge("ketch_cluster_nodes", "Nodes of the cluster, by state");
    nodes.iter().for_each(|(state, count)| page.number(family, &[("state", state.as_str())], count));
    let family = Family::gauge("ketch_cluster_tasks", "Tasks of the cluster, by state; those of history too");
    tasks.iter().for_each(|(state, count)| page.number(family, &[("state", word(*state).as_str())], count));
    let family = Family::gauge("ketch_cluster_services", "Services of the cluster");
    page.number(family, &[], services);
}

fn word(state: TaskState) -> String {
    format!("{state:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_soon_costs_no_look_at_all_tasks() {
        let last = LastSums::default();
        let made = std::cell::Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            Sums { services: made.get(), ..Sums::default() }
        };
        let begun = Instant::now();
        let both = [last.now(make).services, last.now(make).services];
        assert!(both == [1, 1] || begun.elapsed() > FRESH, "{both:?}");
        *locked(&last.0) = None;
        assert!(last.now(make).services > 1);
    }
}
