//! One node's place: what outlives its agent, and how the run reaches into it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use ketch_node::node::{Node, NodeParts};
use ketch_node::wire::Service;
use ketch_raft::Blocking;
use tokio::sync::mpsc;

use crate::disk::SimulatedDisk;
use crate::layers::Sharing;
use crate::linear::Api;
use crate::locks::lock;
use crate::machine::Machine;
use crate::random::Random;
use crate::world::SimulatedWorld;

/// Something to be done by a node, in its own time.
pub(crate) type Order = Box<dyn FnOnce(Arc<Node>) -> BoxFuture<'static, ()> + Send>;

/// A machine with its disk.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) disk: Arc<SimulatedDisk>,
    pub(crate) machine: Arc<Machine>,
    /// By how many nanoseconds its clock is ahead.
    pub(crate) skew: Arc<Mutex<i64>>,
    random: Mutex<Random>,
    agent: Mutex<Option<Agent>>,
}

/// The agent that runs.
#[derive(Clone)]
struct Agent {
    node: Arc<Node>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Site {
    pub(crate) fn new(
        name: &str,
        keys: PathBuf,
        sharing: Option<Arc<Sharing>>,
        random: &mut Random,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            disk: SimulatedDisk::new(keys),
            machine: Machine::new(name, random.branch(), sharing),
            skew: Arc::default(),
            random: Mutex::new(random.branch()),
            agent: Mutex::default(),
        })
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> String {
        format!("{}:2377", self.name)
    }

    /// The agent's life: it takes up what the disk says, and does what it is told.
    pub(crate) async fn live(self: Arc<Self>) -> Result<(), Box<dyn std::error::Error>> {
        let random = lock(&self.random).branch();
        let world = SimulatedWorld::new(Arc::clone(&self.disk), random, Arc::clone(&self.skew));
        let api = Arc::new(Api::default());
        let node = Node::new(NodeParts {
            world: Arc::new(world),
            executor: Arc::clone(&self.machine) as Arc<dyn ketch_node::executor::Executor>,
            api: Arc::clone(&api) as Arc<dyn Service>,
            blocking: Blocking::Inline,
        });
        api.is_of(&node);
        self.machine.begin(&node);
        node.begin();
        let (orders, mut waiting) = mpsc::unbounded_channel::<Order>();
        *lock(&self.agent) = Some(Agent { node: Arc::clone(&node), orders });
        while let Some(order) = waiting.recv().await {
            drop(tokio::spawn(order(Arc::clone(&node))));
        }
        Ok(())
    }

    /// The agent is gone.
    pub(crate) fn killed(&self) {
        *lock(&self.agent) = None;
    }

    /// The node, when its agent runs.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        lock(&self.agent).as_ref().map(|agent| Arc::clone(&agent.node))
    }

    /// Has the agent do something; false when none runs.
    pub(crate) fn order(
        &self,
        order: impl FnOnce(Arc<Node>) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> bool {
        lock(&self.agent).as_ref().is_some_and(|agent| agent.orders.send(Box::new(order)).is_ok())
    }
}
