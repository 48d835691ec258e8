//! Other data under the same name, with the clients' ways to ask for it.

use super::super::tests::{
    cluster, commit, config_reference, created, secret_reference, spec, with_container, with_view,
};
use super::super::{
    ControlError, RegistryAuth, Rollback, ServiceUpdate, SpecUpdate, create_config, create_secret,
    find_secret, list_secrets, remove_secret, update_config, update_secret, update_service,
};
use super::*;
use crate::control::Filters;
use crate::fixture::{self, at};
use crate::id::{ConfigId, SecretId, ServiceId};
use crate::objects::{ConfigSpec, SecretSpec, ServiceMode, TaskState};
use crate::payloads;
use crate::store::Store;

const KEY: SecretId = SecretId::of(3);
const CONF: ConfigId = ConfigId::of(4);

fn using(name: &str) -> ServiceSpec {
    with_container(spec(name), |it| {
        it.secrets.push(secret_reference(3, "key", "k"));
        it.configs.push(config_reference(4, "conf", "c"));
    })
}

fn asking(name: &str) -> ServiceSpec {
    let mut spec = using(name);
    spec.labels.insert(roll_on_change::LABEL.to_owned(), "true".to_owned());
    spec
}

/// What `docker stack deploy` sends for a secret of the file.
fn deploy(store: &mut Store, id: SecretId, data: &str) -> Result<(), ControlError> {
    let old = store.secret(id).unwrap();
    let spec = SecretSpec { data: data.as_bytes().to_vec(), ..old.spec.clone() };
    let update = SpecUpdate { version: old.meta.version, spec };
    let mut bits = fixture::counter(100 + u128::from(store.version().0));
    let actions = with_view(store, |view| update_secret(view, id, update, at(7), &mut bits))?;
    commit(store, &actions);
    Ok(())
}

fn secret_of(store: &Store, service: ServiceId) -> SecretId {
    store.service(service).unwrap().spec.task.container().unwrap().secrets[0].secret
}

fn current(store: &Store) -> SecretId {
    with_view(store, |view| find_secret(view, "key")).unwrap().id
}

#[test]
fn services_that_ask_are_updated_to_the_new_data_and_others_keep_the_old() {
    let mut store = fixture::store(cluster());
    let (web, other) = (created(&mut store, asking("web")), created(&mut store, using("other")));
    let before = store.service(web).unwrap().clone();
    deploy(&mut store, KEY, "new").unwrap();
    let new = current(&store);
    assert_ne!(new, KEY);
    assert_eq!((secret_of(&store, web), secret_of(&store, other)), (new, KEY));
    assert_eq!(
        (store.secret(new).unwrap().spec.data.as_slice(), store.secret(KEY).unwrap().superseded),
        (&b"new"[..], true)
    );
    let rolled = store.service(web).unwrap();
    assert_eq!(rolled.previous_spec.as_ref(), Some(&before.spec), "a rollback brings the old data back");
    assert_eq!(rolled.previous_spec_version, Some(before.spec_version));
    assert_eq!((rolled.spec_version, rolled.meta.updated_at), (store.version(), at(7)));
    let listed = with_view(&store, |view| list_secrets(view, &Filters::default())).unwrap();
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), [new], "what is superseded is not shown");
    let found = with_view(&store, |view| find_secret(view, &KEY.to_string()).is_ok());
    assert!(!found && deploy(&mut store, KEY, "third").is_err());
}

#[test]
fn without_a_service_that_asks_data_is_what_it_was() {
    let mut store = fixture::store(cluster());
    assert_eq!(deploy(&mut store, KEY, "new"), Err(texts::only_labels()), "nobody uses it");
    created(&mut store, using("web"));
    assert_eq!(deploy(&mut store, KEY, "new"), Err(texts::only_labels()));
    let mut no = asking("no");
    no.labels.insert(roll_on_change::LABEL.to_owned(), "false".to_owned());
    created(&mut store, no);
    assert_eq!(deploy(&mut store, KEY, "new"), Err(texts::only_labels()));
    created(&mut store, asking("yes"));
    assert_eq!(deploy(&mut store, KEY, ""), Ok(()), "no data is no change");
    assert_eq!(current(&store), KEY);
    assert_eq!(
        deploy(&mut store, KEY, &"x".repeat(512_000)),
        Err(texts::data_size(ObjectKind::Secret, 512_000))
    );
    assert_eq!(deploy(&mut store, KEY, "new"), Ok(()));
}

#[test]
fn a_config_is_rotated_as_a_secret_is() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    let old = store.config(CONF).unwrap();
    let update = SpecUpdate {
        version: old.meta.version,
        spec: ConfigSpec { data: b"new".to_vec(), ..old.spec.clone() },
    };
    let actions = with_view(&store, |view| update_config(view, CONF, update, at(7), &mut || 77)).unwrap();
    commit(&mut store, &actions);
    let container = store.service(web).unwrap().spec.task.container().unwrap().clone();
    assert_eq!(container.configs[0].config, ConfigId::of(77));
    assert!(store.config(CONF).unwrap().superseded && !store.config(ConfigId::of(77)).unwrap().superseded);
}

#[test]
fn the_same_deployment_once_more_keeps_what_a_rollback_goes_back_to() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    let before = store.service(web).unwrap().spec.clone();
    deploy(&mut store, KEY, "new").unwrap();
    let service = store.service(web).unwrap();
    let ask = |spec: ServiceSpec, rollback| ServiceUpdate {
        version: service.meta.version,
        spec,
        rollback,
        registry_auth: RegistryAuth::Spec,
    };
    let same = ask(service.spec.clone(), Rollback::None);
    let actions = with_view(&store, |view| update_service(view, web, same, at(8))).unwrap();
    let back = ask(service.spec.clone(), Rollback::Previous);
    let back = with_view(&store, |view| update_service(view, web, back, at(8))).unwrap();
    commit(&mut store, &actions);
    assert_eq!(store.service(web).unwrap().previous_spec.as_ref(), Some(&before));
    let [StoreAction::Update(crate::store::Object::Service(back))] = &back[..] else { panic!("{back:?}") };
    assert_eq!(back.spec, before, "what it names is there still");
}

/// As its reconciler rolls it back.
fn roll_back(store: &mut Store, service: ServiceId) {
    let mut service = Service::clone(store.service(service).unwrap());
    service.spec = service.previous_spec.take().unwrap();
    commit(store, &[StoreAction::Update(service.into())]);
}

#[test]
fn after_a_rollback_the_mended_data_is_deployed() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    deploy(&mut store, KEY, "bad").unwrap();
    roll_back(&mut store, web);
    assert_eq!(secret_of(&store, web), KEY);
    let bad = current(&store);
    deploy(&mut store, bad, "mended").unwrap();
    assert_ne!(current(&store), bad);
    assert_eq!(secret_of(&store, web), current(&store));
}

#[test]
fn a_rollback_of_several_steps_of_a_deployment_goes_to_what_was_before_them() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    let service = store.service(web).unwrap().clone();
    let before = service.spec.clone();
    let task = fixture::task_on(fixture::task(9, &service, 1), &fixture::node(1), TaskState::Running);
    commit(&mut store, &[StoreAction::Create(task.into())]);
    deploy(&mut store, KEY, "new").unwrap();
    let conf = store.config(CONF).unwrap().clone();
    let changed = SpecUpdate {
        version: conf.meta.version,
        spec: ConfigSpec { data: b"new".to_vec(), ..conf.spec.clone() },
    };
    let actions =
        with_view(&store, |view| update_config(view, CONF, changed, at(7), &mut fixture::counter(900)));
    commit(&mut store, &actions.unwrap());
    let service = store.service(web).unwrap();
    let mut next = service.spec.clone();
    next.labels.insert("version".to_owned(), "2".to_owned());
    let update = ServiceUpdate {
        version: service.meta.version,
        spec: next,
        rollback: Rollback::None,
        registry_auth: RegistryAuth::Spec,
    };
    let actions = with_view(&store, |view| update_service(view, web, update, at(8))).unwrap();
    commit(&mut store, &actions);
    assert_eq!(store.service(web).unwrap().previous_spec.as_ref(), Some(&before));
    assert_eq!(with_view(&store, payloads::reconcile).actions, [], "what it names is there still");
    // Once it was carried out, it is what the next one goes back to.
    let mut done = Service::clone(store.service(web).unwrap());
    let ran = done.spec.clone();
    done.update_status = Some(crate::control::service::rollback_started(at(9)));
    done.update_status.as_mut().unwrap().state = UpdateState::Completed;
    commit(&mut store, &[StoreAction::Update(done.into())]);
    let present = current(&store);
    deploy(&mut store, present, "newer").unwrap();
    assert_eq!(store.service(web).unwrap().previous_spec.as_ref(), Some(&ran));
}

#[test]
fn other_data_resumes_no_update_that_was_paused_and_takes_no_rollback_away() {
    use UpdateState::{Paused, RollbackPaused, RollbackStarted, Updating};
    for (state, is_of_the_update) in
        [(Updating, true), (Paused, true), (RollbackStarted, false), (RollbackPaused, false)]
    {
        let mut store = fixture::store(cluster());
        let web = created(&mut store, asking("web"));
        let mut updating = Service::clone(store.service(web).unwrap());
        let mut next = updating.spec.clone();
        next.labels.insert("version".to_owned(), "2".to_owned());
        exchange(&mut updating, next);
        updating.update_status = Some(crate::control::service::rollback_started(at(6)));
        updating.update_status.as_mut().unwrap().state = state;
        commit(&mut store, &[StoreAction::Update(updating.into())]);
        let before = store.service(web).unwrap().clone();
        deploy(&mut store, KEY, "new").unwrap();
        let rolled = store.service(web).unwrap();
        assert_eq!(secret_of(&store, web), current(&store));
        let back = if is_of_the_update { before.previous_spec.as_ref() } else { Some(&before.spec) };
        assert_eq!(rolled.previous_spec.as_ref(), back, "{state:?}");
        let kept = before.update_status.clone().filter(|_| matches!(state, Paused | RollbackPaused));
        assert_eq!(rolled.update_status, kept, "{state:?}");
    }
}

#[test]
fn of_what_has_no_tasks_each_rotation_is_a_step_of_its_own() {
    for mode in [ServiceMode::GlobalJob, ServiceMode::Replicated { replicas: 0 }] {
        let mut store = fixture::store(cluster());
        let job = created(&mut store, ServiceSpec { mode, ..asking("job") });
        deploy(&mut store, KEY, "one").unwrap();
        let (one, before) = (current(&store), store.service(job).unwrap().spec.clone());
        deploy(&mut store, one, "two").unwrap();
        assert_eq!(store.service(job).unwrap().previous_spec.as_ref(), Some(&before), "{mode:?}");
    }
}

#[test]
fn one_that_is_removed_and_made_again_is_rotated() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    let actions = with_view(&store, |view| remove_secret(view, KEY, at(7))).unwrap();
    commit(&mut store, &actions);
    assert!(with_view(&store, |view| find_secret(view, "key").is_err()));
    assert_eq!((secret_of(&store, web), with_view(&store, payloads::reconcile).actions), (KEY, vec![]));
    let again = SecretSpec { name: "key".to_owned(), data: b"new".to_vec(), ..SecretSpec::default() };
    let (id, actions) = with_view(&store, |view| create_secret(view, again, at(8), &mut || 88)).unwrap();
    commit(&mut store, &actions);
    assert_eq!((secret_of(&store, web), current(&store)), (id, id));
}

#[test]
fn one_that_others_use_too_is_not_removed() {
    let mut store = fixture::store(cluster());
    created(&mut store, asking("web"));
    created(&mut store, using("other"));
    let refused = with_view(&store, |view| remove_secret(view, KEY, at(7)));
    assert_eq!(refused, Err(texts::payload_in_use(ObjectKind::Secret, "key", "other, web")));
}

#[test]
fn a_jobs_next_tasks_have_the_new_data_and_it_does_not_run_for_that() {
    let mut store = fixture::store(cluster());
    let job = created(&mut store, ServiceSpec { mode: ServiceMode::GlobalJob, ..asking("job") });
    let before = store.service(job).unwrap().job;
    deploy(&mut store, KEY, "new").unwrap();
    assert_eq!((store.service(job).unwrap().job, secret_of(&store, job)), (before, current(&store)));
}

#[test]
fn versions_pass_away_when_no_spec_names_them() {
    let mut store = fixture::store(cluster());
    let web = created(&mut store, asking("web"));
    for data in ["b", "c", "d"] {
        let id = current(&store);
        deploy(&mut store, id, data).unwrap();
        let wanted = with_view(&store, payloads::reconcile);
        commit(&mut store, &wanted.actions);
        assert_eq!(store.secrets().count(), 2, "the present one and the one before");
    }
    commit(&mut store, &[StoreAction::Remove(web.into())]);
    let wanted = with_view(&store, payloads::reconcile);
    commit(&mut store, &wanted.actions);
    assert_eq!(store.secrets().map(|it| it.spec.data.clone()).collect::<Vec<_>>(), [b"d"]);
}

#[test]
fn what_does_not_fit_into_one_entry_is_refused_whole() {
    let mut store = fixture::store(cluster());
    let large =
        |name: &str| with_container(asking(name), |it| it.env = vec![format!("A={}", "x".repeat(400 << 10))]);
    created(&mut store, large("a"));
    created(&mut store, large("b"));
    let told = deploy(&mut store, KEY, "new").unwrap_err().to_string();
    assert!(
        told.starts_with("secret can't take the place of the one before it in all services that ask"),
        "{told}"
    );
    let conf = ConfigSpec { name: "x".to_owned(), data: b"x".to_vec(), ..ConfigSpec::default() };
    assert!(with_view(&store, |view| create_config(view, conf, at(7), &mut || 90)).is_ok());
}
