//! `secret`, one case at a time.

use super::super::tests::{
    cluster, commit, created, secret, secret_reference, spec, with_container, with_view,
};
use super::*;
use crate::fixture::{self, at};
use crate::objects::{Driver, Version};
use crate::store::Store;

fn data(bytes: usize) -> SecretSpec {
    SecretSpec { name: "a".to_owned(), data: vec![b'x'; bytes], ..SecretSpec::default() }
}

fn create(store: &Store, spec: SecretSpec) -> Result<SecretId, ControlError> {
    with_view(store, |view| create_secret(view, spec, at(1), &mut || 50)).map(|(id, _)| id)
}

fn driver(name: &str) -> Option<Driver> {
    Some(Driver { name: name.to_owned(), ..Driver::default() })
}

#[test]
fn a_secret_has_a_size_or_a_driver() {
    let store = fixture::store(cluster());
    let refused = Err(texts::data_size(ObjectKind::Secret, 512_000));
    assert_eq!(create(&store, data(0)), refused);
    assert_eq!(create(&store, data(512_000)), refused);
    assert_eq!(create(&store, data(1)), Ok(SecretId::of(50)));
    assert_eq!(create(&store, data(511_999)), Ok(SecretId::of(50)));
    assert_eq!(create(&store, SecretSpec { driver: driver("vault"), ..data(0) }), Ok(SecretId::of(50)));
    assert_eq!(
        create(&store, SecretSpec { driver: driver(""), ..data(0) }),
        Err(texts::driver_without_name())
    );
}

#[test]
fn a_secret_has_a_name_of_its_own() {
    let store = fixture::store(cluster());
    let named = |name: &str| SecretSpec { name: name.to_owned(), ..data(1) };
    assert_eq!(create(&store, named("")), Err(texts::payload_name_missing()));
    assert_eq!(create(&store, named("a/b")), Err(texts::payload_name_invalid()));
    assert_eq!(create(&store, named("key")), Err(texts::payload_exists(ObjectKind::Secret, "key")));
}

#[test]
fn a_template_can_be_parsed() {
    let store = fixture::store(cluster());
    let template = |name: &str, text: &str| SecretSpec {
        data: text.as_bytes().to_vec(),
        templating: driver(name),
        ..data(1)
    };
    assert!(create(&store, template("golang", "{{secret \"other\"}}")).is_ok());
    let told = create(&store, template("golang", "{{")).unwrap_err().to_string();
    assert_eq!(told, "rpc error: code = InvalidArgument desc = template: expansion:1: unclosed action");
    let told = create(&store, template("jinja", "x")).unwrap_err().to_string();
    assert_eq!(told, "rpc error: code = InvalidArgument desc = unrecognized template type");
}

#[test]
fn labels_may_not_fill_a_transaction() {
    let store = fixture::store(cluster());
    let mut large = data(1);
    large.labels.insert("a".to_owned(), "x".repeat(2 << 20));
    let told = create(&store, large).unwrap_err().to_string();
    assert!(told.starts_with("secret spec is too large: it takes 2097"), "{told}");
}

#[test]
fn only_labels_are_updated() {
    let mut store = fixture::store(cluster());
    let id = SecretId::of(3);
    let old = store.secret(id).unwrap().clone();
    let update = |change: fn(&mut SecretSpec)| {
        let mut spec = old.spec.clone();
        change(&mut spec);
        SpecUpdate { version: old.meta.version, spec }
    };
    let verdict =
        |store: &Store, update| with_view(store, |view| update_secret(view, id, update, at(7), &mut || 60));
    let refused = Err(texts::only_labels());
    assert_eq!(verdict(&store, update(|spec| spec.name = "other".to_owned())), refused);
    assert_eq!(verdict(&store, update(|spec| spec.data = b"y".to_vec())), refused);
    assert_eq!(verdict(&store, update(|spec| spec.driver = driver("vault"))), refused);
    assert_eq!(verdict(&store, update(|spec| spec.templating = driver("golang"))), refused);
    assert!(verdict(&store, update(|_| ())).is_ok(), "stack deploy sends the same again");
    let relabelled = update(|spec| {
        spec.data.clear();
        spec.labels.insert("a".to_owned(), "b".to_owned());
    });
    let stale = SpecUpdate { version: Version(9), ..relabelled.clone() };
    assert_eq!(verdict(&store, stale), Err(texts::out_of_sequence()));
    let actions = verdict(&store, relabelled).unwrap();
    commit(&mut store, &actions);
    let new = store.secret(id).unwrap();
    assert_eq!((new.spec.labels["a"].as_str(), &new.spec.data), ("b", &old.spec.data));
    assert_eq!(new.meta.updated_at, at(7));
}

#[test]
fn a_secret_stays_while_services_use_it() {
    let mut store = fixture::store(cluster());
    let using =
        |name: &str| with_container(spec(name), |it| it.secrets.push(secret_reference(3, "key", "k")));
    let id = SecretId::of(3);
    let remove = |store: &Store| with_view(store, |view| remove_secret(view, id, at(7)));
    assert_eq!(remove(&store), Ok(vec![StoreAction::Remove(id.into())]));
    created(&mut store, using("web"));
    assert_eq!(remove(&store), Err(texts::payload_in_use_by_one(ObjectKind::Secret, "key", "web")));
    created(&mut store, using("db"));
    assert_eq!(remove(&store), Err(texts::payload_in_use(ObjectKind::Secret, "key", "db, web")));
}

#[test]
fn the_clusters_own_secrets_are_nobodys() {
    let own = Secret { internal: true, ..secret(1, "own") };
    let store = fixture::store([own.clone().into()]);
    with_view(&store, |view| {
        let gone = Err(texts::gone(&own.id.into()));
        assert_eq!(remove_secret(view, own.id, at(7)), gone);
        let update = SpecUpdate { version: Version(1), spec: own.spec.clone() };
        assert_eq!(update_secret(view, own.id, update, at(1), &mut || 60), gone);
        assert_eq!(list_secrets(view, &Filters::default()), Ok(vec![]));
    });
}

#[test]
fn names_and_ids_are_alternatives_in_a_list() {
    let store = fixture::store([secret(1, "aa").into(), secret(2, "ab").into(), secret(36, "b").into()]);
    let listed = |pairs: &[(&str, &str)]| {
        with_view(&store, |view| list_secrets(view, &pairs.iter().copied().collect())).map(|secrets| {
            secrets.iter().map(|secret| secret.spec.name.clone()).collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(listed(&[]).as_deref(), Ok("aa ab b"));
    assert_eq!(listed(&[("name", "a")]).as_deref(), Ok("aa ab"));
    assert_eq!(listed(&[("names", "a")]).as_deref(), Ok(""));
    assert_eq!(listed(&[("names", "aa"), ("id", "000000000000000000000001")]).as_deref(), Ok("aa b"));
    assert_eq!(listed(&[("label", "x")]).as_deref(), Ok(""));
    assert_eq!(listed(&[("mode", "x")]), Err(texts::filter_unknown("mode")));
}
