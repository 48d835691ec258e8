//! `service`, one case at a time.

use super::super::tests::{
    cluster, commit, created, endpoint, port, secret, secret_reference, spec, with_container, with_task,
    with_view,
};
use super::*;
use crate::fixture::{self, at};
use crate::objects::endpoint::PublishMode;
use crate::store::{Object, Store};
use crate::view::{Observed, Told};

fn update(store: &Store, id: ServiceId, spec: ServiceSpec) -> ServiceUpdate {
    ServiceUpdate {
        version: store.service(id).unwrap().meta.version,
        spec,
        rollback: Rollback::None,
        registry_auth: RegistryAuth::Spec,
    }
}

fn updated(store: &mut Store, id: ServiceId, update: ServiceUpdate) -> Result<Arc<Service>, ControlError> {
    let actions = with_view(store, |view| update_service(view, id, update, at(5)))?;
    commit(store, &actions);
    Ok(store.service(id).unwrap().clone())
}

fn auth_of(spec: &ServiceSpec) -> Option<&str> {
    spec.task.container().and_then(|container| container.registry_auth.as_ref()).map(SecretText::as_str)
}

fn with_image(name: &str, image: &str) -> ServiceSpec {
    with_container(spec(name), |container| container.image = image.to_owned())
}

#[test]
fn a_service_is_made_with_an_id_of_the_given_bits() {
    let store = fixture::store(cluster());
    let (id, actions) =
        with_view(&store, |view| create_service(view, spec("web"), at(3), &mut || 77)).unwrap();
    assert_eq!(id, ServiceId::of(77));
    let [StoreAction::Create(Object::Service(service))] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((service.id, &service.spec, service.meta), (id, &spec("web"), Meta::new(at(3))));
    assert_eq!((service.job, &service.update_status, &service.previous_spec), (None, &None, &None));
}

#[test]
fn a_name_is_one_services() {
    let mut store = fixture::store(cluster());
    created(&mut store, spec("web"));
    for name in ["web", "WEB"] {
        let refused = with_view(&store, |view| create_service(view, spec(name), at(3), &mut || 77));
        assert_eq!(refused.unwrap_err(), texts::service_exists(name));
    }
}

#[test]
fn an_update_keeps_the_spec_before_it_and_forgets_the_update_before_it() {
    let mut store = fixture::store(cluster());
    let id = created(&mut store, spec("web"));
    let mut stale = Service::clone(store.service(id).unwrap());
    stale.update_status = Some(rollback_started(at(1)));
    commit(&mut store, &[StoreAction::Update(stale.into())]);
    let first_version = store.service(id).unwrap().spec_version;
    let wanted = update(&store, id, with_image("web", "busybox:2"));
    let service = updated(&mut store, id, wanted).unwrap();
    assert_eq!(service.spec, with_image("web", "busybox:2"));
    assert_eq!(service.previous_spec, Some(spec("web")));
    assert_eq!(service.previous_spec_version, Some(first_version));
    assert_eq!(service.spec_version, store.version());
    assert_eq!((service.update_status.clone(), service.meta.updated_at), (None, at(5)));
}

#[test]
fn a_stale_version_is_out_of_sequence() {
    let mut store = fixture::store(cluster());
    let id = created(&mut store, spec("web"));
    let stale = update(&store, id, with_image("web", "busybox:2"));
    let fresh = stale.clone();
    updated(&mut store, id, fresh).unwrap();
    let refused = updated(&mut store, id, stale).unwrap_err();
    assert_eq!(refused.to_string(), "rpc error: code = Unknown desc = update out of sequence");
}

#[test]
fn mode_and_name_stay() {
    let mut store = fixture::store(cluster());
    let id = created(&mut store, spec("web"));
    let global = update(&store, id, ServiceSpec { mode: ServiceMode::Global, ..spec("web") });
    assert_eq!(updated(&mut store, id, global), Err(texts::mode_change()));
    let renamed = update(&store, id, spec("other"));
    assert_eq!(updated(&mut store, id, renamed), Err(texts::rename()));
    let scaled =
        update(&store, id, ServiceSpec { mode: ServiceMode::Replicated { replicas: 9 }, ..spec("web") });
    assert!(updated(&mut store, id, scaled).is_ok());
}

#[test]
fn rollback_swaps_the_two_specs() {
    let mut store = fixture::store(cluster());
    let id = created(&mut store, spec("web"));
    let back = |store: &Store| ServiceUpdate {
        rollback: Rollback::Previous,
        ..update(store, id, with_image("web", "never:looked-at"))
    };
    let wanted = back(&store);
    assert_eq!(updated(&mut store, id, wanted), Err(texts::no_previous_spec(id)));
    let wanted = update(&store, id, with_image("web", "busybox:2"));
    updated(&mut store, id, wanted).unwrap();
    let wanted = back(&store);
    let service = updated(&mut store, id, wanted).unwrap();
    assert_eq!(
        (&service.spec, &service.previous_spec),
        (&spec("web"), &Some(with_image("web", "busybox:2")))
    );
    let status = service.update_status.as_ref().unwrap();
    assert_eq!((status.state, status.started_at), (UpdateState::RollbackStarted, at(5)));
    assert_eq!((status.message.as_str(), status.slots), (ROLLBACK_REQUESTED, 0));
}

#[test]
fn a_rollback_to_what_is_gone_is_refused() {
    let mut store = fixture::store(cluster());
    let with_key = with_container(spec("web"), |it| it.secrets.push(secret_reference(3, "key", "k")));
    let id = created(&mut store, with_key);
    let wanted = update(&store, id, spec("web"));
    updated(&mut store, id, wanted).unwrap();
    commit(&mut store, &[StoreAction::Remove(secret(3, "key").id.into())]);
    let back = ServiceUpdate { rollback: Rollback::Previous, ..update(&store, id, spec("web")) };
    assert_eq!(updated(&mut store, id, back), Err(texts::reference_not_found(ObjectKind::Secret, "key")));
}

#[test]
fn credentials_come_from_where_the_client_says() {
    let mut store = fixture::store(cluster());
    let first =
        with_container(spec("web"), |container| container.registry_auth = Some("one".to_owned().into()));
    let id = created(&mut store, first);
    let with =
        |store: &Store, registry_auth| ServiceUpdate { registry_auth, ..update(store, id, spec("web")) };
    let previous = with(&store, RegistryAuth::PreviousSpec);
    assert_eq!(updated(&mut store, id, previous), Err(texts::no_previous_auth()));
    let given = with(&store, RegistryAuth::Given("two".to_owned().into()));
    assert_eq!(auth_of(&updated(&mut store, id, given).unwrap().spec), Some("two"));
    let previous = with(&store, RegistryAuth::PreviousSpec);
    assert_eq!(auth_of(&updated(&mut store, id, previous).unwrap().spec), Some("one"));
    let kept = with(&store, RegistryAuth::Spec);
    assert_eq!(auth_of(&updated(&mut store, id, kept).unwrap().spec), Some("one"));
}

#[test]
fn each_update_of_a_job_is_a_new_run() {
    let mut store = fixture::store(cluster());
    let job = || ServiceSpec { mode: ServiceMode::GlobalJob, ..spec("job") };
    let id = created(&mut store, job());
    assert_eq!(
        store.service(id).unwrap().job,
        Some(JobStatus { iteration: 0, last_execution: at(1), schedule: None })
    );
    let again = update(&store, id, job());
    let service = updated(&mut store, id, again).unwrap();
    assert_eq!(service.job, Some(JobStatus { iteration: 1, last_execution: at(5), schedule: None }));
}

#[test]
fn a_job_with_a_schedule_runs_when_it_is_due_or_forced() {
    let mut store = fixture::store(cluster());
    let job = |cron: Option<&str>| {
        let labels = cron.map(|cron| ("ketch.schedule".to_owned(), cron.to_owned()));
        ServiceSpec { mode: ServiceMode::GlobalJob, labels: labels.into_iter().collect(), ..spec("job") }
    };
    let id = created(&mut store, job(Some("@daily")));
    let status = |iteration, last_execution, decided_until, ran| {
        let schedule = Some(ScheduleStatus { decided_until, ran, passed: None });
        Some(JobStatus { iteration, last_execution, schedule })
    };
    assert_eq!(store.service(id).unwrap().job, status(0, at(1), at(1), false));
    let ask = |store: &mut Store, spec| {
        let wanted = update(store, id, spec);
        updated(store, id, wanted).map(|service| service.job)
    };
    assert_eq!(ask(&mut store, job(Some("@daily"))), Ok(status(0, at(1), at(1), false)));
    assert_eq!(ask(&mut store, job(Some("@hourly"))), Ok(status(0, at(1), at(5), false)), "from now on");
    let forced = with_task(job(Some("@hourly")), |task| task.force_update = 1);
    assert_eq!(ask(&mut store, forced.clone()), Ok(status(1, at(5), at(5), true)));
    assert_eq!(ask(&mut store, forced), Ok(status(1, at(5), at(5), true)), "the same once more is no force");
    let plain = Some(JobStatus { iteration: 2, last_execution: at(5), schedule: None });
    assert_eq!(ask(&mut store, job(None)), Ok(plain));
    assert_eq!(ask(&mut store, job(Some("@daily"))), Ok(status(2, at(5), at(5), true)), "it is no run");
    let told = ask(&mut store, job(Some("daily"))).unwrap_err().to_string();
    assert!(told.starts_with("label ketch.schedule: \"daily\" has 1 fields"), "{told}");
}

#[test]
fn an_update_is_as_good_as_a_new_service() {
    let mut store = fixture::store(cluster());
    let taken = created(
        &mut store,
        ServiceSpec { endpoint: endpoint(&[port(80, PublishMode::Ingress)]), ..spec("a") },
    );
    let id = created(&mut store, spec("web"));
    let wanted = ServiceSpec { endpoint: endpoint(&[port(80, PublishMode::Ingress)]), ..spec("web") };
    let wanted = update(&store, id, wanted);
    assert_eq!(updated(&mut store, id, wanted), Err(texts::port_in_use_by_ingress(80, "a", taken)));
}

#[test]
fn what_is_not_there_is_neither_updated_nor_removed() {
    let mut store = fixture::store(cluster());
    let id = created(&mut store, spec("web"));
    let late = update(&store, id, spec("web"));
    let actions = with_view(&store, |view| remove_service(view, id)).unwrap();
    assert_eq!(actions, [StoreAction::Remove(id.into())]);
    commit(&mut store, &actions);
    assert_eq!(updated(&mut store, id, late), Err(texts::gone(&id.into())));
    assert_eq!(with_view(&store, |view| remove_service(view, id)), Err(texts::gone(&id.into())));
}

#[test]
fn services_are_listed_by_each_key() {
    let mut store = fixture::store(cluster());
    let mut labelled = spec("web-1");
    labelled.labels.insert("tier".to_owned(), "front".to_owned());
    let web = created(&mut store, labelled);
    let db = created(&mut store, ServiceSpec { mode: ServiceMode::Global, ..spec("db") });
    let listed = |pairs: &[(&str, &str)]| {
        with_view(&store, |view| list_services(view, &pairs.iter().copied().collect()))
            .map(|services| services.iter().map(|service| service.id).collect::<Vec<_>>())
    };
    let mut both = vec![web, db];
    both.sort();
    assert_eq!(listed(&[]), Ok(both.clone()));
    assert_eq!(listed(&[("name", "web")]), Ok(vec![web]));
    assert_eq!(listed(&[("name", "web"), ("name", "d")]), Ok(both.clone()));
    assert_eq!(listed(&[("id", &db.to_string()[..25])]), Ok(vec![db]));
    assert_eq!(listed(&[("label", "tier=front")]), Ok(vec![web]));
    assert_eq!(listed(&[("mode", "global")]), Ok(vec![db]));
    assert_eq!(listed(&[("mode", "glob")]), Ok(vec![]), "a mode is named in full");
    assert_eq!(listed(&[("runtime", "container")]), Ok(both));
    assert_eq!(listed(&[("runtime", "plugin")]), Ok(vec![]));
    assert_eq!(listed(&[("node", "a")]), Err(texts::filter_unknown("node")));
}

#[test]
fn tasks_are_counted_by_what_workers_say() {
    let service = fixture::replicated(1, 3);
    let node = fixture::node(9);
    let on = |number, state| fixture::task_on(fixture::task(number, &service, 1), &node, state);
    let ended = {
        let mut task = on(4, TaskState::Shutdown);
        task.desired_state = TaskState::Shutdown;
        task
    };
    let store = fixture::store([
        service.clone().into(),
        on(2, TaskState::Running).into(),
        on(3, TaskState::Assigned).into(),
        ended.into(),
    ]);
    let mut observed = Observed::default();
    let view_counts = |observed: &Observed| count_tasks(&View::new(&store, observed), &service);
    assert_eq!(view_counts(&observed), TaskCounts { running: 1, desired: 3, completed: 0 });
    let running = Told { state: TaskState::Running, ..Told::default() };
    observed.note(crate::id::TaskId::of(3), running, crate::time::Timestamp::default());
    assert_eq!(view_counts(&observed), TaskCounts { running: 2, desired: 3, completed: 0 });
}

#[test]
fn jobs_and_global_services_are_counted_by_their_tasks() {
    let node = fixture::node(9);
    let counts = |service: &Service, tasks: &[(u64, TaskState, TaskState)]| {
        let mut objects = vec![Object::from(service.clone())];
        for (number, (iteration, state, desired)) in (10..).zip(tasks) {
            let mut task = fixture::task_on(fixture::task(number, service, 0), &node, *state);
            task.desired_state = *desired;
            task.job_iteration = service.job.map(|_| *iteration);
            objects.push(task.into());
        }
        with_view(&fixture::store(objects), |view| count_tasks(view, service))
    };
    let global = fixture::service(1, ServiceMode::Global);
    let of_global = counts(
        &global,
        &[
            (0, TaskState::Running, TaskState::Running),
            (0, TaskState::Pending, TaskState::Running),
            (0, TaskState::Failed, TaskState::Shutdown),
        ],
    );
    assert_eq!(of_global, TaskCounts { running: 1, desired: 2, completed: 0 });
    let tasks = [
        (0, TaskState::Complete, TaskState::Complete),
        (1, TaskState::Complete, TaskState::Complete),
        (1, TaskState::Running, TaskState::Complete),
        (1, TaskState::Failed, TaskState::Shutdown),
    ];
    let job = |mode| Service {
        job: Some(JobStatus { iteration: 1, last_execution: at(1), schedule: None }),
        ..fixture::service(1, mode)
    };
    let of_job = counts(&job(ServiceMode::GlobalJob), &tasks);
    assert_eq!(of_job, TaskCounts { running: 1, desired: 1, completed: 1 });
    let replicated = job(ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 5 });
    assert_eq!(counts(&replicated, &tasks), TaskCounts { running: 1, desired: 2, completed: 1 });
}
