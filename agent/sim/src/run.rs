//! One run: a cluster forms, is used while things go wrong, heals, and must be as its users were told.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::faults::{Clocks, Faults};
use crate::invariants;
use crate::linear;
use crate::random::Random;
use crate::trace::Trace;
use crate::users::{self, Fence, Known, Want};

const FORMS: Duration = Duration::from_secs(60);
/// As many as the network has addresses for.
const MOST_SERVICES: usize = 8;
/// How long things go wrong, in simulated time.
const STORM: Duration = Duration::from_secs(60);

/// A run that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Of the whole trace of events.
    pub hash: u64,
    pub events: u64,
    /// Simulated.
    pub time: Duration,
}

/// A run that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub why: String,
    /// The last events before it.
    pub events: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}seed {}: {}", self.events, self.seed, self.why)
    }
}

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Services that are asked for while things go wrong; the invariants.
    Services,
    /// Objects that are read and written through all managers; whether their history is linearizable.
    Linear,
}

/// Runs a seed; `loud` prints its events.
///
/// # Errors
/// What did not hold.
pub fn run(seed: u64, what: Play, loud: bool) -> Result<Outcome, Failure> {
    let mut random = Random::new(seed);
    let many = random.below(4) == 0;
    let (managers, workers) = match what {
        Play::Services if many => (5, 1),
        Play::Services => (3, 2),
        Play::Linear if many => (5, 0),
        Play::Linear => (3, 0),
    };
    let mut cluster = Cluster::new(random.bits(), managers, workers, Trace::new(loud));
    // Whatever panics in a node ends the run; nothing of the cluster is looked at after it but its trace.
    let played = catch_unwind(AssertUnwindSafe(|| match what {
        Play::Services => play(&mut cluster, &mut random),
        Play::Linear => form(&mut cluster).and_then(|()| linear::play(&mut cluster, &mut random)),
    }));
    match played.unwrap_or_else(|panic| Err(format!("a node panicked: {}", text_of(&*panic)))) {
        Ok(()) => {
            let (hash, events) = (cluster.trace.hash(), cluster.trace.events());
            Ok(Outcome { hash, events, time: cluster.elapsed() })
        }
        Err(why) => Err(Failure { seed, why, events: cluster.trace.last() }),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

fn play(cluster: &mut Cluster, random: &mut Random) -> Result<(), String> {
    form(cluster)?;
    let known: Known = Arc::new(Mutex::default());
    cluster.until(FORMS, "there is a network", |cluster| {
        let _ordered = users::network(&cluster.sites[0], Arc::clone(&known));
        users::lock(&known).network.map(|_| ()).ok_or("none yet".to_owned())
    })?;
    let clocks = if random.below(2) == 0 { Clocks::Good } else { Clocks::Jump };
    let mut faults = Faults::new(clocks);
    let end = cluster.elapsed() + STORM;
    let mut number = 0;
    while cluster.elapsed() < end {
        cluster.pass()?;
        invariants::always(cluster)?;
        faults.go_on(cluster, random);
        if random.below(25) == 0 {
            number += 1;
            ask(cluster, random, &known, (number, clocks));
        }
    }
    faults.heal(cluster);
    // Until the managers have a leader again and all nodes are known to be there.
    invariants::superseded(cluster).or_else(|_| invariants::superseded(cluster))?;
    invariants::healed(cluster, &known)
}

/// A cluster of all sites, before anything goes wrong.
fn form(cluster: &mut Cluster) -> Result<(), String> {
    cluster.pass()?;
    let first = Arc::clone(&cluster.sites[0]);
    if !users::found(&first) {
        return Err("the first agent does not run".to_owned());
    }
    cluster.until(FORMS, "the cluster is founded", |cluster| {
        cluster.tokens().map(|_| ()).ok_or("no tokens".to_owned())
    })?;
    let tokens = cluster.tokens().ok_or("no tokens")?;
    for index in 1..cluster.sites.len() {
        let token = if index < cluster.managers { &tokens.manager } else { &tokens.worker };
        let site = Arc::clone(&cluster.sites[index]);
        cluster.until(FORMS, "a node joins", |_| match site.node().map(|node| node.information().state) {
            Some("active") => Ok(()),
            state => {
                if state == Some("inactive") {
                    let _ordered = users::join(&site, vec![first.address()], token.clone());
                }
                Err(format!("{} is {state:?}", site.name))
            }
        })?;
    }
    let (all, managers) = (cluster.sites.len(), cluster.managers);
    cluster.until(FORMS, "all nodes are ready", |cluster| {
        let ready = cluster.newest(|store| {
            let is_ready = |it: &&Arc<ketch_cluster::objects::Node>| {
                it.status.state == ketch_cluster::objects::node::NodeState::Ready
            };
            (store.nodes().filter(is_ready).count(), store.nodes().filter(|it| it.manager.is_some()).count())
        });
        if ready == Some((all, managers)) { Ok(()) } else { Err(format!("{ready:?} of {all}, {managers}")) }
    })
}

fn ask(cluster: &mut Cluster, random: &mut Random, known: &Known, (number, clocks): (u64, Clocks)) {
    let present = users::lock(known).present();
    let choice = random.bits().checked_rem(present.len() as u64).and_then(|it| usize::try_from(it).ok());
    let service = choice.and_then(|it| present.get(it)).copied();
    let want = match (random.below(8), service) {
        (0..=1, _) if present.len() >= MOST_SERVICES => return,
        (0..=1, _) | (_, None) => {
            let fence =
                if clocks == Clocks::Good && random.below(2) == 0 { Fence::Some } else { Fence::None };
            Want::Create { number, replicas: random.between(1, 6), fence }
        }
        (2..=4, Some(service)) => Want::Scale { service, replicas: random.below(8) },
        (5..=6, Some(service)) => Want::Update { service, image: number },
        (_, Some(service)) => Want::Remove { service },
    };
    cluster.note(&format!("asked: {want:?}"));
    // Whoever leads does it; the others do nothing with it.
    for index in 0..cluster.managers {
        let _runs = users::want(&cluster.sites[index], Arc::clone(known), want);
    }
}
