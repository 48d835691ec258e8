//! `config`, one case at a time.

use super::super::tests::{cluster, commit, config_reference, created, spec, with_container, with_view};
use super::*;
use crate::fixture::{self, at};
use crate::objects::Version;
use crate::store::Store;

fn data(bytes: usize) -> ConfigSpec {
    ConfigSpec { name: "a".to_owned(), data: vec![b'x'; bytes], ..ConfigSpec::default() }
}

fn create(store: &Store, spec: ConfigSpec) -> Result<ConfigId, ControlError> {
    with_view(store, |view| create_config(view, spec, at(1), &mut || 50)).map(|(id, _)| id)
}

#[test]
fn a_config_has_a_size_and_a_name_of_its_own() {
    let store = fixture::store(cluster());
    let refused = Err(texts::data_size(ObjectKind::Config, 1_024_000));
    assert_eq!(create(&store, data(0)), refused);
    assert_eq!(create(&store, data(1_024_000)), refused);
    assert_eq!(create(&store, data(1_023_999)), Ok(ConfigId::of(50)));
    let named = |name: &str| ConfigSpec { name: name.to_owned(), ..data(1) };
    assert_eq!(create(&store, named("conf")), Err(texts::payload_exists(ObjectKind::Config, "conf")));
    assert_eq!(create(&store, named("key")), Ok(ConfigId::of(50)), "a secret's name is no config's");
}

#[test]
fn only_labels_are_updated() {
    let mut store = fixture::store(cluster());
    let id = ConfigId::of(4);
    let old = store.config(id).unwrap().clone();
    let update = |change: fn(&mut ConfigSpec)| {
        let mut spec = old.spec.clone();
        change(&mut spec);
        SpecUpdate { version: old.meta.version, spec }
    };
    let verdict =
        |store: &Store, update| with_view(store, |view| update_config(view, id, update, at(7), &mut || 60));
    let refused = Err(texts::only_labels());
    assert_eq!(verdict(&store, update(|spec| spec.name = "other".to_owned())), refused);
    assert_eq!(verdict(&store, update(|spec| spec.data = b"y".to_vec())), refused);
    let stale = SpecUpdate { version: Version(9), ..update(|_| ()) };
    assert_eq!(verdict(&store, stale), Err(texts::out_of_sequence()));
    let actions =
        verdict(&store, update(|spec| drop(spec.labels.insert("a".to_owned(), "b".to_owned())))).unwrap();
    commit(&mut store, &actions);
    assert_eq!(store.config(id).unwrap().spec.labels["a"], "b");
}

#[test]
fn a_config_stays_while_services_use_it() {
    let mut store = fixture::store(cluster());
    let id = ConfigId::of(4);
    created(&mut store, with_container(spec("web"), |it| it.configs.push(config_reference(4, "conf", "c"))));
    with_view(&store, |view| {
        let refused = Err(texts::payload_in_use_by_one(ObjectKind::Config, "conf", "web"));
        assert_eq!(remove_config(view, id, at(7)), refused);
        let missing = ConfigId::of(9);
        assert_eq!(remove_config(view, missing, at(7)), Err(texts::gone(&missing.into())));
        assert_eq!(list_configs(view, &Filters::default()).unwrap().len(), 1);
        let unknown = [("driver", "x")].into_iter().collect();
        assert_eq!(list_configs(view, &unknown), Err(texts::filter_unknown("driver")));
    });
}
