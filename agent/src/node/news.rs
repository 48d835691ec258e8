//! What this machine, as the cluster's leader, has decided of a service, and why, as events of services: that it was given other replicas
//! or was not (that they are other ones now is an `update` at every manager, see [`super::events`]), that a task makes room or moves.

use std::collections::BTreeMap;

use ketch_cluster::label::{priority, rebalance};
use ketch_node::news::{News, What};

use crate::events::Events;

/// Why, in every one of them: as the label is called by which it was decided.
fn reason_key(what: What) -> &'static str {
    match what {
        What::Scaled { .. } | What::ScaleHeld | What::ScaleAtMost => "ketch.scale",
        What::Preempted { .. } => priority::LABEL,
        What::Moves { .. } => rebalance::LABEL,
    }
}

/// Tells everyone who listens to events here.
pub(super) fn publish(events: &Events, news: News) {
    let News { service, name, what, reason } = news;
    let mut attributes = BTreeMap::from([("name".to_owned(), name), (reason_key(what).to_owned(), reason)]);
    let action = match what {
        What::Scaled { from, to } => {
            attributes.insert("replicas.old".to_owned(), from.to_string());
            attributes.insert("replicas.new".to_owned(), to.to_string());
            "scale"
        }
        What::ScaleHeld => "scale_hold",
        What::ScaleAtMost => "scale_max",
        What::Preempted { task } => {
            attributes.insert("task".to_owned(), task.to_string());
            "preempt"
        }
        What::Moves { task } => {
            attributes.insert("task".to_owned(), task.to_string());
            "rebalance"
        }
    };
    events.publish_of_cluster("service", action, &service.to_string(), attributes);
}

#[cfg(test)]
mod tests {
    use ketch_cluster::id::{ServiceId, TaskId};

    use super::*;

    #[test]
    fn each_has_the_services_name_and_why() {
        let events = Events::default();
        let task = TaskId::of(1);
        let of_tasks = [What::Preempted { task }, What::Moves { task }];
        let of_scale = [What::Scaled { from: 2, to: 4 }, What::ScaleHeld, What::ScaleAtMost];
        for what in of_scale.into_iter().chain(of_tasks) {
            let (name, reason) = ("web".to_owned(), "because".to_owned());
            publish(&events, News { service: ServiceId::of(1), name, what, reason });
        }
        let (told, _) = events.listen();
        let actions: Vec<_> =
            told.iter().map(|event| (event.kind, event.action.as_str(), event.scope)).collect();
        let of = |action| ("service", action, "swarm");
        assert_eq!(actions, ["scale", "scale_hold", "scale_max", "preempt", "rebalance"].map(of));
        let attributes = &told[0].actor.attributes;
        let wanted =
            [("ketch.scale", "because"), ("name", "web"), ("replicas.new", "4"), ("replicas.old", "2")];
        assert!(attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted));
        assert_eq!(told[0].actor.id, ServiceId::of(1).to_string());
        for (event, label) in told[3..].iter().zip(["ketch.priority", "ketch.rebalance"]) {
            assert_eq!(event.actor.attributes[label], "because");
            assert_eq!(event.actor.attributes["task"], task.to_string());
        }
    }
}
