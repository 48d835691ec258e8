//! The machines of a run, and the network between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::cluster::JoinTokens;
use ketch_cluster::store::Store;
use ketch_node::node::Lead;
use turmoil::{Builder, Sim};

use crate::layered::Ground;
use crate::layers::Sharing;
use crate::random::Random;
use crate::scene::{Layers, Scene};
use crate::site::Site;
use crate::trace::Trace;
use crate::users;

/// How much time passes between two looks of the run.
pub(crate) const STEP: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(2);
/// 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// All machines.
pub(crate) struct Cluster {
    sim: Sim<'static>,
    pub(crate) sites: Vec<Arc<Site>>,
    /// How many of them, the first ones, are to be managers.
    pub(crate) managers: usize,
    /// Since when each agent runs; none of one that does not.
    up: Vec<Option<Duration>>,
    pub(crate) trace: Trace,
    /// Where nodes share layers.
    pub(crate) ground: Option<Arc<Ground>>,
    keys: PathBuf,
    seen: BTreeMap<usize, String>,
    /// Who each site was when it was last of the cluster.
    identities: Vec<Option<NodeId>>,
    /// The unlock keys that the cluster has had, each once, and when locked managers were last given them.
    unlock_keys: Vec<[u8; 32]>,
    unlocked: Duration,
    /// The place of who was last found to lead; past all of them at first.
    leading: Arc<AtomicUsize>,
}

/// Between two tries to unlock a manager.
const UNLOCKS: Duration = Duration::from_millis(500);

impl Cluster {
    pub(crate) fn new(seed: u64, scene: Scene, trace: Trace) -> Self {
        let Scene { managers, workers, .. } = scene;
        let mut random = Random::new(seed);
        let keys =
            std::env::temp_dir().join(format!("ketch-sim-{}-{seed}-{}", std::process::id(), random.bits()));
        let mut sim = Builder::new()
            .rng_seed(random.bits())
            .epoch(UNIX_EPOCH + EPOCH)
            .simulation_duration(Duration::from_secs(3600))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(4096)
            .build();
        let ground = matches!(scene.layers, Layers::Shared { .. }).then(Arc::<Ground>::default);
        let sites: Vec<_> = (0..managers + workers)
            .map(|index| {
                let name = format!("node-{index}");
                let is_liar = scene.layers == Layers::Shared { liar: index };
                let sharing = ground.as_ref().map(|it| Sharing::new(&name, it, is_liar, random.branch()));
                Site::new(&name, keys.join(&name), sharing, &mut random)
            })
            .collect();
        for (ground, site) in ground.iter().flat_map(|ground| sites.iter().map(move |site| (ground, site))) {
            ground.has_machine(Arc::downgrade(&site.machine));
        }
        // Failing to make it shows as soon as a key is written.
        drop(std::fs::DirBuilder::new().recursive(true).create(&keys));
        for site in &sites {
            let software = Arc::clone(site);
            sim.host(site.name.as_str(), move || Arc::clone(&software).live());
        }
        let up = vec![Some(Duration::ZERO); sites.len()];
        let identities = vec![None; sites.len()];
        Self {
            sim,
            sites,
            managers,
            up,
            trace,
            ground,
            keys,
            seen: BTreeMap::new(),
            identities,
            unlock_keys: Vec::new(),
            unlocked: Duration::ZERO,
            leading: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    /// Lets time pass, and notes what it changed.
    pub(crate) fn pass(&mut self) -> Result<(), String> {
        let end = self.sim.elapsed() + STEP;
        while self.sim.elapsed() < end {
            self.sim.step().map_err(|error| format!("an agent ended: {error}"))?;
        }
        for index in 0..self.sites.len() {
            let identity = self.sites[index].node().and_then(|node| node.information().node);
            self.identities[index] = identity.or(self.identities[index]);
            let seen = self.described(index);
            if self.seen.get(&index) != Some(&seen) {
                self.note(&format!("{}: {seen}", self.sites[index].name));
                self.seen.insert(index, seen);
            }
        }
        self.unlock();
        Ok(())
    }

    /// Remembers the cluster's unlock key, and unlocks the managers that wait for it.
    fn unlock(&mut self) {
        let key = self.newest(|store| store.cluster().and_then(|it| it.unlock_key.clone())).flatten();
        let key = key.and_then(|key| <[u8; 32]>::try_from(key.0).ok());
        if let Some(key) = key.filter(|key| !self.unlock_keys.contains(key)) {
            self.unlock_keys.push(key);
        }
        if self.unlock_keys.is_empty() || self.elapsed() < self.unlocked + UNLOCKS {
            return;
        }
        self.unlocked = self.elapsed();
        let is_locked = |site: &&Arc<Site>| site.node().is_some_and(|it| it.information().state == "locked");
        for site in self.sites.iter().filter(is_locked) {
            let _runs = users::unlock(site, self.unlock_keys.clone());
        }
    }

    /// Asks all agents; [`leading`](Self::leading) has the answer a moment later.
    pub(crate) fn look_who_leads(&self) {
        for (index, site) in self.sites.iter().enumerate() {
            let leading = Arc::clone(&self.leading);
            let _runs = site.order(move |node| {
                async move {
                    if let Ok(Lead::Here(..)) = node.lead().await {
                        leading.store(index, Ordering::Relaxed);
                    }
                }
                .boxed()
            });
        }
    }

    /// Who was last found to lead.
    pub(crate) fn leading(&self) -> Option<usize> {
        Some(self.leading.load(Ordering::Relaxed)).filter(|index| *index < self.sites.len())
    }

    /// Waits until it is so, for at most that long.
    pub(crate) fn until(
        &mut self,
        within: Duration,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.sim.elapsed() + within;
        loop {
            match holds(self) {
                Ok(()) => return Ok(()),
                Err(why) if self.sim.elapsed() >= end => {
                    return Err(format!("{what}: not within {within:?}: {why}"));
                }
                Err(_) => self.pass()?,
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn note(&mut self, event: &str) {
        self.trace.note(self.sim.elapsed(), event);
    }

    pub(crate) fn is_down(&self, index: usize) -> bool {
        self.up[index].is_none()
    }

    /// Whether its agent has run for that long.
    pub(crate) fn is_up_for(&self, index: usize, span: Duration) -> bool {
        self.up[index].is_some_and(|since| self.elapsed() >= since + span)
    }

    /// The agent is killed, and nothing is lost that it has written.
    pub(crate) fn kill(&mut self, index: usize) {
        self.note(&format!("kill {}", self.sites[index].name));
        // First: what turmoil drops would close its databases, and sync them.
        self.sites[index].disk.cut_off();
        self.sim.crash(self.sites[index].name.as_str());
        self.sites[index].killed();
        self.up[index] = None;
    }

    /// The machine loses power.
    pub(crate) fn power_off(&mut self, index: usize, random: &mut Random) {
        self.note(&format!("power off {}", self.sites[index].name));
        self.sites[index].disk.crash(random);
        self.kill(index);
        self.sites[index].machine.crash();
    }

    pub(crate) fn start(&mut self, index: usize) {
        self.note(&format!("start {}", self.sites[index].name));
        self.sim.bounce(self.sites[index].name.as_str());
        self.up[index] = Some(self.elapsed());
    }

    /// No message passes between the two, in either direction.
    pub(crate) fn part(&mut self, one: usize, other: usize) {
        self.note(&format!("part {} {}", self.sites[one].name, self.sites[other].name));
        self.sim.partition(self.sites[one].name.as_str(), self.sites[other].name.as_str());
    }

    pub(crate) fn join_again(&mut self, one: usize, other: usize) {
        self.sim.repair(self.sites[one].name.as_str(), self.sites[other].name.as_str());
    }

    /// The manager that leads, as the one with the latest log sees it: its store.
    pub(crate) fn newest<T>(&self, reader: impl Fn(&Store) -> T) -> Option<T> {
        let nodes = self.sites.iter().filter_map(|site| site.node());
        let version = |store: &Store| store.version().0;
        let newest =
            nodes.filter_map(|node| node.view(version).map(|at| (at, node))).max_by_key(|(at, _)| *at);
        newest.and_then(|(_, node)| node.view(reader))
    }

    pub(crate) fn tokens(&self) -> Option<JoinTokens> {
        self.newest(|store| store.cluster().map(|it| it.root_ca.join_tokens.clone())).flatten()
    }

    /// The node that a site is in the cluster, as far as its agent has said.
    pub(crate) fn identity(&self, index: usize) -> Option<NodeId> {
        self.identities[index]
    }

    fn described(&self, index: usize) -> String {
        let site = &self.sites[index];
        let containers = site.machine.running().len();
        let node = site.node().map(|node| {
            let information = node.information();
            let version = node.view(|store| store.version().0).unwrap_or_default();
            format!("{} version {version}", information.state)
        });
        format!("{}, {containers} containers", node.as_deref().unwrap_or("no agent"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        remove(&self.keys);
    }
}

fn remove(keys: &Path) {
    if let Err(error) = std::fs::remove_dir_all(keys) {
        eprintln!("removing {}: {error}", keys.display());
    }
}
