//! One run: a cluster forms, is used while things go wrong, heals, and must be as its users were told.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::answers;
use crate::cluster::Cluster;
use crate::displaced::Displaced;
use crate::faults::Faults;
use crate::invariants;
use crate::jobs::Jobs;
use crate::labels::Seen;
use crate::layered;
use crate::linear;
use crate::loads::Followed;
use crate::locks::lock;
use crate::random::Random;
use crate::requests::{self, Known};
use crate::scene::Scene;
use crate::trace::Trace;
use crate::users::{self, Users};

const FORMS: Duration = Duration::from_secs(60);
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
    ketch_ca::seeded::begin(seed);
    let mut random = Random::new(seed);
    let scene = match what {
        Play::Services => Scene::drawn(seed, &mut random),
        Play::Linear => Scene::of_managers(&mut random),
    };
    let mut cluster = Cluster::new(random.bits(), scene, Trace::new(loud));
    cluster.note(&format!("{scene:?}"));
    // Whatever panics in a node ends the run; nothing of the cluster is looked at after it but its trace.
    let played = catch_unwind(AssertUnwindSafe(|| match what {
        Play::Services => play(&mut cluster, &mut random, scene),
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

fn play(cluster: &mut Cluster, random: &mut Random, scene: Scene) -> Result<(), String> {
    form(cluster)?;
    let known: Known = Arc::new(Mutex::default());
    cluster.until(FORMS, "there is what services use", |cluster| {
        let _ordered = requests::surroundings(&cluster.sites[0], Arc::clone(&known), scene.addresses());
        let model = lock(&known);
        let is_there = model.network.is_some() == scene.addresses().is_some();
        if is_there && model.secret.is_some() && model.config.is_some() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })?;
    let mut users = Users::new(scene, Arc::clone(&known));
    let (mut faults, mut jobs, mut seen) = (Faults::new(scene), Jobs::default(), Seen::default());
    let (mut displaced, mut followed) = (Displaced::new(scene), Followed::new(scene));
    let end = cluster.elapsed() + STORM;
    while cluster.elapsed() < end {
        cluster.pass()?;
        invariants::always(cluster, &known)?;
        jobs.look(cluster)?;
        seen.look(cluster)?;
        displaced.look(cluster)?;
        followed.look(cluster)?;
        faults.go_on(cluster, random, &known);
        users.go_on(cluster, random);
    }
    faults.heal(cluster, random);
    layered::heal(cluster);
    // Until the managers have a leader again and all nodes are known to be there.
    invariants::superseded(cluster).or_else(|_| invariants::superseded(cluster))?;
    invariants::healed(cluster, &known)?;
    answers::explained(cluster)?;
    answers::foreseen(cluster, random, &known, scene)?;
    layered::spread(cluster, &known, scene)?;
    layered::always(cluster)?;
    layered::tell(cluster);
    displaced.look(cluster)?;
    followed.look(cluster)?;
    jobs.look(cluster)?;
    seen.look(cluster)
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
