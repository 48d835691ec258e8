//! Images that nodes give each other: what a machine has of them, and how it gets and gives them by ketch-node's own `layers`. Here are
//! the model's registry and disk alone; each image is of one blob. `layered` says what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_node::calls::{BlobName, PieceAsked};
use ketch_node::executor::{LayerStore, NoPiece, Piece};
use ketch_node::layers::{
    Asker, Failure, Fetch, Found, Gather, Nodes, PieceError, Served, Source, Step, Taker, fetch,
};
use ketch_node::mark::{Mark, Marks};
use ketch_node::node::Node;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::layered::{Given, Ground};
use crate::locks::lock;
use crate::random::Random;

/// Where nodes give layers, as ketchd by default.
const PORT: u16 = 7947;
/// Of each blob, in bytes; and of it at once, which is just no crumb.
const SIZE: usize = 160 << 10;
const AT_ONCE: usize = 64 << 10;
/// Pieces that a machine gives at once.
const PLACES: usize = 4;
/// What digests begin with.
const IMAGE: u8 = 1;
const BLOB: u8 = 2;

/// What a task was given for the registry.
pub(crate) type Auth = Option<String>;

/// The image of that number, by its digest.
pub(crate) fn image_of(number: u64) -> String {
    format!("busybox:{number}@{}", digest(IMAGE, number))
}

fn digest(kind: u8, number: u64) -> String {
    format!("sha256:{kind:032x}{number:032x}")
}

fn number_of(kind: u8, digest: &str) -> Option<u64> {
    let hex = digest.strip_prefix(&format!("sha256:{kind:032x}"))?;
    u64::from_str_radix(hex, 16).ok()
}

/// Which image a task is of, if it names it by digest, and by which credentials.
pub(crate) fn wanted(task: &Task) -> Option<(u64, Auth)> {
    let container = task.spec.container()?;
    let (_, digest) = container.image.rsplit_once('@')?;
    let auth = container.registry_auth.as_ref().map(|it| it.as_str().to_owned());
    Some((number_of(IMAGE, digest)?, auth))
}

fn content(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    (0..SIZE / 8).flat_map(|_| random.bits().to_be_bytes()).collect()
}

/// One machine's part.
pub(crate) struct Sharing {
    name: String,
    ground: Arc<Ground>,
    is_liar: bool,
    salt: u128,
    random: Mutex<Random>,
    /// By whose credentials each image came. It outlives the agent.
    here: Mutex<BTreeMap<u64, BTreeSet<Auth>>>,
    coming: Mutex<Vec<(u64, Auth)>>,
    places: Arc<Semaphore>,
    agent: Mutex<Option<Arc<Agent>>>,
    wrong: Mutex<Option<String>>,
}

/// The agent that runs, with what it remembers.
struct Agent {
    node: Weak<Node>,
    asker: Asker,
    /// Whom it has found to lie.
    blamed: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sharing {
    pub(crate) fn new(name: &str, ground: &Arc<Ground>, is_liar: bool, mut random: Random) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            ground: Arc::clone(ground),
            is_liar,
            salt: u128::from(random.bits()),
            random: Mutex::new(random),
            here: Mutex::default(),
            coming: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            agent: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// An agent begins.
    pub(crate) fn begin(&self, node: &Arc<Node>) {
        let (node, asker, blamed) = (Arc::downgrade(node), Asker::default(), Mutex::default());
        *lock(&self.agent) = Some(Arc::new(Agent { node, asker, blamed }));
        lock(&self.coming).clear();
    }

    /// What has been done that never may.
    pub(crate) fn wrong(&self) -> Option<String> {
        lock(&self.wrong).clone()
    }

    /// Whether it has the image, and gives what it has.
    pub(crate) fn gives_truly(&self, number: u64, auth: &Auth) -> bool {
        !self.is_liar && lock(&self.here).get(&number).is_some_and(|by| by.contains(auth))
    }

    /// Has a task's image here, by other nodes or by the registry.
    pub(crate) async fn pull(self: &Arc<Self>, task: &Task) -> Result<(), String> {
        let Some((number, auth)) = wanted(task) else { return Ok(()) };
        let is_here = |by: &BTreeSet<Auth>| by.contains(&auth) || by.contains(&None);
        if lock(&self.here).get(&number).is_some_and(is_here) {
            return Ok(());
        }
        let agent = lock(&self.agent).clone().ok_or("no agent")?;
        let _coming = Coming::new(self, (number, auth.clone()));
        let name = BlobName { image: digest(IMAGE, number), blob: digest(BLOB, number) };
        let nodes: Arc<dyn Nodes> =
            Arc::new(Others { sharing: Arc::clone(self), agent, name, task: task.id });
        let wanted = Wanted { sharing: self, number, auth };
        fetch(&nodes, SIZE as u64, &wanted).await.map_err(|why| format!("{why:?}"))
    }

    fn below(&self, end: u64) -> u64 {
        lock(&self.random).below(end)
    }
}

/// What is pulled just now, until this is dropped.
struct Coming<'a> {
    sharing: &'a Sharing,
    what: (u64, Auth),
}

impl<'a> Coming<'a> {
    fn new(sharing: &'a Sharing, what: (u64, Auth)) -> Self {
        lock(&sharing.coming).push(what.clone());
        Self { sharing, what }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut coming = lock(&self.sharing.coming);
        if let Some(at) = coming.iter().position(|it| *it == self.what) {
            coming.remove(at);
        }
    }
}

impl LayerStore for Sharing {
    fn port(&self) -> u16 {
        PORT
    }

    fn marks(&self, name: &BlobName) -> Marks {
        let number = number_of(BLOB, &name.blob);
        let here: BTreeSet<Auth> =
            number.and_then(|it| lock(&self.here).get(&it).cloned()).unwrap_or_default();
        let coming = lock(&self.coming).clone();
        let coming = coming.into_iter().filter(|(it, _)| here.is_empty() && Some(*it) == number);
        let auths = here.iter().cloned().chain(coming.map(|(_, auth)| auth)).collect::<BTreeSet<_>>();
        Marks { salt: self.salt, by: auths.iter().map(|auth| Mark::of(self.salt, auth.as_deref())).collect() }
    }

    fn piece(&self, asked: PieceAsked, by: Mark) -> BoxFuture<'_, Result<Piece, NoPiece>> {
        async move {
            let number = number_of(BLOB, &asked.name.blob).ok_or(NoPiece::NotHere)?;
            let here = lock(&self.here).get(&number).cloned();
            let Some(here) = here else {
                let comes = lock(&self.coming).iter().any(|(it, _)| *it == number);
                return Err(if comes { NoPiece::NotYet } else { NoPiece::NotHere });
            };
            let auth = here.into_iter().find(|auth| Mark::of(self.salt, auth.as_deref()) == by);
            let auth = auth.ok_or(NoPiece::NotHere)?;
            sleep(Duration::from_millis(self.below(40))).await;
            if self.below(4) == 0 {
                return Err(NoPiece::NotYet);
            }
            let turn = Arc::clone(&self.places).acquire_owned().await.map_err(|_| NoPiece::NotYet)?;
            let offset = usize::try_from(asked.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(asked.length).unwrap_or(0).min(AT_ONCE);
            let mut bytes: Vec<u8> = content(number).into_iter().skip(offset).take(length).collect();
            let first = bytes.first_mut().ok_or(NoPiece::NotHere)?;
            let node = lock(&self.agent).as_ref().and_then(|it| it.node.upgrade()?.information().node);
            if self.is_liar {
                *first ^= 1;
                self.ground.has_lied(node.map(|it| it.to_string()).unwrap_or_default());
            }
            self.ground.has_given(Given { by: self.name.clone(), task: asked.task, number, auth });
            Ok(Piece { bytes: bytes.into(), turn })
        }
        .boxed()
    }
}

/// The other nodes, for one pull.
struct Others {
    sharing: Arc<Sharing>,
    agent: Arc<Agent>,
    name: BlobName,
    task: TaskId,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Nodes for Others {
    fn find(&self, step: Step, avoid: BTreeSet<String>) -> BoxFuture<'_, Option<Found>> {
        async move {
            let node = self.agent.node.upgrade()?;
            let blamed = lock(&self.agent.blamed).clone();
            let found = self.agent.asker.find(&node, self.name.clone(), step, avoid).await?;
            if let Some(liar) = found.sources.iter().find(|it| blamed.contains(&it.node)) {
                let wrong = format!("{} is to ask {}, which has lied to it", self.sharing.name, liar.node);
                lock(&self.sharing.wrong).get_or_insert(wrong);
            }
            Some(found)
        }
        .boxed()
    }

    fn piece(&self, from: Source, range: (u64, u32)) -> BoxFuture<'_, Result<Bytes, PieceError>> {
        async move {
            let node = self.agent.node.upgrade().ok_or_else(|| PieceError::Lost("it ends".to_owned()))?;
            let (offset, length) = (range.0, range.1.min(PieceAsked::MOST));
            let asked = PieceAsked { name: self.name.clone(), task: self.task, offset, length };
            self.agent.asker.piece(&node, &from, &asked).await
        }
        .boxed()
    }

    fn blame(&self, liar: &str) {
        if !self.sharing.ground.is_liar(liar) {
            let wrong = format!("{} blames {liar}, which has given right bytes alone", self.sharing.name);
            lock(&self.sharing.wrong).get_or_insert(wrong);
        }
        lock(&self.agent.blamed).insert(liar.to_owned());
        if let Some(node) = self.agent.node.upgrade() {
            self.agent.asker.blame(&node, liar, self.name.clone());
        }
    }
}

/// Why an image is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Registry,
    Wrong,
    Cut,
}

/// A blob that is to come.
struct Wanted<'a> {
    sharing: &'a Sharing,
    number: u64,
    auth: Auth,
}

impl Fetch for Wanted<'_> {
    type Whole = ();
    type Error = Trouble;

    fn attempt<'a>(&'a self, gather: &'a Gather<'_>) -> BoxFuture<'a, Result<(), Trouble>> {
        async move {
            let arriving = Arriving { wanted: self, bytes: Mutex::default() };
            gather.run(&arriving).await?;
            if *lock(&arriving.bytes) != content(self.number) {
                return Err(Trouble::Wrong);
            }
            lock(&self.sharing.here).entry(self.number).or_default().insert(self.auth.clone());
            Ok(())
        }
        .boxed()
    }

    fn failure(&self, error: &Trouble) -> Failure {
        match error {
            Trouble::Registry => Failure::Own,
            Trouble::Wrong => Failure::AnotherBlob,
            Trouble::Cut => Failure::Cut,
        }
    }

    fn liars(&self, served: Vec<Served>) -> BoxFuture<'_, BTreeSet<String>> {
        let content = content(self.number);
        let is_right = move |it: &Served| {
            let (from, length) = (usize::try_from(it.from), usize::try_from(it.length));
            let (Ok(from), Ok(length)) = (from, length) else { return false };
            content.get(from..from + length).is_some_and(|bytes| it.was(bytes))
        };
        let liars = served.into_iter().filter(|it| !is_right(it)).map(|it| it.node).collect();
        std::future::ready(liars).boxed()
    }
}

/// What has come of it in one try.
struct Arriving<'a> {
    wanted: &'a Wanted<'a>,
    bytes: Mutex<Vec<u8>>,
}

impl Taker for Arriving<'_> {
    type Error = Trouble;

    fn take(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Trouble>> {
        lock(&self.bytes).extend_from_slice(&bytes);
        std::future::ready(Ok(())).boxed()
    }

    fn ask_registry(&self, done: u64) -> BoxFuture<'_, Result<(), Trouble>> {
        async move {
            let Wanted { sharing, number, auth } = self.wanted;
            sleep(Duration::from_millis(20 + sharing.below(400))).await;
            if !sharing.ground.registry_answers(&sharing.name, *number, auth) {
                return Err(Trouble::Registry);
            }
            let rest = content(*number).into_iter().skip(usize::try_from(done).unwrap_or(SIZE));
            lock(&self.bytes).extend(rest);
            Ok(())
        }
        .boxed()
    }

    fn stopped(&self) -> Trouble {
        Trouble::Cut
    }
}
