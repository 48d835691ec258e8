//! One term of leadership: the only way to change the cluster, and to see what is not committed of it.
//!
//! A [`Leader`] begins when this manager has been elected and has caught up with all that was committed before, and ends with
//! its leadership, for ever: the next term has a new one. Changes are made one after another: each is judged on the store
//! with the one before in it. Whoever waits for his turn when the leadership ends is told so.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use ketch_cluster::fault::Fault;
use ketch_cluster::id::{NewBits, TaskId};
use ketch_cluster::reconcilers::{Reconcilers, Word};
use ketch_cluster::store::{Store, StoreAction};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::{Observed, Told, View};
use ketch_raft::{ClusterLog, Committed, Notice, ProposeError};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, broadcast, oneshot, watch};
use tokio::time::timeout;

use super::changes::{Changes, Wake};
use super::error::{ChangeError, LeadError};
use super::members;
use crate::locks::lock;
use crate::measure::OfLeader;
use crate::news::News;
use crate::world::World;

/// How long a change, or a read, waits for a quorum.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Wakes that a slow reader may be behind.
const BACKLOG: usize = 4096;
/// A proposal is waited for until it is settled or the leadership is over, which is sooner than this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// One term of leadership. See the module.
pub struct Leader {
    pub(super) log: Arc<ClusterLog>,
    pub(super) world: Arc<dyn World>,
    pub(super) term: u64,
    /// Held while a change is judged and until it is settled, however long that takes: what is perhaps in the log must not be
    /// made once more.
    turnstile: Arc<AsyncMutex<()>>,
    /// Locked before `observed`, that before the store.
    pub(super) reconcilers: Mutex<Reconcilers>,
    observed: RwLock<Observed>,
    /// Somebody has woken the reconcilers.
    pub(super) woken: Notify,
    /// None once the leadership is over: then nothing more will come.
    wakes: Mutex<Option<broadcast::Sender<Wake>>>,
    over: watch::Sender<bool>,
    /// Held while raft's members change.
    pub(super) membership: AsyncMutex<()>,
    pub(super) counted: OfLeader,
    pub(super) renewals: watch::Sender<Arc<std::collections::BTreeSet<ketch_cluster::id::NodeId>>>,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("term", &self.term).finish_non_exhaustive()
    }
}

impl Leader {
    /// Of a manager that leads and is past its barrier.
    pub(super) fn new(log: Arc<ClusterLog>, world: Arc<dyn World>, term: u64) -> Self {
        let observed = Observed::default();
        let reconcilers = log.read(|store| Reconcilers::of_leader(&View::new(store, &observed)));
        Self {
            log,
            world,
            term,
            turnstile: Arc::default(),
            reconcilers: Mutex::new(reconcilers),
            observed: RwLock::new(observed),
            woken: Notify::new(),
            wakes: Mutex::new(Some(broadcast::Sender::new(BACKLOG))),
            over: watch::Sender::new(false),
            membership: AsyncMutex::default(),
            counted: OfLeader::default(),
            renewals: watch::Sender::default(),
        }
    }

    /// Two leaders have different terms, unless they are of different managers.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What it has counted since it leads.
    #[must_use]
    pub fn counted(&self) -> &OfLeader {
        &self.counted
    }

    /// How many keys wait to be reconciled now, and how many for a moment; nothing while a reconciler decides, which may take long.
    #[must_use]
    pub fn queue_lengths(&self) -> Option<(usize, usize)> {
        match self.reconcilers.try_lock() {
            Ok(reconcilers) => Some(reconcilers.lengths()),
            Err(TryLockError::Poisoned(reconcilers)) => Some(reconcilers.into_inner().lengths()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The leader's clock, by which all moments in the cluster are made.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Lets users of this machine know, and whoever reads its log.
    pub(crate) fn announce(&self, news: News) {
        news.log();
        self.counted.decisions.note(news.what);
        self.world.announce(news);
    }

    /// The source of new ids.
    pub fn bits(&self) -> impl FnMut() -> u128 + use<> {
        let world = Arc::clone(&self.world);
        move || world.bits()
    }

    /// The cluster as of now. Nothing is committed or noted while `reader` runs, so it should be short, and must call nothing
    /// of this leader; what it needs for longer it takes out as [`Arc`]s.
    pub fn view<T>(&self, reader: impl FnOnce(&View<'_>) -> T) -> T {
        let observed = self.observed.read().unwrap_or_else(PoisonError::into_inner);
        self.log.read(|store| reader(&View::new(store, &observed)))
    }

    /// Returns once this leader is known to lead still, with everything in its store that was committed before the call: what
    /// is read then is as of now, not of a leader that was replaced without its knowing.
    ///
    /// # Errors
    /// [`LeadError`].
    pub async fn read(&self) -> Result<(), LeadError> {
        if Fault::BarrierSkipped.is_made() {
            return Ok(());
        }
        let barrier = async { Ok(self.log.barrier(PATIENCE).await) };
        match self.or_over(barrier).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lead_error(error)),
        }
    }

    /// Makes one change: `wanted` judges the cluster, alone, and says what is to be written and what the caller is told when
    /// it is. Nothing is proposed when nothing is to be written or `wanted` refuses; the answer is then behind a
    /// [`read`](Self::read). Goes on when it is dropped.
    ///
    /// # Errors
    /// [`ChangeError`]; only [`LeadError::Uncertain`] leaves it open whether anything was changed.
    pub async fn change<T, E>(
        &self,
        wanted: impl FnOnce(&View<'_>, Timestamp, NewBits<'_>) -> Result<(T, Vec<StoreAction>), E>,
    ) -> Result<T, ChangeError<E>> {
        let turn = self.turn().await?;
        let mut bits = self.bits();
        let now = self.now();
        let (told, actions) = match self.view(|view| wanted(view, now, &mut bits)) {
            Ok((told, actions)) if !actions.is_empty() => (told, actions),
            // Both say what the cluster is: a leader that was replaced without knowing it may say nothing of the kind.
            answered => {
                drop(turn);
                self.read().await?;
                return answered.map(|(told, _)| told).map_err(ChangeError::Refused);
            }
        };
        if Fault::EarlyCommit.is_made() {
            let log = Arc::clone(&self.log);
            tokio::spawn(async move { log.propose(actions, FOREVER).await });
            return Ok(told);
        }
        match timeout(PATIENCE, self.settled(turn, actions)).await {
            Err(_) => Err(LeadError::Uncertain.into()),
            Ok((_, Ok(_))) => Ok(told),
            Ok((_, Err(ProposeError::Refused(error)))) => Err(ChangeError::Store(error)),
            Ok((_, Err(error))) => Err(self.lead_error(error).into()),
        }
    }

    /// Takes in what workers say of their tasks. Which of it is new: dispatchers commit the ends among them.
    pub fn note(&self, words: Vec<(TaskId, Told)>) -> Vec<TaskId> {
        let now = self.now();
        let mut reconcilers = lock(&self.reconcilers);
        let mut observed = self.observed.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        self.log.read(|store| {
            for (id, told) in words {
                if note_one(store, &mut observed, &mut reconcilers, (id, told), now) {
                    news.push(id);
                }
            }
        });
        drop((observed, reconcilers));
        if !news.is_empty() {
            self.woken.notify_one();
            self.tell(Wake::Noted(news.as_slice().into()));
        }
        news
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let ended = || broadcast::channel(1).1;
        Changes(lock(&self.wakes).as_ref().map_or_else(ended, broadcast::Sender::subscribe))
    }

    /// Returns once this leadership is over.
    pub async fn ended(&self) {
        // It fails when the sender is gone, which is this leader's.
        drop(self.over.subscribe().wait_for(|over| *over).await);
    }

    #[must_use]
    pub fn has_ended(&self) -> bool {
        *self.over.borrow()
    }

    /// Nobody is to act by this leadership any more.
    pub(super) fn end(&self) {
        self.over.send_replace(true);
        drop(lock(&self.wakes).take());
    }

    pub(super) fn tell(&self, wake: Wake) {
        if let Some(wakes) = lock(&self.wakes).as_ref() {
            // Nobody may be listening.
            drop(wakes.send(wake));
        }
    }

    /// Waits for this caller's turn to change something; not when that is known to be of no use.
    pub(super) async fn turn(&self) -> Result<OwnedMutexGuard<()>, LeadError> {
        if members::has_lost_quorum(&self.log) {
            return Err(if self.has_ended() { self.not_leader() } else { LeadError::NoQuorum });
        }
        let turn = async {
            let turn = timeout(PATIENCE, Arc::clone(&self.turnstile).lock_owned()).await;
            turn.map_err(|_| LeadError::NoQuorum)
        };
        let turn = self.or_over(turn).await?;
        // Both may have come at once.
        if self.has_ended() { Err(self.not_leader()) } else { Ok(turn) }
    }

    /// Proposes one transaction and waits until it is settled; the turn is held that long, also when the caller is gone, and
    /// given back then.
    pub(super) async fn settled(
        &self,
        turn: OwnedMutexGuard<()>,
        actions: Vec<StoreAction>,
    ) -> (Option<OwnedMutexGuard<()>>, Result<Arc<Committed>, ProposeError>) {
        let (log, mut over) = (Arc::clone(&self.log), self.over.subscribe());
        let began = self.now();
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let settled = tokio::select! {
                biased;
                settled = log.propose(actions, FOREVER) => settled,
                _ = over.wait_for(|over| *over) => Err(ProposeError::Uncertain),
            };
            drop(tell.send((Some(turn), settled)));
        });
        let settled = told.await.unwrap_or((None, Err(ProposeError::Uncertain)));
        self.counted.proposals.took(self.now().since(began));
        self.counted.failed_proposals.add(usize::from(settled.1.is_err()));
        settled
    }

    /// Lets the reconcilers and their state know what was committed, and then everybody else.
    pub(super) fn take_in(&self, notice: Notice) {
        let now = self.now();
        let mut reconcilers = lock(&self.reconcilers);
        let mut observed = self.observed.write().unwrap_or_else(PoisonError::into_inner);
        match &notice {
            Notice::Committed(committed) => {
                for change in committed.changes.iter().filter(|change| change.new.is_none()) {
                    if let Some(ketch_cluster::store::ObjectId::Task(task)) = change.id() {
                        observed.forget(task);
                    }
                }
                self.log.read(|store| {
                    reconcilers.committed(&View::new(store, &observed), &committed.changes, now);
                });
            }
            Notice::Everything => self.log.read(|store| {
                observed.retain(|task| store.task(task).is_some());
                *reconcilers = Reconcilers::of_leader(&View::new(store, &observed));
            }),
        }
        drop((observed, reconcilers));
        self.tell(match notice {
            Notice::Committed(committed) => Wake::Committed(committed),
            Notice::Everything => Wake::Everything,
        });
    }

    /// Who leads instead.
    pub(super) fn not_leader(&self) -> LeadError {
        LeadError::NotLeader { leader: members::leader_of(&self.log) }
    }

    pub(super) fn lead_error(&self, error: ProposeError) -> LeadError {
        match error {
            ProposeError::NotLeader { leader } => {
                LeadError::NotLeader { leader: leader.map(|peer| (peer.node, peer.address)) }
            }
            ProposeError::NoQuorum => LeadError::NoQuorum,
            ProposeError::Stopped(why) => LeadError::Stopped(why),
            // Of a store's refusal nothing else is known here either.
            ProposeError::Uncertain | ProposeError::Refused(_) => LeadError::Uncertain,
        }
    }

    async fn or_over<T>(&self, work: impl Future<Output = Result<T, LeadError>>) -> Result<T, LeadError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.ended() => Err(self.not_leader()),
        }
    }
}

/// One word of a worker; whether it is news. An end that is committed is not taken back.
fn note_one(
    store: &Store,
    observed: &mut Observed,
    reconcilers: &mut Reconcilers,
    (id, told): (TaskId, Told),
    now: Timestamp,
) -> bool {
    let Some(task) = store.task(id).filter(|task| !task.status.state.is_terminal()) else { return false };
    let before = View::new(store, observed).status(task).clone();
    if !observed.note(id, told, now) {
        return false;
    }
    let view = View::new(store, observed);
    reconcilers.noted(&view, &Word { task, before: &before, after: view.status(task) }, now);
    true
}
