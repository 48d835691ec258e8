//! What users have asked for and were told: nothing of it may be lost.

use std::collections::BTreeMap;

use ketch_cluster::id::ServiceId;

/// What is known of the services that users asked for.
#[derive(Debug, Default)]
pub(crate) struct Model {
    services: BTreeMap<ServiceId, Asked>,
}

/// Of one service, which one user at a time changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request is under way, or nobody knows its outcome.
    Open,
    /// So many replicas were acknowledged.
    Replicas(u64),
    /// Its removal was.
    Removed,
}

impl Model {
    pub(crate) fn set(&mut self, service: ServiceId, asked: Asked) {
        self.services.insert(service, asked);
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = (ServiceId, Asked)> {
        self.services.iter().map(|(id, asked)| (*id, *asked))
    }

    /// A service that is known to be there.
    pub(crate) fn any(&self, choice: u64) -> Option<ServiceId> {
        let is_there = |asked: Asked| matches!(asked, Asked::Replicas(_));
        let known: Vec<_> = self.services().filter(|(_, asked)| is_there(*asked)).map(|(id, _)| id).collect();
        let index = usize::try_from(choice.checked_rem(known.len() as u64)?).ok()?;
        known.get(index).copied()
    }
}
