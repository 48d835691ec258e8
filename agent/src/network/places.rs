//! Places in networks of the cluster that containers have which are no tasks: each is a task of the cluster's, and lasts as long as
//! the container's endpoint. Called by `node`, which says to the managers how those tasks fare.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::Networks;
use super::record::Sandbox;
use crate::error::Result;

impl Networks {
    /// The tasks that are places of containers here, now and whenever they change.
    #[must_use]
    pub fn places(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.places.subscribe()
    }

    /// Takes the container out of the network whose place that task is; none is well.
    ///
    /// # Errors
    /// The kernel's or the disk's.
    pub fn vacate(&self, task: &str) -> Result<()> {
        match self.placed(task) {
            Some((container, network)) => self.disconnect(&network, &container),
            None => Ok(()),
        }
    }

    /// The container that has the place which that task is, and the network.
    pub fn placed(&self, task: &str) -> Option<(String, String)> {
        let state = self.state();
        let mut endpoints = state
            .sandboxes
            .values()
            .flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (&sandbox.container, endpoint)));
        let of_task = endpoints.find(|(_, endpoint)| endpoint.place.as_deref() == Some(task));
        of_task.map(|(container, endpoint)| (container.clone(), endpoint.network.clone()))
    }

    /// A sandbox has changed, has come or gone.
    pub(super) fn hold_places(&self, before: Option<&Sandbox>, after: Option<&Sandbox>) {
        let gone: Vec<_> = before.into_iter().flat_map(Sandbox::places).collect();
        let new: Vec<_> = after.into_iter().flat_map(Sandbox::places).collect();
        self.0.places.send_if_modified(|places| {
            let mut is_new = false;
            for task in gone.iter().filter(|task| !new.contains(task)) {
                is_new |= places.remove(*task);
            }
            for task in new {
                is_new |= places.insert(task.clone());
            }
            is_new
        });
    }
}
