//! Why this machine, as the cluster's leader, has given a service other replicas, or has not, as events of services. That they are other
//! ones now is an `update` at every manager ([`super::events`]).

use std::collections::BTreeMap;

use ketch_node::news::{News, What};

use crate::events::Events;

/// Why, in every one of them.
const REASON: &str = "ketch.scale";

/// Tells everyone who listens to events here.
pub(super) fn publish(events: &Events, news: News) {
    let News { service, name, what, reason } = news;
    let mut attributes = BTreeMap::from([("name".to_owned(), name), (REASON.to_owned(), reason)]);
    let action = match what {
        What::Scaled { from, to } => {
            attributes.insert("replicas.old".to_owned(), from.to_string());
            attributes.insert("replicas.new".to_owned(), to.to_string());
            "scale"
        }
        What::ScaleHeld => "scale_hold",
        What::ScaleAtMost => "scale_max",
    };
    events.publish_of_cluster("service", action, &service.to_string(), attributes);
}

#[cfg(test)]
mod tests {
    use ketch_cluster::id::ServiceId;

    use super::*;

    #[test]
    fn each_has_the_services_name_and_why() {
        let events = Events::default();
        for what in [What::Scaled { from: 2, to: 4 }, What::ScaleHeld, What::ScaleAtMost] {
            let (name, reason) = ("web".to_owned(), "because".to_owned());
            publish(&events, News { service: ServiceId::of(1), name, what, reason });
        }
        let (told, _) = events.listen();
        let actions: Vec<_> =
            told.iter().map(|event| (event.kind, event.action.as_str(), event.scope)).collect();
        let of = |action| ("service", action, "swarm");
        assert_eq!(actions, [of("scale"), of("scale_hold"), of("scale_max")]);
        let attributes = &told[0].actor.attributes;
        let wanted =
            [("ketch.scale", "because"), ("name", "web"), ("replicas.new", "4"), ("replicas.old", "2")];
        assert!(attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted));
        assert_eq!(told[0].actor.id, ServiceId::of(1).to_string());
    }
}
