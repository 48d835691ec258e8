//! Steps, noise, whole days, and what is not known.

use proptest::prelude::*;

use super::*;
use crate::fixture::at;
use crate::objects::Resources;

const LOOK: u64 = 5;

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
    second: u64,
    /// Each change: when, and to how many.
    changes: Vec<(u64, u64)>,
}

impl Bench {
    fn new(scale: Scale, replicas: u64) -> Self {
        let (history, resources) = (History::default(), one_cpu());
        Self { scale, resources, history, replicas, second: 1000, changes: Vec::new() }
    }

    fn load(&self, thousandths: u64) -> Load {
        // Half a CPU is what each should use.
        let cpu = Some(Sum { tasks: self.replicas, amount: thousandths * 500_000 });
        Load { running: self.replicas, cpu, ..Load::default() }
    }

    fn look(&mut self, load: &Load) -> String {
        let service = Scaled { scale: &self.scale, resources: &self.resources, replicas: self.replicas };
        let decision = self.history.decide(service, load, at(self.second));
        self.second += LOOK;
        match decision {
            Decision::Keep(reason) => reason,
            Decision::Scale { replicas, reason } => {
                self.replicas = replicas;
                self.changes.push((self.second - LOOK, replicas));
                reason
            }
        }
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
        bench.bear(18_000, 30);
        assert_eq!(bench.changes.len(), 1);
        let (when, replicas) = bench.changes[0];
        assert!(when - step <= 15 && replicas == 18, "{replicas} after {} s", when - step);
    }
}

#[test]
fn a_peak_of_a_moment_is_no_step() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    bench.bear(50_000, LOOK);
    bench.bear(10_000, 600);
    assert_eq!(bench.changes, []);
}

#[test]
fn fewer_only_after_the_window_and_never_beyond_the_bounds() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    bench.bear(1_000, 295);
    assert_eq!(bench.changes, []);
    bench.bear(1_000, 20);
    assert_eq!(bench.replicas, 2, "the least, at once");
    bench.bear(1_000_000, 120);
    assert_eq!(bench.replicas, 100);
    let most: Vec<u64> = bench.changes.iter().map(|(_, replicas)| *replicas).collect();
    assert_eq!(most, [2, 6, 12, 24, 48, 96, 100], "at most twice as many at once");
    let mut outside = Bench::new(scale(), 500);
    assert_eq!(outside.look(&Load::default()), "500 replicas are not within 2 to 100");
    assert_eq!(outside.replicas, 100, "whatever is known of the load");
}

#[test]
fn without_metrics_it_holds_and_says_so() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(10_000, 600);
    let told = bench.look(&Load { running: 10, ..Load::default() });
    assert_eq!(told, "holds 10 replicas: nothing is known of the CPU use of its tasks");
    bench.bear(1_000, 290);
    assert_eq!(bench.changes, [], "what was not known speaks for what there was");
    bench.bear(1_000, 20);
    assert_eq!(bench.replicas, 2);
    let half = Load { running: 10, cpu: Some(Sum { tasks: 5, amount: 2_500_000_000 }), ..Load::default() };
    let mut bench = Bench::new(scale(), 10);
    assert_eq!(
        bench.look(&half),
        "by the CPU use of its tasks, 10.0 replicas are wanted",
        "the others are as they should be"
    );
}

#[test]
fn the_kind_that_asks_for_most_decides_and_each_is_needed() {
    let scale = Scale { requests: Some(100), memory: Some(80), ..scale() };
    let mut bench = Bench::new(scale, 10);
    bench.resources.limits.memory_bytes = 100;
    let sum = |amount| Some(Sum { tasks: 10, amount });
    let load = Load { running: 10, cpu: sum(5_000_000_000), memory: sum(800), requests: sum(1_550_000) };
    assert_eq!(bench.look(&load), "by the requests of its tasks, 15.5 replicas are wanted");
    let told = bench.look(&Load { memory: None, ..load });
    assert_eq!(told, "holds 10 replicas: nothing is known of the memory use of its tasks");
}

#[test]
fn what_is_scaled_keeps_what_a_rollback_goes_back_to() {
    let service = crate::fixture::replicated(1, 3);
    let scaled = with_replicas(&service, 7, at(9));
    assert_eq!(scaled.spec.mode, ServiceMode::Replicated { replicas: 7 });
    assert_eq!((scaled.meta.updated_at, &scaled.previous_spec, &scaled.update_status), (at(9), &None, &None));
    assert_eq!(scaled.spec.task, service.spec.task);
}

#[test]
fn a_new_leader_and_a_clock_that_was_set_begin_anew() {
    let mut bench = Bench::new(scale(), 10);
    bench.bear(1_000, 290);
    bench.history = History::default();
    bench.bear(1_000, 295);
    assert_eq!(bench.changes, []);
    bench.second -= 100;
    bench.bear(1_000, 295);
    assert_eq!(bench.changes, []);
    bench.second += 3600;
    bench.bear(1_000, 295);
    assert_eq!(bench.changes, [], "an hour without a look is no window");
    bench.bear(1_000, 20);
    assert_eq!(bench.replicas, 2);
}

/// A day in looks: how many thousandths of its mean the load has, from a quarter to seven quarters and back.
fn of_day(second: u64) -> u64 {
    let half = 43_200;
    let within = second % 86_400;
    let way = if within < half { within } else { 86_400 - within };
    250 + way * 1500 / half
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_noisy_day_brings_no_flapping(seed: u64, mean in 8_000..40_000_u64, noise in 0..80_u64) {
        let mut bench = Bench::new(scale(), 20);
        let mut state = seed | 1;
        for second in (0..86_400).step_by(5) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Up to a tenth more or less, and a peak now and then.
            let random = 1000 + (state >> 33) % (2 * noise + 1) - noise;
            let peak = if second % 2500 == 0 { 3 } else { 1 };
            let load = bench.load(mean * of_day(second) / 1000 * random / 1000 * peak);
            bench.look(&load);
        }
        let turns = bench.changes.windows(3).filter(|three| (three[0].1 < three[1].1) != (three[1].1 < three[2].1));
        prop_assert!(turns.count() <= 3, "{:?}", bench.changes);
        // Nothing that was made more is made fewer within the window.
        for three in bench.changes.windows(3).filter(|three| three[0].1 < three[1].1) {
            prop_assert!(three[1].1 < three[2].1 || three[2].0 - three[1].0 >= 300, "{:?}", three);
        }
        prop_assert!(bench.changes.len() <= 80, "{} changes", bench.changes.len());
    }

    #[test]
    fn a_steady_load_settles(seed: u64, thousandths in 3_000..90_000_u64, noise in 0..80_u64) {
        let mut bench = Bench::new(scale(), 10);
        let mut state = seed | 1;
        let mut settled = 0;
        for look in 0..17_280 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let load = bench.load(thousandths * (1000 + (state >> 33) % (2 * noise + 1) - noise) / 1000);
            bench.look(&load);
            if look == 200 {
                settled = bench.changes.len();
            }
        }
        prop_assert!(bench.changes.len() <= settled + 2, "{:?}", bench.changes);
        let (replicas, wanted) = (bench.replicas * 1000, thousandths);
        prop_assert!(replicas * 10 >= wanted * 8 && replicas <= wanted * 14 / 10 + 1000, "{replicas} for {wanted}");
    }
}
