//! The tasks of this node as its latest assignment has them: what is kept of it, and which order each task's runner has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ketch_cluster::assignment::{Held, Item, ItemId, Neighbour, Traffic};
use ketch_cluster::fault::Fault;
use ketch_cluster::id::{ConfigId, SecretId, TaskId};
use ketch_cluster::objects::{Config, Secret, Task};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::contact::fence_of;
use super::hands::Hands;
use super::kept::{KeptTask, KeptWord, Needs, Place};
use super::runner::{Files, Order, Runner, Want};
use super::store::{Contents, Row};
use super::word::Word;

#[derive(Debug)]
pub(super) struct Roster {
    hands: Arc<Hands>,
    orders: BTreeMap<TaskId, watch::Sender<Order>>,
    runners: JoinSet<()>,
    /// What the executor knows of networks.
    networking: BTreeMap<ItemId, Item>,
    /// Whether containers of tasks that nobody knows were removed since the worker began.
    is_swept: bool,
}

impl Roster {
    /// Takes up what was kept: as the assignment was, so it goes on.
    pub(super) fn take_up(hands: Arc<Hands>, contents: Contents) -> Self {
        let Contents { tasks, mut words, items, .. } = contents;
        let mut it = Self {
            hands,
            orders: BTreeMap::new(),
            runners: JoinSet::new(),
            networking: items.into_iter().map(|item| (item.id(), item)).collect(),
            is_swept: false,
        };
        if !tasks.is_empty() || !it.networking.is_empty() {
            it.hands.networks.want(it.networking.values().cloned().collect());
        }
        for kept in tasks {
            let word = words.remove(&kept.task.id).filter(|_| !Fault::TaskStartedTwice.is_made());
            it.resume(kept, word);
        }
        it.look_for_fences();
        it
    }

    fn resume(&mut self, kept: KeptTask, word: Option<KeptWord>) {
        let now = self.hands.world.now();
        let word = word.map_or_else(|| Word::first(&kept.task), |word| Word::taken_up(word, now));
        let want = match kept.place {
            Place::Assigned => Want::of(&kept.task),
            Place::Removed => Want::Gone,
        };
        let files = (kept.needs == Needs::Nothing).then(Files::default);
        self.begin(Order { task: kept.task, want, files }, word);
    }

    fn begin(&mut self, order: Order, word: Word) {
        let task = order.task.id;
        self.hands.words.put(task, word.clone());
        self.hands.words.compare(&order.task);
        let (sender, orders) = watch::channel(order);
        self.orders.insert(task, sender);
        self.runners.spawn(Runner { hands: Arc::clone(&self.hands), task, orders, word }.run());
    }

    /// Takes an assignment: durable first, then done.
    pub(super) async fn take(&mut self, held: &Held) {
        while self.runners.try_join_next().is_some() {}
        self.orders.retain(|_, orders| !orders.is_closed());
        let given = Given::of(held);
        let networking = self.networking_after(given.networking);
        let orders: Vec<_> = given.tasks.values().map(|task| given.files.order(task)).collect();
        let gone: Vec<_> = self.orders.keys().filter(|id| !given.tasks.contains_key(*id)).copied().collect();

        let rows = self.changed_rows(&orders, &gone, &networking);
        self.hands.store.write(rows).await;

        self.networking = networking;
        self.hands.networks.want(self.networking.values().cloned().collect());
        for order in orders {
            self.give(order);
        }
        for task in gone {
            self.send_away(task, Want::Gone);
        }
        self.look_for_fences();
        self.sweep(given.tasks.keys().copied().collect());
    }

    fn give(&mut self, order: Order) {
        let Some(orders) = self.orders.get(&order.task.id) else {
            // What ran it may have ended otherwise than well; what is known of the task holds.
            let word = self.hands.words.of(order.task.id).unwrap_or_else(|| Word::first(&order.task));
            return self.begin(order, word);
        };
        self.hands.words.compare(&order.task);
        orders.send_if_modified(|known| {
            let is_new = *known != order;
            if is_new {
                *known = order;
            }
            is_new
        });
    }

    fn send_away(&self, task: TaskId, want: Want) {
        if let Some(orders) = self.orders.get(&task)
            && !Fault::RemovalIgnored.is_made()
        {
            orders.send_if_modified(|order| std::mem::replace(&mut order.want, want) != want);
        }
    }

    /// What differs from what is kept.
    fn changed_rows(
        &self,
        orders: &[Order],
        gone: &[TaskId],
        networking: &BTreeMap<ItemId, Item>,
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        for order in orders {
            let known = self.orders.get(&order.task.id).map(watch::Sender::borrow);
            if known.is_none_or(|known| known.want >= Want::Gone || known.task != order.task) {
                rows.push(Row::task(&KeptTask::new(&order.task, Place::Assigned)));
            }
        }
        for task in gone.iter().filter_map(|id| self.orders.get(id)) {
            let order = task.borrow();
            if order.want < Want::Gone {
                rows.push(Row::task(&KeptTask::new(&order.task, Place::Removed)));
            }
        }
        let is_kept = |item: &&Item| !matches!(item, Item::DataKeys(_));
        let changed = networking.iter().filter(|(id, item)| self.networking.get(id) != Some(item));
        rows.extend(changed.map(|(_, item)| item).filter(is_kept).map(Row::item));
        let lost = self.networking.keys().filter(|id| !networking.contains_key(*id));
        rows.extend(lost.map(|id| Row::no_item(*id)));
        if orders.iter().any(|order| fence_of(&order.task).is_some()) {
            rows.push(Row::contact(self.hands.contact.at(self.hands.world.now())));
        }
        rows
    }

    /// The items as the executor is to have them. Of a task that the leader has not heard of, what was known holds.
    fn networking_after(&self, items: Vec<Item>) -> BTreeMap<ItemId, Item> {
        let known = |item: Item| match item {
            Item::Neighbour(neighbour) if neighbour.traffic == Traffic::Unknown => {
                let traffic = match self.networking.get(&ItemId::Neighbour(neighbour.task)) {
                    Some(Item::Neighbour(known)) => known.traffic,
                    _ => Traffic::None,
                };
                Item::Neighbour(Neighbour { traffic, ..neighbour })
            }
            item => item,
        };
        items.into_iter().map(known).map(|item| (item.id(), item)).collect()
    }

    fn look_for_fences(&self) {
        let has_fence = self.orders.values().any(|orders| fence_of(&orders.borrow().task).is_some());
        self.hands.contact.keep(has_fence);
    }

    /// Removes containers of tasks of which neither this worker nor the leader knows: once, when both can be asked.
    fn sweep(&mut self, assigned: BTreeSet<TaskId>) {
        if std::mem::replace(&mut self.is_swept, true) {
            return;
        }
        let known: BTreeSet<_> = self.orders.keys().copied().chain(assigned).collect();
        self.runners.spawn(remove_unknown(Arc::clone(&self.hands), known));
    }

    pub(super) fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        self.orders.get(&id).map(|orders| Arc::clone(&orders.borrow().task))
    }

    /// Ends what drives the tasks; they go on.
    pub(super) async fn end(&mut self) {
        self.runners.shutdown().await;
    }

    /// Stops and removes all tasks; returns when they are gone.
    pub(super) async fn leave(&mut self) {
        for task in self.orders.keys() {
            self.send_away(*task, Want::Left);
        }
        while self.runners.join_next().await.is_some() {}
        self.orders.clear();
        self.networking.clear();
        self.hands.networks.want(Vec::new());
        self.hands.networks.before_stop().await;
    }
}

async fn remove_unknown(hands: Arc<Hands>, known: BTreeSet<TaskId>) {
    let present = match hands.executor.present().await {
        Ok(present) => present,
        Err(reason) => return tracing::warn!(%reason, "containers of forgotten tasks can't be looked for"),
    };
    for task in present.difference(&known) {
        tracing::info!(%task, "removing the container of a task that is forgotten");
        if let Err(error) = hands.executor.remove(*task).await {
            tracing::warn!(%task, %error, "the container of a forgotten task can't be removed");
        }
    }
}

/// An assignment by what is done with its parts.
struct Given {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    files: AllFiles,
    networking: Vec<Item>,
}

#[derive(Default)]
struct AllFiles {
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
}

impl Given {
    fn of(held: &Held) -> Self {
        let mut it = Self { tasks: BTreeMap::new(), files: AllFiles::default(), networking: Vec::new() };
        for item in held.items() {
            match item {
                Item::Task(task) => drop(it.tasks.insert(task.id, Arc::clone(task))),
                Item::Secret(secret) => drop(it.files.secrets.insert(secret.id, Arc::clone(secret))),
                Item::Config(config) => drop(it.files.configs.insert(config.id, Arc::clone(config))),
                other => it.networking.push(other.clone()),
            }
        }
        it
    }
}

impl AllFiles {
    fn order(&self, task: &Arc<Task>) -> Order {
        let mut files = Files::default();
        if let Some(container) = task.spec.container() {
            let secrets = container.secrets.iter().filter_map(|it| self.secrets.get(&it.secret));
            let configs = container.configs.iter().filter_map(|it| self.configs.get(&it.config));
            files = Files { secrets: secrets.cloned().collect(), configs: configs.cloned().collect() };
        }
        Order { task: Arc::clone(task), want: Want::of(task), files: Some(files) }
    }
}
