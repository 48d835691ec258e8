//! Objects by the start of their id's text: how people write ids.

use std::sync::Arc;

use super::Store;
use crate::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::objects::{Config, Network, Node, Secret, Service, Task};

macro_rules! by_prefix {
    ($($method:ident: $field:ident, $id:ident, $object:ident;)+) => {
        impl Store {
            $(
                /// Those whose id starts with `prefix`, in the order of their ids.
                pub fn $method(&self, prefix: &str) -> impl Iterator<Item = &Arc<$object>> {
                    let range = $id::range_of(prefix).into_iter();
                    range.flat_map(|(first, last)| self.$field.range(first..=last)).map(|(_, object)| object)
                }
            )+
        }
    };
}

by_prefix! {
    nodes_by_prefix: nodes, NodeId, Node;
    services_by_prefix: services, ServiceId, Service;
    tasks_by_prefix: tasks, TaskId, Task;
    networks_by_prefix: networks, NetworkId, Network;
    secrets_by_prefix: secrets, SecretId, Secret;
    configs_by_prefix: configs, ConfigId, Config;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_prefix_finds_what_starts_with_it() {
        let store = fixture::store([1, 36, 37].map(|number| fixture::node(number).into()));
        let found = |prefix: &str| store.nodes_by_prefix(prefix).map(|node| node.id).collect::<Vec<_>>();
        assert_eq!(found("000000000000000000000001"), [NodeId::of(36), NodeId::of(37)]);
        assert_eq!(found("0000000000000000000000011"), [NodeId::of(37)]);
        assert_eq!(found("").len(), 3);
        assert_eq!(found("1"), []);
        assert_eq!(found("node"), []);
    }
}
