//! Containers that are no tasks come into networks of the cluster: the managers are asked for a place, and it is waited for until the
//! node has the network and may use the place's addresses. The place is a task, whose life the executor tells: it runs while the
//! container is in the network, and has ended when it is not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_cluster::objects::task::TaskRuntime;
use ketch_engine_api::network::{EndpointIpamConfig, EndpointSettings};
use ketch_node::calls::Wanted;
use ketch_node::worker::AttachError;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::compat;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};

/// How long the node may take to have the network, once the place is given.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Attaching(watch::Sender<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Containers that come into networks now, each as often as it does.
    joining: BTreeMap<String, usize>,
    /// Places that may be used, for whoever waits for them.
    offers: BTreeMap<TaskId, Arc<Task>>,
}

/// A container comes into networks. Until this is dropped its places last, whether it is there or not.
#[derive(Debug)]
pub(crate) struct Joining {
    daemon: Arc<Daemon>,
    container: String,
}

/// A place that a container has.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The network's id.
    pub(crate) network: String,
    pub(crate) task: String,
    addresses: Vec<IpAddr>,
}

impl Place {
    /// The same, with the addresses that the place has.
    pub(crate) fn settle(&self, asked: &EndpointSettings) -> EndpointSettings {
        let text = |is_wanted: fn(&IpAddr) -> bool| {
            self.addresses.iter().find(|it| is_wanted(it)).map(ToString::to_string).unwrap_or_default()
        };
        let link_local_ips = asked.ipam_config.as_ref().and_then(|ipam| ipam.link_local_ips.clone());
        let ipam = EndpointIpamConfig {
            ipv4_address: text(IpAddr::is_ipv4),
            ipv6_address: text(IpAddr::is_ipv6),
            link_local_ips,
        };
        EndpointSettings { ipam_config: Some(ipam), ..asked.clone() }
    }
}

impl Attaching {
    /// The node may use a place; whether somebody waits for it.
    pub(super) fn offer(&self, task: &Arc<Task>) -> bool {
        let Some(container) = container_of(task) else { return false };
        self.0.send_if_modified(|held| {
            let is_wanted = held.joining.contains_key(container);
            if is_wanted {
                drop(held.offers.insert(task.id, Arc::clone(task)));
            }
            is_wanted
        })
    }

    /// Returns once the container comes into no network.
    async fn settled(&self, container: &str) {
        // The sender is here as well: it can't end first.
        drop(self.0.subscribe().wait_for(|held| !held.joining.contains_key(container)).await);
    }

    async fn offered(&self, task: TaskId) -> Option<Arc<Task>> {
        let mut held = self.0.subscribe();
        let offered = timeout(PATIENCE, held.wait_for(|held| held.offers.contains_key(&task))).await;
        offered.ok()?.ok()?.offers.get(&task).cloned()
    }
}

impl Joining {
    pub(crate) fn new(daemon: &Arc<Daemon>, container: &str) -> Self {
        daemon.attaching.0.send_modify(|held| *held.joining.entry(container.to_owned()).or_default() += 1);
        Self { daemon: Arc::clone(daemon), container: container.to_owned() }
    }

    /// Gets a place.
    ///
    /// # Errors
    /// dockerd's texts; none but that there is no such network, where the node is of no cluster.
    pub(crate) async fn place(&self, wanted: Wanted) -> Result<Place> {
        let network = wanted.network.clone();
        let task = self.daemon.node()?.attach(wanted).await.map_err(|error| refused(&network, error))?;
        let offered = self.daemon.attaching.offered(task).await;
        let not_given =
            || Error::new(Kind::Internal, compat::attachment_not_given("context deadline exceeded"));
        let task = offered.ok_or_else(not_given)?;
        let attachment = task.networks.first().ok_or_else(not_given)?;
        Ok(Place {
            network: attachment.network.to_string(),
            task: task.id.to_string(),
            addresses: attachment.addresses.iter().map(|subnet| subnet.address).collect(),
        })
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.daemon.attaching.0.send_modify(|held| {
            if let Some(count) = held.joining.get_mut(&self.container) {
                *count -= 1;
                if *count == 0 {
                    let _zero = held.joining.remove(&self.container);
                    held.offers.retain(|_, task| container_of(task) != Some(self.container.as_str()));
                }
            }
        });
    }
}

fn refused(network: &str, error: AttachError) -> Error {
    match error {
        AttachError::NoCluster => Error::not_found(format!("network {network} not found")),
        AttachError::NotGiven(why) => Error::new(Kind::Internal, compat::attachment_not_given(&why)),
        error @ (AttachError::Refused(_) | AttachError::Late) => {
            Error::new(Kind::Internal, compat::not_attached(network, &error.to_string()))
        }
    }
}

/// The container whose place the task is.
pub(super) fn container_of(task: &Task) -> Option<&str> {
    match &task.spec.runtime {
        TaskRuntime::Attachment { container } => Some(container),
        TaskRuntime::Container(_) => None,
    }
}

/// Whether the container is in the network by that place.
pub(super) fn is_taken(daemon: &Daemon, task: TaskId) -> bool {
    daemon.networks.places().borrow().contains(&task.to_string())
}

/// Returns once the container is not in the network, and does not come into it.
pub(super) async fn vacated(daemon: &Daemon, task: &Task) {
    let id = task.id.to_string();
    let mut places = daemon.networks.places();
    if let Some(container) = container_of(task) {
        daemon.attaching.settled(container).await;
    }
    // The sender is the daemon's.
    drop(places.wait_for(|places| !places.contains(&id)).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_addresses_whatever_was_asked_for() {
        let place = Place {
            network: "net".to_owned(),
            task: "task".to_owned(),
            addresses: vec!["fd00::7".parse().unwrap(), "10.30.0.7".parse().unwrap()],
        };
        let asked = EndpointSettings { aliases: Some(vec!["a".to_owned()]), ..EndpointSettings::default() };
        let settled = place.settle(&asked);
        let ipam = settled.ipam_config.unwrap();
        assert_eq!((ipam.ipv4_address.as_str(), ipam.ipv6_address.as_str()), ("10.30.0.7", "fd00::7"));
        assert_eq!(settled.aliases, asked.aliases);
    }

    #[test]
    fn the_words_are_dockers() {
        let text = |error| refused("net", error).message;
        assert_eq!(text(AttachError::Late), "Could not attach to network net: context deadline exceeded");
        assert_eq!(text(AttachError::NoCluster), "network net not found");
        assert!(text(AttachError::NotGiven("why".to_owned())).starts_with("attaching to network failed, "));
    }
}
