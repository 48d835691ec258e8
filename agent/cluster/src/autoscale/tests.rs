//! Steps, noise, whole days, what is not known, and what may not be changed.

use std::time::Duration;

use proptest::prelude::*;

use super::history::UP;
use super::*;
use crate::fixture::{self, at};
use crate::objects::resources::ResourceRequirements;
use crate::objects::service::{UpdateState, UpdateStatus};
use crate::objects::{Resources, Task};
use crate::store::Store;
use crate::view::Observed;

const LOOK: u64 = 2;

fn scale() -> Scale {
    let window = Duration::from_secs(300);
    Scale { min: 2, max: 100, cpu: Some(50), memory: None, requests: None, window }
}

fn one_cpu() -> ResourceRequirements {
    let reservations = Resources { nano_cpus: 1_000_000_000, ..Resources::default() };
    ResourceRequirements { reservations, ..ResourceRequirements::default() }
}

/// A service under a load that is given in thousandths of the replicas that it asks for.
struct Bench {
    scale: Scale,
    resources: ResourceRequirements,
    history: History,
    replicas: u64,
    changed_at: Option<Timestamp>,
    second: u64,
    /// Each change: when, and to how many.
    changes: Vec<(u64, u64)>,
}

impl Bench {
    fn new(scale: Scale, replicas: u64) -> Self {
        Self {
            scale,
            resources: one_cpu(),
            history: History::default(),
            replicas,
            changed_at: None,
            second: 1000,
            changes: Vec::new(),
        }
    }

    fn load(&self, thousandths: u64) -> Load {
        // Half a CPU is what each should use.
        let cpu = Sum { tasks: self.replicas, amount: thousandths * 500_000 };
        Load { running: self.replicas, cpu, ..Load::default() }
    }

    fn look(&mut self, load: &Load) -> String {
        let Self { replicas, changed_at, .. } = *self;
        let service = Scaled { scale: &self.scale, resources: &self.resources, replicas, changed_at };
        let decision = self.history.decide(service, load, at(self.second));
        self.second += LOOK;
        match decision {
            Decision::Keep { reason, .. } => reason,
            Decision::Scale { replicas, reason } => {
                self.set(replicas);
                reason
            }
        }
    }

    fn set(&mut self, replicas: u64) {
        self.replicas = replicas;
        self.changed_at = Some(at(self.second - LOOK));
        self.changes.push((self.second - LOOK, replicas));
    }

    fn bear(&mut self, thousandths: u64, seconds: u64) {
        for _ in 0..seconds / LOOK {
            let load = self.load(thousandths);
            self.look(&load);
        }
    }
}

#[test]
fn a_step_up_is_answered_within_15_seconds() {
    for offset in 0..LOOK {
        let mut bench = Bench::new(scale(), 10);
        bench.bear(10_000, 600);
        let step = bench.second - LOOK + offset + 1;
        // What was measured before the step's first whole span of 2 s says nothing of it yet.
        bench.bear(10_000, 4);
        bench.bear(18_000, 30);
        assert_eq!(bench.changes.len(), 1);
        let (when, replicas) = bench.changes[0];
        assert!(when - step <= 13 && replicas == 18, "{replicas} after {} s", when - step);
    }
}

#[test]
fn a_peak_of_a_moment_is_no_step() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    bench.bear(50_000, 2 * LOOK);
    bench.bear(10_000, 600);
    assert_eq!(bench.changes, []);
}

#[test]
fn fewer_only_after_the_window_and_never_beyond_the_bounds() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    bench.bear(1_000, 298);
    assert_eq!(bench.changes, []);
    bench.bear(1_000, 8);
    assert_eq!(bench.replicas, 2, "the least, at once");
    bench.bear(1_000_000, 120);
    assert_eq!(bench.replicas, 100);
    let most: Vec<u64> = bench.changes.iter().map(|(_, replicas)| *replicas).collect();
    assert_eq!(most, [2, 6, 12, 24, 48, 96, 100], "at most twice as many at once");
    for two in bench.changes.windows(2) {
        assert!(two[1].0 - two[0].0 >= UP.as_secs(), "{two:?}");
    }
    let told = bench.look(&bench.load(1_000_000));
    assert_eq!(told, "by the CPU use of its tasks, 1000.0 replicas are wanted; there may be 100");
    let mut outside = Bench::new(scale(), 500);
    assert_eq!(outside.look(&Load::default()), "500 replicas are not within 2 to 100");
    assert_eq!(outside.replicas, 100, "whatever is known of the load");
}

#[test]
fn what_somebody_has_made_more_is_not_made_fewer_within_the_window() {
    let mut bench = Bench::new(scale(), 4);
    bench.bear(4_000, 600);
    bench.set(8);
    let by_hand = bench.second;
    bench.bear(4_000, 296);
    assert_eq!(bench.replicas, 8);
    bench.bear(4_000, 10);
    assert_eq!(bench.replicas, 4);
    assert!(bench.changes[1].0 - by_hand >= 296, "{:?}", bench.changes);
    // A clock that was ahead holds nobody up.
    bench.changed_at = Some(at(1_000_000));
    bench.bear(9_000, 20);
    assert_eq!(bench.replicas, 9);
}

#[test]
fn without_metrics_it_holds_and_says_so() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    let told = bench.look(&Load { running: 10, ..Load::default() });
    assert_eq!(told, "holds 10 replicas: nothing is known of the CPU use of its tasks");
    assert_eq!(bench.look(&Load::default()), "holds 10 replicas: none of its tasks runs");
    bench.bear(1_000, 296);
    assert_eq!(bench.changes, [], "what was not known speaks for what there was");
    bench.bear(1_000, 10);
    assert_eq!(bench.replicas, 2);
}

#[test]
fn tasks_of_which_nothing_is_told_make_it_neither_more_nor_fewer() {
    let half = |amount| Load { running: 10, cpu: Sum { tasks: 5, amount }, ..Load::default() };
    let mut bench = Bench::new(scale(), 10);
    assert_eq!(
        bench.look(&half(4_500_000_000)),
        "by the CPU use of its tasks, 14.0 replicas are wanted (nothing is told of 5 of 10)"
    );
    for _ in 0..300 {
        bench.look(&half(4_500_000_000));
    }
    assert_eq!(bench.changes, [], "those that are told of ask for nine");
    for _ in 0..300 {
        bench.look(&half(6_000_000_000));
    }
    assert_eq!(bench.replicas, 12, "twelve, and that once");
    let mut bench = Bench::new(scale(), 10);
    for _ in 0..300 {
        bench.look(&half(500_000_000));
    }
    assert_eq!(bench.replicas, 6, "the others are as they should be");
}

#[test]
fn replicas_that_find_no_place_ask_for_no_more() {
    // Two of them run, and do all that they can; no further one ever does.
    let scale = Scale { max: 1000, ..scale() };
    let mut bench = Bench::new(scale, 2);
    let full = Load { running: 2, cpu: Sum { tasks: 2, amount: 2_000_000_000 }, ..Load::default() };
    for _ in 0..10_000 {
        bench.look(&full);
    }
    assert_eq!(bench.replicas, 4);
    assert_eq!(bench.changes.len(), 1);
}

#[test]
fn the_kind_that_asks_for_most_decides_and_each_is_needed() {
    let scale = Scale { requests: Some(100), memory: Some(80), ..scale() };
    let mut bench = Bench::new(scale, 10);
    bench.resources.limits.memory_bytes = 100;
    let sum = |amount| Sum { tasks: 10, amount };
    let load = Load { running: 10, cpu: sum(5_000_000_000), memory: sum(800), requests: sum(1_550_000) };
    assert_eq!(bench.look(&load), "by the requests of its tasks, 15.5 replicas are wanted");
    let told = bench.look(&Load { memory: Sum::default(), ..load });
    assert_eq!(told, "holds 10 replicas: nothing is known of the memory use of its tasks");
}

#[test]
fn a_new_leader_and_a_clock_that_was_set_begin_anew() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(1_000, 290);
    bench.history = History::default();
    bench.bear(1_000, 298);
    assert_eq!(bench.changes, []);
    bench.second -= 100;
    bench.bear(1_000, 298);
    assert_eq!(bench.changes, []);
    bench.second += 3600;
    bench.bear(1_000, 298);
    assert_eq!(bench.changes, [], "an hour without a look is no window");
    bench.bear(1_000, 8);
    assert_eq!(bench.replicas, 2);
}

/// A service with two tasks on a node, the first of which uses what is said.
struct Scene {
    store: Store,
    observed: Observed,
    service: Service,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Service, &mut [Task])) -> Self {
        let mut service = fixture::replicated(1, 2);
        let labels = [("min", "1"), ("max", "4"), ("cpu", "50")];
        service.spec.labels =
            labels.iter().map(|(key, value)| (format!("ketch.scale.{key}"), (*value).to_owned())).collect();
        let node = fixture::node(1);
        let mut tasks = [1, 2].map(|slot| {
            fixture::task_on(fixture::task(u128::from(slot), &service, slot), &node, TaskState::Running)
        });
        change(&mut service, &mut tasks);
        let mut objects = vec![node.into(), service.clone().into()];
        objects.extend(tasks.into_iter().map(Into::into));
        Self { store: fixture::store(objects), observed: Observed::default(), service }
    }

    fn look(&self, used: Option<u64>) -> Decision {
        let view = View::new(&self.store, &self.observed);
        let of = |_| Some(Use { cpu: used, ..Use::default() });
        see(&view, self.service.id).unwrap().decide(of, &mut History::default(), at(1000))
    }

    fn scaled(&self, from: u64, to: u64) -> Option<Service> {
        let view = View::new(&self.store, &self.observed);
        let actions = scaled(&view, self.service.id, (from, to), at(1000));
        actions.into_iter().next().map(|action| match action {
            StoreAction::Update(crate::store::Object::Service(service)) => Service::clone(&service),
            other => panic!("{other:?}"),
        })
    }
}

fn held(decision: &Decision) -> &str {
    match decision {
        Decision::Keep { standing: Standing::Held, reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn running_tasks_alone_are_looked_at() {
    let told = |scene: &Scene| match scene.look(Some(500_000_000)) {
        Decision::Keep { standing: Standing::Fits, reason } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&Scene::new(|_, _| {})), "by the CPU use of its tasks, 2.0 replicas are wanted");
    let one = Scene::new(|_, tasks| tasks[1].status.state = TaskState::Pending);
    assert_eq!(told(&one), "by the CPU use of its tasks, 1.0 replicas are wanted");
    let stops = Scene::new(|_, tasks| tasks[1].desired_state = TaskState::Shutdown);
    assert_eq!(told(&stops), "by the CPU use of its tasks, 1.0 replicas are wanted");
}

#[test]
fn nothing_is_changed_during_an_update_or_of_what_was_given_no_replicas() {
    let status = |state| UpdateStatus {
        state,
        started_at: at(1),
        completed_at: None,
        message: String::new(),
        slots: 2,
        failed_before: 0,
    };
    let why = "holds 2 replicas: an update or rollback of it has not come to its end";
    let begun = [
        UpdateState::Updating,
        UpdateState::Paused,
        UpdateState::RollbackStarted,
        UpdateState::RollbackPaused,
    ];
    for state in begun {
        let scene = Scene::new(|service, _| service.update_status = Some(status(state)));
        assert_eq!(held(&scene.look(Some(1))), why);
        assert_eq!(scene.scaled(2, 3), None);
    }
    let about_to_begin = Scene::new(|service, tasks| {
        std::sync::Arc::make_mut(&mut service.spec.task).force_update = 1;
        tasks.iter_mut().for_each(|task| task.spec_version = crate::objects::Version(0));
    });
    assert_eq!(held(&about_to_begin.look(Some(1))), why);
    let completed = Scene::new(|service, _| service.update_status = Some(status(UpdateState::Completed)));
    assert!(completed.scaled(2, 3).is_some());
    let none = Scene::new(|service, _| service.spec.mode = ServiceMode::Replicated { replicas: 0 });
    assert_eq!(
        held(&none.look(Some(1))),
        "holds 0 replicas: it was given 0 replicas, and is scaled again once it is given others"
    );
    assert_eq!(none.scaled(0, 1), None);
}

#[test]
fn what_is_scaled_keeps_what_a_rollback_goes_back_to_and_is_as_it_was_looked_at() {
    let scene = Scene::new(|_, _| {});
    let scaled = scene.scaled(2, 4).unwrap();
    assert_eq!(scaled.spec.mode, ServiceMode::Replicated { replicas: 4 });
    assert_eq!((scaled.meta.updated_at, scaled.replicas_changed_at), (at(1000), Some(at(1000))));
    assert_eq!((&scaled.previous_spec, &scaled.update_status), (&None, &None));
    assert_eq!(scaled.spec.task, scene.service.spec.task);
    assert_eq!(scene.scaled(3, 4), None, "somebody has given it others");
    assert_eq!(scene.scaled(2, 5), None, "the bounds are others");
    assert_eq!(
        Scene::new(|service, _| service.spec.labels.clear()).scaled(2, 4),
        None,
        "it is not scaled any more"
    );
}

/// A day in looks: how many thousandths of its mean the load has, from a quarter to seven quarters and back.
fn of_day(second: u64) -> u64 {
    let half = 43_200;
    let within = second % 86_400;
    let way = if within < half { within } else { 86_400 - within };
    250 + way * 1500 / half
}

/// Seeded: the same on every machine.
struct Noise(u64);

impl Noise {
    /// 1000, and up to so many more or less.
    fn thousandths(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1000 + (self.0 >> 33) % (2 * most + 1) - most
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_noisy_day_brings_no_flapping(seed: u64, mean in 8_000..40_000_u64, most in 0..80_u64) {
        let mut bench = Bench::new(scale(), 20);
        let mut noise = Noise(seed | 1);
        for second in (0..86_400).step_by(2) {
            // And a peak now and then.
            let peak = if second % 2500 == 0 { 3 } else { 1 };
            let load = bench.load(mean * of_day(second) / 1000 * noise.thousandths(most) / 1000 * peak);
            bench.look(&load);
            prop_assert!((2..=100).contains(&bench.replicas));
        }
        let turns = bench.changes.windows(3).filter(|three| (three[0].1 < three[1].1) != (three[1].1 < three[2].1));
        prop_assert!(turns.count() <= 3, "{:?}", bench.changes);
        for two in bench.changes.windows(2) {
            let least = if two[0].1 < two[1].1 { UP.as_secs() } else { 300 };
            prop_assert!(two[1].0 - two[0].0 >= least, "{:?}", two);
        }
        prop_assert!(bench.changes.len() <= 80, "{} changes", bench.changes.len());
    }

    #[test]
    fn a_steady_load_settles(seed: u64, thousandths in 3_000..90_000_u64, most in 0..80_u64) {
        let mut bench = Bench::new(scale(), 10);
        let mut noise = Noise(seed | 1);
        let mut settled = 0;
        for look in 0..17_280 {
            let load = bench.load(thousandths * noise.thousandths(most) / 1000);
            bench.look(&load);
            if look == 500 {
                settled = bench.changes.len();
            }
        }
        prop_assert!(bench.changes.len() <= settled + 2, "{:?}", bench.changes);
        let (replicas, wanted) = (bench.replicas * 1000, thousandths);
        prop_assert!(replicas * 10 >= wanted * 8 && replicas <= wanted * 14 / 10 + 1000, "{replicas} for {wanted}");
    }

    #[test]
    fn whatever_comes_replicas_are_within_bounds_and_changes_are_apart(
        looks in prop::collection::vec((0..200_000_u64, 0..6_u64, any::<bool>(), 1..90_u64), 1..300),
    ) {
        let scale = Scale { window: Duration::from_secs(60), ..scale() };
        let mut bench = Bench::new(scale, 10);
        for (thousandths, told, is_known, pause) in looks {
            let mut load = bench.load(thousandths);
            load.cpu.tasks = if is_known { bench.replicas.min(told) } else { 0 };
            bench.look(&load);
            bench.second += pause;
            prop_assert!((2..=100).contains(&bench.replicas));
        }
        for two in bench.changes.windows(2) {
            let least = if two[0].1 < two[1].1 { UP.as_secs() } else { 60 };
            prop_assert!(two[1].0 - two[0].0 >= least, "{:?}", two);
        }
    }
}

/// A node may lie about the one task that it has.
#[test]
fn a_task_counts_for_ten_times_what_it_should_have() {
    let scale = Scale { requests: Some(7), ..scale() };
    let resources = one_cpu();
    let most = most_of_one(&Scaled { scale: &scale, resources: &resources, replicas: 3, changed_at: None });
    let lie = Use { cpu: Some(u64::MAX), memory: Some(u64::MAX), requests: Some(u64::MAX) };
    let told = Use { cpu: Some(5_000_000_000), memory: Some(u64::MAX), requests: Some(70_000) };
    assert_eq!(lie.at_most(most), told);
    assert_eq!(Use::default().at_most(most), Use::default());
}

#[test]
fn however_little_is_reserved_one_task_counts_for_something() {
    let scale = Scale { cpu: None, memory: Some(1), ..scale() };
    let reservations = Resources { memory_bytes: 7, ..Resources::default() };
    let resources = ResourceRequirements { reservations, ..ResourceRequirements::default() };
    let of = |resources| most_of_one(&Scaled { scale: &scale, resources, replicas: 3, changed_at: None });
    assert_eq!(of(&resources).memory, Some(1));
    let reservations = Resources { memory_bytes: u64::MAX, ..Resources::default() };
    let all = ResourceRequirements { reservations, ..ResourceRequirements::default() };
    assert_eq!(of(&all).memory, Some(u64::MAX / 10));
}

#[test]
fn what_is_seen_says_what_is_to_be_measured_where() {
    let scene = Scene::new(|_, tasks| tasks[0].status.state = TaskState::Preparing);
    let view = View::new(&scene.store, &scene.observed);
    let sight = see(&view, scene.service.id).unwrap();
    let on = |task| (NodeId::of(1), TaskId::of(task));
    assert_eq!(sight.measured, [on(1), on(2)]);
    assert_eq!(sight.running, [TaskId::of(2)]);
    let plain = Scene::new(|service, _| service.spec.labels.clear());
    assert!(see(&View::new(&plain.store, &plain.observed), plain.service.id).is_none());
}

#[test]
fn many_changes_are_written_together() {
    let services = (1..=450).map(|number| {
        let mut service = fixture::replicated(number, 2);
        let labels = [("min", "1"), ("max", "4"), ("cpu", "50")];
        let labels = labels.iter().map(|(key, value)| (format!("ketch.scale.{key}"), (*value).to_owned()));
        service.spec.labels = labels.collect();
        crate::store::Object::from(service)
    });
    let (store, observed) = (fixture::store(services), Observed::default());
    let view = View::new(&store, &observed);
    let mut changes: Vec<Change> = (1..=450).map(|number| (ServiceId::of(number), (2, 3))).collect();
    // Somebody has changed these two.
    changes[0].1 = (1, 3);
    changes[449].1 = (3, 4);
    let (mut rest, mut parts) = (&changes[..], Vec::new());
    while !rest.is_empty() {
        let together = scaled_together(&view, rest, at(9));
        assert_eq!(together.given.len(), together.actions.len());
        parts.push(together.given.len());
        rest = &rest[together.seen..];
    }
    assert_eq!(parts, [200, 200, 48]);

    // Of large ones as many as fit.
    let large = (1..=3).map(|number| {
        let mut service = fixture::replicated(number, 2);
        let labels = [("min", "1"), ("max", "4"), ("cpu", "50")];
        let labels = labels.iter().map(|(key, value)| (format!("ketch.scale.{key}"), (*value).to_owned()));
        service.spec.labels = labels.chain([("text".to_owned(), "x".repeat(700_000))]).collect();
        crate::store::Object::from(service)
    });
    let store = fixture::store(large);
    let changes: Vec<Change> = (1..=3).map(|number| (ServiceId::of(number), (2, 3))).collect();
    let together = scaled_together(&View::new(&store, &observed), &changes, at(9));
    assert_eq!((together.given.len(), together.seen), (2, 2));
}

/// Attempts of the restart policy, and failures against nodes, are counted by it.
#[test]
fn what_is_scaled_is_of_no_other_version() {
    for (labels, is_other) in [(true, false), (false, true)] {
        let mut scene = Scene::new(|service, _| {
            if !labels {
                service.spec.labels.clear();
            }
        });
        let before = scene.store.service(scene.service.id).unwrap().clone();
        let mut scaled = Service::clone(&before);
        scaled.spec.mode = ServiceMode::Replicated { replicas: 3 };
        let mut wanted = crate::reconciled::Reconciled::default();
        wanted.update(scaled.clone());
        fixture::apply(&mut scene.store, wanted);
        let after = scene.store.service(scene.service.id).unwrap().clone();
        assert_ne!(after.meta.version, before.meta.version);
        assert_eq!(after.spec_version != before.spec_version, is_other);
        // Whatever else changes makes it another one.
        let mut changed = Service::clone(&after);
        changed.spec.mode = ServiceMode::Replicated { replicas: 4 };
        std::sync::Arc::make_mut(&mut changed.spec.task).force_update += 1;
        let mut wanted = crate::reconciled::Reconciled::default();
        wanted.update(changed);
        fixture::apply(&mut scene.store, wanted);
        assert_ne!(scene.store.service(scene.service.id).unwrap().spec_version, after.spec_version);
    }
}
