//! What each node says to a task, one by one and with the figures: for people who ask why. A pass says it in sums, since it has
//! no time for more; this asks all nodes all filters, and decides nothing.

use super::filter::Filter;
use super::nodes::NodeRow;
use super::pipeline::Pipeline;
use crate::constraint::Constraints;
use crate::id::NodeId;
use crate::objects::node::{Availability, NodeState};
use crate::objects::{Node, Task};
use crate::view::View;

/// One node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub node: NodeId,
    /// Why it can't have the task; none when it can.
    pub refusal: Option<String>,
}

/// Every node's, by the nodes' ids, as of this view. A node that has the task already counts it among its own.
#[must_use]
pub fn answers(view: &View<'_>, task: &Task) -> Vec<Answer> {
    let pipeline = Pipeline::of(view, task);
    let mut failed = std::collections::BTreeSet::new();
    let answer = |node: &std::sync::Arc<Node>| {
        let row = NodeRow::of(view, node, &mut failed);
        let refusal = pipeline.refusal(&row).map(|filter| said(filter, task, &row));
        Answer { node: node.id, refusal }
    };
    view.nodes().map(answer).collect()
}

/// Why the node takes no new tasks at all; none when it does.
#[must_use]
pub fn is_closed(node: &Node) -> Option<&'static str> {
    match (node.status.state, node.spec.availability) {
        (NodeState::Down, _) => Some("it is down"),
        (NodeState::Disconnected, _) => Some("it has left"),
        (NodeState::Unknown, _) => Some("the leader has not heard of it yet"),
        (NodeState::Ready, Availability::Pause) => Some("it is paused"),
        (NodeState::Ready, Availability::Drain) => Some("it is drained"),
        (NodeState::Ready, Availability::Active) => None,
    }
}

fn said(filter: Filter, task: &Task, row: &NodeRow) -> String {
    let placement = &task.spec.placement;
    match filter {
        Filter::Ready => is_closed(&row.node).unwrap_or("it takes no new tasks").to_owned(),
        Filter::Resources => {
            let wanted = &task.spec.resources.reservations;
            let (cpus, bytes) = row.free();
            let lacks_cpus = wanted.nano_cpus > 0 && u128::from(wanted.nano_cpus) > cpus;
            let lacks_bytes = wanted.memory_bytes > 0 && u128::from(wanted.memory_bytes) > bytes;
            let asked = [
                lacks_cpus
                    .then(|| format!("{} CPUs, has {} left", nano(wanted.nano_cpus.into()), nano(cpus))),
                lacks_bytes.then(|| {
                    format!("{} MiB of memory, has {} left", wanted.memory_bytes >> 20, bytes >> 20)
                }),
            ];
            let asked: Vec<_> = asked.into_iter().flatten().collect();
            let asked = if asked.is_empty() { "generic resources".to_owned() } else { asked.join(" and ") };
            format!("insufficient resources: asked for {asked}")
        }
        Filter::Constraints => {
            let holds = |text: &&String| {
                let one = Constraints::parse(std::slice::from_ref(*text));
                one.is_ok_and(|constraint| constraint.allow(&row.node))
            };
            let broken: Vec<_> = placement.constraints.iter().filter(|text| !holds(text)).collect();
            let broken: Vec<_> = broken.into_iter().map(String::as_str).collect();
            format!("constraint not satisfied: {}", broken.join(", "))
        }
        Filter::HostPorts => "a port of it is taken there".to_owned(),
        Filter::MaxReplicas => {
            format!("it has {} of them, the most that it may", placement.max_replicas_per_node)
        }
        Filter::Plugins => "missing plugin".to_owned(),
        Filter::Encryption => "its kernel does not support encrypted networks".to_owned(),
        Filter::Platform => "unsupported platform".to_owned(),
    }
}

/// Billionths, as people write them.
fn nano(billionths: u128) -> String {
    let text = format!("{}.{:09}", billionths / 1_000_000_000, billionths % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::objects::TaskState;
    use crate::view::Observed;
    use std::sync::Arc;

    #[test]
    fn each_node_says_what_it_lacks() {
        let mut service = fixture::replicated(1, 2);
        let spec = Arc::make_mut(&mut service.spec.task);
        spec.resources.reservations.nano_cpus = 2_500_000_000;
        spec.resources.reservations.memory_bytes = 1 << 30;
        spec.placement.constraints = vec!["node.labels.disk==ssd".to_owned()];
        let (mut full, mut drained, mut free) = (fixture::node(1), fixture::node(2), fixture::node(3));
        free.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        full.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        drained.spec.availability = Availability::Drain;
        let there = fixture::task_on(fixture::task(1, &service, 1), &full, TaskState::Running);
        let waits = fixture::task(2, &service, 2);
        let objects =
            [service.into(), full.into(), drained.into(), free.into(), fixture::node(4).into(), there.into()];
        let store = fixture::store(objects);
        let answers = answers(&View::new(&store, &Observed::default()), &waits);
        let texts: Vec<_> = answers.iter().map(|it| it.refusal.as_deref()).collect();
        assert_eq!(
            texts,
            [
                Some("insufficient resources: asked for 2.5 CPUs, has 1.5 left"),
                Some("it is drained"),
                None,
                Some("constraint not satisfied: node.labels.disk==ssd")
            ]
        );
    }
}
