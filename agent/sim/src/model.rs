//! What users have asked for and were told: nothing of it may be lost.

use std::collections::{BTreeMap, BTreeSet};

use ketch_cluster::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{Labels, NodeSpec, ServiceMode, ServiceSpec};

use crate::{loads, reach};

/// What is known of what users asked for.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// What services join, and the files that they use.
    pub(crate) network: Option<NetworkId>,
    pub(crate) secret: Option<SecretId>,
    pub(crate) config: Option<ConfigId>,
    pub(crate) services: Ledger<ServiceId, Present>,
    /// Services that somebody wanted back as they were: with the config of then.
    pub(crate) rolled_back: BTreeSet<ServiceId>,
    pub(crate) nodes: Ledger<NodeId, NodeSpec>,
    /// How many requests were acknowledged.
    pub(crate) acknowledged: u64,
}

/// The objects of a kind that users asked for.
#[derive(Debug)]
pub(crate) struct Ledger<K, V> {
    entries: BTreeMap<K, Asked<V>>,
    /// Counts requests. Of each object the one that was judged last: the answer to an earlier one, of a leader that was
    /// replaced, may come after it.
    requests: u64,
    latest: BTreeMap<K, u64>,
}

/// A request that was judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<K> {
    object: K,
    number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked<V> {
    /// A request is under way, or nobody knows its outcome.
    Open,
    /// This was acknowledged.
    Present(V),
    /// Its removal was.
    Removed,
}

/// What users change of a service, each of them one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) mode: ServiceMode,
    pub(crate) image: String,
    pub(crate) replicas: Replicas,
    /// Who reaches it.
    pub(crate) reach: Labels,
}

/// Whose a service's replicas are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replicas {
    Users,
    Loads,
}

impl Present {
    pub(crate) fn of(spec: &ServiceSpec) -> Self {
        let image = match &spec.task.runtime {
            TaskRuntime::Container(container) => container.image.clone(),
            TaskRuntime::Attachment { .. } => String::new(),
        };
        let reach = reach::read(&spec.labels);
        if loads::is_followed(spec) {
            // However many there are at the moment.
            let mode = ServiceMode::Replicated { replicas: 0 };
            return Self { mode, image, replicas: Replicas::Loads, reach };
        }
        Self { mode: spec.mode, image, replicas: Replicas::Users, reach }
    }
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), requests: 0, latest: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V> Ledger<K, V> {
    /// A request is judged: what is known of the object until then, which is open from now on.
    pub(crate) fn begin(&mut self, object: K) -> (Request<K>, Asked<V>) {
        self.requests += 1;
        let request = Request { object, number: self.requests };
        self.latest.insert(object, request.number);
        (request, self.entries.insert(object, Asked::Open).unwrap_or(Asked::Open))
    }

    /// Its user was told that it is done.
    pub(crate) fn done(&mut self, request: Request<K>, asked: Asked<V>) {
        if self.latest.get(&request.object) == Some(&request.number) {
            self.entries.insert(request.object, asked);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &Asked<V>)> {
        self.entries.iter().map(|(id, asked)| (*id, asked))
    }

    /// Those that are known to be there.
    pub(crate) fn present(&self) -> impl Iterator<Item = (K, &V)> {
        self.iter().filter_map(|(id, asked)| match asked {
            Asked::Present(present) => Some((id, present)),
            Asked::Open | Asked::Removed => None,
        })
    }

    /// Not when it was removed; and nobody knows while a request is open.
    pub(crate) fn may_be_there(&self, object: K) -> bool {
        !matches!(self.entries.get(&object), Some(Asked::Removed | Asked::Open))
    }
}

impl<V: PartialEq> Asked<V> {
    /// Whether what was found may be so, by what was acknowledged.
    pub(crate) fn is(&self, found: Option<&V>) -> bool {
        match self {
            Self::Open => true,
            Self::Present(present) => found == Some(present),
            Self::Removed => found.is_none(),
        }
    }
}
