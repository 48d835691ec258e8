//! What can be looked at by itself: one reconciler, of one service, one node or the whole cluster. Called by the queue.

use std::collections::BTreeSet;

use crate::id::{NewBits, NodeId, ServiceId};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;
use crate::{allocator, data_keys, orchestrator, payloads, scheduler};

/// A reconciler with what it is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Which tasks a service is to have; also of one that is removed, until its tasks are.
    Service(ServiceId),
    /// Which tasks stay on a node, or are lost with it; also of one that is removed.
    Node(NodeId),
    /// Who gets which address, subnet and port.
    Allocator,
    /// Which node gets which task.
    Scheduler,
    /// Which ended tasks of a service are forgotten.
    Reaper(ServiceId),
    /// The keys of encrypted networks.
    DataKeys,
    /// Which superseded secrets and configs are forgotten.
    Payloads,
}

impl Key {
    /// Whatever could want something, in the order in which a new leader looks at it.
    #[must_use]
    pub fn all(view: &View<'_>) -> BTreeSet<Self> {
        let services = view.services().map(|it| it.id).chain(view.tasks().filter_map(|task| task.service));
        let nodes = view.nodes().map(|it| it.id).chain(view.tasks().filter_map(|task| task.node));
        let of_services = services.flat_map(|service| [Self::Service(service), Self::Reaper(service)]);
        let of_cluster = [Self::Allocator, Self::Scheduler, Self::DataKeys, Self::Payloads];
        of_services.chain(nodes.map(Self::Node)).chain(of_cluster).collect()
    }

    /// Which reconciler it is, whatever it is called for: for metrics.
    #[must_use]
    pub fn reconciler(self) -> &'static str {
        match self {
            Self::Service(_) => "service",
            Self::Node(_) => "node",
            Self::Allocator => "allocator",
            Self::Scheduler => "scheduler",
            Self::Reaper(_) => "reaper",
            Self::DataKeys => "data_keys",
            Self::Payloads => "payloads",
        }
    }

    /// What it wants changed. Without memory: called twice on the same view, it wants the same, but for the ids of new objects.
    pub fn run(self, view: &View<'_>, now: Timestamp, bits: NewBits<'_>) -> Reconciled {
        match self {
            Self::Service(service) => orchestrator::reconcile_service(view, service, now, bits),
            Self::Node(node) => orchestrator::reconcile_node(view, node, now),
            Self::Allocator => allocator::reconcile(view, now),
            Self::Scheduler => scheduler::schedule(view, now),
            Self::Reaper(service) => orchestrator::reap(view, service, now),
            Self::DataKeys => data_keys::reconcile(view, now, bits),
            Self::Payloads => payloads::reconcile(view),
        }
    }
}
