//! The end of a container's interfaces: they go with their namespace, which the kernel ends several of at once. To remove a pair
//! takes it 20 ms and more, one after another, which a container's end does not wait for. Called by `join`.

use std::time::Duration;

use tracing::warn;

use super::link::Links;
use super::netlink::NetlinkError;
use super::record::{Endpoint, Sandbox};
use super::{Networks, namespace, overlay, refused};
use crate::error::Result;

/// How long the kernel mostly takes to end a namespace.
const ENDED: Duration = Duration::from_millis(200);

impl Networks {
    /// Takes the host's ends down: nothing passes any more, and the addresses may be another's.
    pub(super) fn take_down(&self, sandbox: &Sandbox) -> Result<()> {
        let mut links = Links::open().map_err(|error| refused(&error))?;
        links_of(sandbox).try_for_each(|link| links.down(link)).map_err(|error| refused(&error))?;
        in_spaces(sandbox, |links, link| links.down(link))
    }

    /// Removes in a while what is still there because something holds the namespace, and then the record.
    pub(super) fn unlink_later(&self, sandbox: Sandbox) -> Result<()> {
        if sandbox.endpoints.iter().all(|endpoint| endpoint.link.is_empty()) {
            return self.0.records.remove(&sandbox.container);
        }
        let networks = self.clone();
        drop(self.0.runtime.spawn(async move {
            tokio::time::sleep(ENDED).await;
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = networks.unlink(&sandbox) {
                    warn!("the network of {}: {error}", sandbox.container);
                }
            }));
        }));
        Ok(())
    }

    fn unlink(&self, sandbox: &Sandbox) -> Result<()> {
        let mut links = Links::open().map_err(|error| refused(&error))?;
        links_of(sandbox).try_for_each(|link| links.remove(link)).map_err(|error| refused(&error))?;
        in_spaces(sandbox, |links, link| links.remove(link))?;
        forget_ports(&sandbox.endpoints)?;
        let state = self.state();
        // The container may have been started again: the record is that of its new one.
        if state.sandboxes.contains_key(&sandbox.container) {
            return Ok(());
        }
        self.0.records.remove(&sandbox.container)
    }
}

/// The host's ends.
fn links_of(sandbox: &Sandbox) -> impl Iterator<Item = &str> {
    let of_host = sandbox.endpoints.iter().filter(|endpoint| endpoint.space.is_none());
    of_host.map(|endpoint| endpoint.link.as_str()).filter(|link| !link.is_empty())
}

/// Does something with the ends in namespaces of networks; with its namespace an end has gone.
fn in_spaces(sandbox: &Sandbox, what: impl Fn(&mut Links, &str) -> Result<(), NetlinkError>) -> Result<()> {
    for endpoint in &sandbox.endpoints {
        if let Some(space) = endpoint.space.as_deref().filter(|space| namespace::is_bound(space)) {
            let mut links = overlay::links_of(space, &endpoint.network)?;
            what(&mut links, &endpoint.link).map_err(|error| refused(&error))?;
        }
    }
    Ok(())
}

/// What may be said by ports that have gone; with its namespace it has gone, too.
pub(super) fn forget_ports<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Result<()> {
    for endpoint in endpoints {
        let space = endpoint.space.as_deref().filter(|space| namespace::is_bound(space));
        if let (Some(space), Some(port)) = (space, endpoint.port()) {
            overlay::forget_port(space, &port)?;
        }
    }
    Ok(())
}
