//! `node`, one case at a time.

use super::super::tests::{commit, with_view};
use super::*;
use crate::fixture::{self, at};
use crate::objects::node::Availability;
use crate::store::{Object, Store};

fn manager(number: u128) -> Node {
    let mut node = fixture::node(number);
    node.role = NodeRole::Manager;
    node.spec.role = NodeRole::Manager;
    node
}

fn cluster(nodes: impl IntoIterator<Item = Node>) -> Store {
    let cluster = std::iter::once(Object::from(fixture::cluster()));
    fixture::store(cluster.chain(nodes.into_iter().map(Object::from)))
}

fn members(of: &[(u128, Reachability)]) -> RaftMembers {
    of.iter().map(|(number, reachability)| (NodeId::of(*number), *reachability)).collect()
}

fn demote(store: &Store, number: u128, members: &RaftMembers) -> Result<Vec<StoreAction>, ControlError> {
    let update = NodeUpdate { version: store.version(), spec: NodeSpec::default(), members };
    with_view(store, |view| update_node(view, NodeId::of(number), update, at(4)))
}

use Reachability::{Reachable, Unreachable};

#[test]
fn role_availability_and_labels_are_written() {
    let mut store = cluster([fixture::node(1)]);
    let spec = NodeSpec {
        labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
        role: NodeRole::Manager,
        availability: Availability::Drain,
        ..NodeSpec::default()
    };
    let none = RaftMembers::new();
    let update = |version| NodeUpdate { version: Version(version), spec: spec.clone(), members: &none };
    let id = NodeId::of(1);
    let verdict =
        |store: &Store, version| with_view(store, |view| update_node(view, id, update(version), at(4)));
    assert_eq!(verdict(&store, 9), Err(texts::out_of_sequence()));
    let actions = verdict(&store, 1).unwrap();
    commit(&mut store, &actions);
    let node = store.node(id).unwrap();
    assert_eq!((&node.spec, node.role, node.meta.updated_at), (&spec, NodeRole::Worker, at(4)));
    let missing = NodeId::of(7);
    let gone = with_view(&store, |view| update_node(view, missing, update(1), at(4)));
    assert_eq!(gone, Err(texts::gone(&missing.into())));
}

#[test]
fn the_last_manager_stays() {
    let one = members(&[(1, Reachable)]);
    assert_eq!(demote(&cluster([manager(1), fixture::node(2)]), 1, &one), Err(texts::last_manager()));
    let two = members(&[(1, Reachable), (2, Reachable)]);
    let mut going = manager(2);
    going.spec.role = NodeRole::Worker;
    assert_eq!(
        demote(&cluster([manager(1), going]), 1, &two),
        Err(texts::last_manager()),
        "the other one goes"
    );
    let mut coming = fixture::node(2);
    coming.spec.role = NodeRole::Manager;
    assert_eq!(
        demote(&cluster([manager(1), coming]), 1, &one),
        Err(texts::last_manager()),
        "the other one comes"
    );
}

#[test]
fn the_rest_is_a_quorum() {
    let store = cluster([manager(1), manager(2), manager(3)]);
    let all = members(&[(1, Reachable), (2, Reachable), (3, Reachable)]);
    assert!(demote(&store, 1, &all).is_ok());
    let weak = members(&[(1, Reachable), (2, Reachable), (3, Unreachable)]);
    assert_eq!(demote(&store, 1, &weak), Err(texts::quorum_would_be_lost()));
    assert!(demote(&store, 3, &weak).is_ok(), "the one that is down may go");
    let absent = members(&[(2, Reachable), (3, Reachable)]);
    assert_eq!(demote(&store, 1, &absent), Err(texts::manager_not_in_raft()));
}

#[test]
fn a_removed_node_is_shut_out_until_its_certificate_has_ended() {
    let mut node = fixture::node(1);
    node.status.state = NodeState::Down;
    let mut store = cluster([node]);
    let mut old = Cluster::clone(store.cluster().unwrap());
    old.shut_out = [(NodeId::of(8), at(10)), (NodeId::of(9), at(11))].into();
    commit(&mut store, &[StoreAction::Update(old.into())]);
    let none = RaftMembers::new();
    let removal = NodeRemoval { force: Force::No, members: &none, certificate_ends: at(100) };
    let id = NodeId::of(1);
    let actions = with_view(&store, |view| remove_node(view, id, &removal, at(10))).unwrap();
    commit(&mut store, &actions);
    assert!(store.node(id).is_none());
    let expected = [(id, at(100).after(SHUT_OUT_GRACE)), (NodeId::of(9), at(11))].into();
    assert_eq!(store.cluster().unwrap().shut_out, expected);
}

#[test]
fn managers_and_nodes_that_are_up_are_not_removed() {
    let store = cluster([fixture::node(1), manager(2)]);
    let (none, raft) = (RaftMembers::new(), members(&[(1, Reachable)]));
    let verdict = |number, force, members| {
        let removal = NodeRemoval { force, members, certificate_ends: at(1) };
        with_view(&store, |view| remove_node(view, NodeId::of(number), &removal, at(1)))
    };
    assert_eq!(verdict(1, Force::No, &none), Err(texts::node_not_down(NodeId::of(1))));
    assert!(verdict(1, Force::Yes, &none).is_ok());
    assert_eq!(verdict(1, Force::Yes, &raft), Err(texts::node_is_manager(NodeId::of(1))), "it still votes");
    let raft = members(&[(2, Unreachable)]);
    assert_eq!(verdict(2, Force::Yes, &raft), Err(texts::node_is_manager(NodeId::of(2))));
    assert!(verdict(2, Force::Yes, &none).is_ok(), "it never came");
    assert_eq!(verdict(7, Force::Yes, &none), Err(texts::gone(&NodeId::of(7).into())));
}

#[test]
fn nodes_are_listed_by_each_key() {
    let mut labelled = fixture::node(1);
    labelled.spec.labels.insert("zone".to_owned(), "a".to_owned());
    let engine = &mut labelled.description.as_mut().unwrap().engine;
    engine.labels.insert("disk".to_owned(), "ssd".to_owned());
    let silent = Node { description: None, ..manager(2) };
    let store = cluster([labelled, silent]);
    let listed = |pairs: &[(&str, &str)]| {
        with_view(&store, |view| list_nodes(view, &pairs.iter().copied().collect()))
            .map(|nodes| nodes.iter().map(|node| node.id).collect::<Vec<_>>())
    };
    let (first, second) = (NodeId::of(1), NodeId::of(2));
    assert_eq!(listed(&[]), Ok(vec![first, second]));
    assert_eq!(listed(&[("name", "node")]), Ok(vec![first]));
    assert_eq!(listed(&[("id", "0000000000000000000000002")]), Ok(vec![second]));
    assert_eq!(listed(&[("label", "disk=ssd")]), Ok(vec![first]));
    assert_eq!(listed(&[("node.label", "zone=a")]), Ok(vec![first]));
    assert_eq!(listed(&[("role", "Manager")]), Ok(vec![second]));
    assert_eq!(listed(&[("role", "")]), Ok(vec![first, second]));
    assert_eq!(listed(&[("membership", "accepted")]), Ok(vec![first, second]));
    assert_eq!(listed(&[("membership", "pending")]), Ok(vec![]));
    assert_eq!(listed(&[("role", "x")]), Err(texts::filter_value("role", "x")));
    assert_eq!(listed(&[("membership", "x")]), Err(texts::filter_value("membership", "x")));
    assert_eq!(listed(&[("x", "x")]), Err(texts::filter_unknown("x")));
}
