//! The system's [`World`]: the wall clock, the kernel's randomness, TLS over TCP, and a folder of the data root. The node's
//! lifecycle makes one and gives it to all parts of the node.

mod credentials;
mod dial;
mod disk;
mod listener;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::time::Timestamp;
use ketch_node::news::News;
use ketch_node::world::{Credentials, DialError, Disk, Listener, Stream, Terms, World};

use self::credentials::Held;
use self::disk::Folder;
use self::listener::{Sockets, Tcp};
use super::news;
use crate::daemon::Daemon;
use crate::random;

/// Of one daemon.
#[derive(Debug)]
pub struct SystemWorld {
    held: Arc<Held>,
    sockets: Arc<Sockets>,
    disk: Arc<Folder>,
    /// Whose events tell of news; of none nobody hears them.
    daemon: Weak<Daemon>,
}

impl SystemWorld {
    /// Keeps what it has in `<data_root>/swarm`, as dockerd does; the folder is made when it is first written to.
    #[must_use]
    pub fn new(data_root: &Path) -> Self {
        let disk = Arc::new(Folder::new(data_root.join("swarm")));
        Self { held: Arc::default(), sockets: Arc::default(), disk, daemon: Weak::new() }
    }

    /// The same, whose news are the daemon's events.
    #[must_use]
    pub fn of(daemon: &Arc<Daemon>) -> Self {
        Self { daemon: Arc::downgrade(daemon), ..Self::new(&daemon.config.data_root) }
    }
}

impl World for SystemWorld {
    fn now(&self) -> Timestamp {
        now()
    }

    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        // Once the kernel has any it always has (getrandom(2)): this waits for its first in a machine's first moments.
        while random::fill(&mut bytes).is_err() {
            std::thread::yield_now();
        }
        u128::from_ne_bytes(bytes)
    }

    fn dial(&self, address: &str, terms: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>> {
        dial::dial(Arc::clone(&self.held), address.to_owned(), terms).boxed()
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (held, sockets, address) =
            (Arc::clone(&self.held), Arc::clone(&self.sockets), address.to_owned());
        async move { Ok(Box::new(Tcp::bind(held, &sockets, &address).await?) as Box<dyn Listener>) }.boxed()
    }

    fn adopt(&self, credentials: Credentials) {
        self.held.adopt(credentials);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk) as Arc<dyn Disk>
    }

    fn announce(&self, news: News) {
        if let Some(daemon) = self.daemon.upgrade() {
            news::publish(&daemon.events, news);
        }
    }
}

/// The wall clock's; one from before 1970 is taken for that.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
