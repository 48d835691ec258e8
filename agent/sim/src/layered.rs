//! What must hold of layers between nodes: who has no right to an image gets none of it, who has given right bytes alone is blamed by nobody,
//! who has lied is not named again to whom it lied, and what other nodes have comes without a registry.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use ketch_cluster::id::TaskId;

use crate::answers::{self, Foreseen};
use crate::cluster::Cluster;
use crate::invariants;
use crate::layers::{Auth, wanted};
use crate::locks::lock;
use crate::machine::{Machine, now};
use crate::requests::Known;
use crate::scene::Scene;

/// Of so many seconds the registry answers in these first ones only, while things go wrong.
const TURN: u64 = 24;
const ANSWERS: u64 = 16;
/// A container that has run for so long is known to the leader, with its node, as the managers are back.
const KNOWN: Duration = Duration::from_secs(15);
/// An image that users have not asked for before.
const NEW: u64 = 2_000_000;

/// What a machine has given another one.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) by: String,
    /// For that task, of that image, by whose credentials it came.
    pub(crate) task: TaskId,
    pub(crate) number: u64,
    pub(crate) auth: Auth,
}

/// What all machines of a run have in common: the registry, and the truth.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    machines: Mutex<Vec<Weak<Machine>>>,
    /// Nodes that have given wrong bytes.
    lied: Mutex<BTreeSet<String>>,
    /// Since the last look.
    given: Mutex<Vec<Given>>,
    pieces: AtomicU64,
    fetched: AtomicU64,
    refused: AtomicU64,
    healed: Mutex<Option<Duration>>,
}

impl Ground {
    pub(crate) fn has_machine(&self, machine: Weak<Machine>) {
        lock(&self.machines).push(machine);
    }

    pub(crate) fn has_lied(&self, node: String) {
        lock(&self.lied).insert(node);
    }

    pub(crate) fn is_liar(&self, node: &str) -> bool {
        lock(&self.lied).contains(node)
    }

    pub(crate) fn has_given(&self, given: Given) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        lock(&self.given).push(given);
    }

    pub(crate) fn registry_answers(&self, own: &str, number: u64, auth: &Auth) -> bool {
        let could = |machine: &Weak<Machine>| {
            machine.upgrade().is_some_and(|it| it.could_give((number, auth), own, KNOWN))
        };
        let answers = match *lock(&self.healed) {
            None => now().as_secs() % TURN < ANSWERS,
            Some(healed) => now() < healed + KNOWN || !lock(&self.machines).iter().any(could),
        };
        let count = if answers { &self.fetched } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        answers
    }

    pub(crate) fn told(&self) -> String {
        let all = [&self.pieces, &self.fetched, &self.refused].map(|it| it.load(Ordering::Relaxed));
        let liars = lock(&self.lied).len();
        format!(
            "layers: {} pieces given, {} times from the registry, {} times not; {liars} lied",
            all[0], all[1], all[2]
        )
    }
}

/// Whatever was given was for a task of that image, by credentials that are its own or nobody's.
pub(crate) fn always(cluster: &Cluster) -> Result<(), String> {
    let Some(ground) = &cluster.ground else { return Ok(()) };
    for given in std::mem::take(&mut *lock(&ground.given)) {
        let wants = cluster.newest(|store| store.task(given.task).and_then(|task| wanted(task))).flatten();
        let Some((number, auth)) = wants else { continue };
        if number != given.number || given.auth.is_some() && given.auth != auth {
            let Given { by, task, number: given, auth: its } = given;
            return Err(format!(
                "{by} gave {given} by {its:?} to {task}, which may have {number} by {auth:?}"
            ));
        }
    }
    Ok(())
}

/// Nothing goes wrong any more, but for the registry: it gives nothing that another machine could.
pub(crate) fn heal(cluster: &Cluster) {
    if let Some(ground) = &cluster.ground {
        *lock(&ground.healed) = Some(cluster.elapsed());
    }
}

/// An image that one node alone has, and which no registry gives any more, comes to all nodes that are to run it.
pub(crate) fn spread(cluster: &mut Cluster, known: &Known, scene: Scene) -> Result<(), String> {
    if cluster.ground.is_none() {
        return Ok(());
    }
    answers::calm_down(cluster, known)?;
    let Some(service) = answers::steady(known).first().copied() else { return Ok(()) };
    for change in [Foreseen::Scaled(1), Foreseen::Updated(NEW)] {
        answers::make(cluster, known, (service, change))?;
        invariants::healed(cluster, known)?;
    }
    let end = cluster.elapsed() + KNOWN + KNOWN;
    while cluster.elapsed() < end {
        cluster.pass()?;
    }
    answers::make(cluster, known, (service, Foreseen::Scaled(scene.most_replicas())))?;
    invariants::healed(cluster, known)
}

/// How much of it there was.
pub(crate) fn tell(cluster: &mut Cluster) {
    if let Some(told) = cluster.ground.as_ref().map(|it| it.told()) {
        cluster.note(&told);
    }
}
