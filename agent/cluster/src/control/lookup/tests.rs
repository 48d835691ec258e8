//! `lookup`, one case at a time.

use super::*;
use crate::fixture;
use crate::id::{NetworkId, NodeId, SecretId, ServiceId};
use crate::objects::{Meta, SecretSpec};
use crate::store::Store;
use crate::view::Observed;

fn with_view<T>(store: &Store, ask: impl FnOnce(&View<'_>) -> T) -> T {
    ask(&View::new(store, &Observed::default()))
}

#[test]
fn the_whole_id_goes_before_the_name_and_the_name_before_the_start_of_an_id() {
    let by_id = fixture::replicated(35, 1);
    let mut named_like_an_id = fixture::replicated(36, 1);
    named_like_an_id.spec.name = by_id.id.to_string();
    let mut named_like_a_prefix = fixture::replicated(37, 1);
    named_like_a_prefix.spec.name = "000000000000000000000000z".to_owned()[..24].to_owned();
    let store =
        fixture::store([by_id.clone().into(), named_like_an_id.into(), named_like_a_prefix.clone().into()]);
    with_view(&store, |view| {
        let found = |text: &str| find_service(view, text).map(|service| service.id);
        assert_eq!(found(&by_id.id.to_string()), Ok(by_id.id));
        assert_eq!(found(&named_like_a_prefix.spec.name), Ok(named_like_a_prefix.id));
        assert_eq!(found("SERVICE-35"), Ok(by_id.id), "names have no case");
        assert_eq!(found("0000000000000000000000011"), Ok(ServiceId::of(37)));
        assert_eq!(
            found("00000000000000000000000"),
            Err(texts::ambiguous(ObjectKind::Service, "00000000000000000000000", 3))
        );
        assert_eq!(found("nobody"), Err(texts::not_found(ObjectKind::Service, "nobody")));
        assert_eq!(found(""), Err(texts::not_found(ObjectKind::Service, "")));
    });
}

#[test]
fn host_names_need_not_differ() {
    let (mut a, b) = (fixture::node(1), fixture::node(2));
    a.description = b.description.clone();
    let store = fixture::store([a.into(), b.into()]);
    with_view(&store, |view| {
        let found = |text: &str| find_node(view, text).map(|node| node.id);
        assert_eq!(found("node-2"), Err(texts::ambiguous(ObjectKind::Node, "node-2", 2)));
        assert_eq!(found("0000000000000000000000002"), Ok(NodeId::of(2)));
    });
}

#[test]
fn a_task_is_found_by_its_whole_name() {
    let service = fixture::replicated(1, 1);
    let task = fixture::task(5, &service, 3);
    let store = fixture::store([service.into(), task.clone().into()]);
    with_view(&store, |view| {
        assert_eq!(find_task(view, &task.name).map(|task| task.id), Ok(task.id));
        let other = format!("service-1.4.{}", task.id);
        assert_eq!(find_task(view, &other).err(), Some(texts::not_found(ObjectKind::Task, &other)));
    });
}

#[test]
fn what_users_never_see_is_not_found() {
    let mut network = fixture::network(1);
    network.pending_delete = true;
    let secret = Secret {
        id: SecretId::of(2),
        meta: Meta::default(),
        spec: SecretSpec { name: "own".to_owned(), ..SecretSpec::default() },
        internal: true,
        superseded: false,
    };
    let store = fixture::store([network.into(), secret.into()]);
    with_view(&store, |view| {
        for text in ["network-1", "0000000000000000000000001", "000", &NetworkId::of(1).to_string()] {
            assert!(find_network(view, text).is_err(), "{text}");
        }
        for text in ["own", "0000000000000000000000002", "000"] {
            assert!(find_secret(view, text).is_err(), "{text}");
        }
        assert_eq!(find_config(view, "a").err(), Some(texts::not_found(ObjectKind::Config, "a")));
        assert_eq!(find_cluster(view).err(), Some(texts::no_swarm()));
    });
}
