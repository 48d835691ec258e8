//! A store as a list of objects, for a manager that joins or comes back.

use serde::{Deserialize, Serialize};

use super::{Change, Object, Store};
use crate::objects::Version;

/// Every object of one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The place in the log of the last transaction in it.
    pub version: Version,
    /// In an order in which they can be read back one by one: services before their tasks.
    pub objects: Vec<Object>,
}

impl Store {
    /// Everything, as it is now. The objects are shared, not copied.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let objects = self
            .cluster
            .iter()
            .cloned()
            .map(Object::Cluster)
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.networks.values().cloned().map(Object::Network))
            .chain(self.secrets.values().cloned().map(Object::Secret))
            .chain(self.configs.values().cloned().map(Object::Config))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.tasks.values().cloned().map(Object::Task))
            .collect();
        Snapshot { version: self.version, objects }
    }

    /// The store of that moment.
    #[must_use]
    pub fn of(snapshot: Snapshot) -> Self {
        let mut store = Self { version: snapshot.version, ..Self::default() };
        for object in snapshot.objects {
            let object = store.shared(object);
            store.enter(&Change { old: None, new: Some(object) });
        }
        store
    }
}
