//! What users have asked for and were told: nothing of it may be lost.

use std::collections::BTreeMap;

use ketch_cluster::id::{NetworkId, ServiceId};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{ServiceMode, ServiceSpec};

/// What is known of the services that users asked for.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Which all services join.
    pub(crate) network: Option<NetworkId>,
    services: BTreeMap<ServiceId, Asked>,
    /// Counts requests. Of each service the one that was judged last: the answer to an earlier one, of a leader that was
    /// replaced, may come after it.
    requests: u64,
    latest: BTreeMap<ServiceId, u64>,
}

/// A request that was judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    service: ServiceId,
    number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request is under way, or nobody knows its outcome.
    Open,
    /// This was acknowledged.
    Present(Present),
    /// Its removal was.
    Removed,
}

/// What users change of a service, each of them one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) replicas: u64,
    pub(crate) image: String,
}

impl Present {
    pub(crate) fn of(spec: &ServiceSpec) -> Self {
        let replicas = match spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            _ => 0,
        };
        let image = match &spec.task.runtime {
            TaskRuntime::Container(container) => container.image.clone(),
            _ => String::new(),
        };
        Self { replicas, image }
    }
}

impl Model {
    /// A request is judged: what is known of the service until then, which is open from now on.
    pub(crate) fn begin(&mut self, service: ServiceId) -> (Request, Asked) {
        self.requests += 1;
        let request = Request { service, number: self.requests };
        self.latest.insert(service, request.number);
        (request, self.services.insert(service, Asked::Open).unwrap_or(Asked::Open))
    }

    /// Its user was told that it is done.
    pub(crate) fn done(&mut self, request: Request, asked: Asked) {
        if self.latest.get(&request.service) == Some(&request.number) {
            self.services.insert(request.service, asked);
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = (ServiceId, &Asked)> {
        self.services.iter().map(|(id, asked)| (*id, asked))
    }

    /// The services that are known to be there.
    pub(crate) fn present(&self) -> Vec<ServiceId> {
        let is_there = |asked: &Asked| matches!(asked, Asked::Present(_));
        self.services().filter(|(_, asked)| is_there(asked)).map(|(id, _)| id).collect()
    }
}
