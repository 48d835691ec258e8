//! A table of ours that is there for as long as there is something to say in it, with a watch over it: what somebody takes away is
//! written again. While there is nothing, there is neither a table nor a watch. What it says is its [`Content`]'s matter.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use super::table::{Transaction, is_there};
use super::{Family, Socket, watch};
use crate::locks::locked;
use crate::network::netlink::NetlinkError;

/// What a table says.
pub(in crate::network) trait Content: Clone + Debug + PartialEq + Send + 'static {
    /// Makes the table with all that it says.
    fn write(&self, transaction: &mut Transaction, table: &str);
}

/// The table, and a watch over it once it has been written.
#[derive(Debug)]
pub(in crate::network) struct Kept<C> {
    table: String,
    watched: Mutex<Option<Arc<Watched<C>>>>,
}

#[derive(Debug)]
struct Watched<C> {
    table: String,
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    socket: Socket,
    wanted: Option<C>,
    is_written: bool,
}

impl<C: Content> Kept<C> {
    /// Of this name. Nothing is written.
    pub(in crate::network) fn new(table: String) -> Self {
        Self { table, watched: Mutex::default() }
    }

    /// Has the table say that from now on; `None`: there is no table any more.
    ///
    /// # Errors
    /// The kernel's: what it had it has.
    pub(in crate::network) fn set(&self, wanted: Option<C>) -> Result<(), NetlinkError> {
        let watched = {
            let mut watched = locked(&self.watched);
            match (&*watched, &wanted) {
                (Some(watched), Some(_)) => Arc::clone(watched),
                (_, None) => {
                    // The watch ends with the change that follows. One of an earlier daemon may be there.
                    if let Some(watched) = watched.take() {
                        locked(&watched.state).wanted = None;
                    }
                    return remove(&self.table);
                }
                (None, Some(_)) => Arc::clone(watched.insert(self.watch()?)),
            }
        };
        let mut state = locked(&watched.state);
        if state.is_written && state.wanted == wanted {
            return Ok(());
        }
        state.wanted = wanted;
        watched.write(&mut state)
    }

    /// Whether the kernel has it, of this daemon or of one before.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::network) fn is_there(&self) -> Result<bool, NetlinkError> {
        let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
        Ok(is_there(&mut socket, Family::Ipv4, &self.table)?
            && is_there(&mut socket, Family::Ipv6, &self.table)?)
    }

    /// Whether it says that, as far as anybody knows.
    pub(in crate::network) fn has(&self, wanted: &C) -> bool {
        let Some(watched) = locked(&self.watched).clone() else { return false };
        let state = locked(&watched.state);
        state.is_written && state.wanted.as_ref() == Some(wanted)
    }

    /// Changes what it says, if it says anything and `change` says that it has changed that.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn change(&self, change: impl FnOnce(&mut C) -> bool) -> Result<(), NetlinkError> {
        let Some(watched) = locked(&self.watched).clone() else { return Ok(()) };
        let mut state = locked(&watched.state);
        let has_changed = state.wanted.as_mut().is_some_and(change);
        if has_changed { watched.write(&mut state) } else { Ok(()) }
    }

    fn watch(&self) -> Result<Arc<Watched<C>>, NetlinkError> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
        let port = socket.port();
        let state = Mutex::new(State { socket, wanted: None, is_written: false });
        let watched = Arc::new(Watched { table: self.table.clone(), state });
        watch::start(&watched, port)?;
        Ok(watched)
    }
}

fn remove(table: &str) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::default();
    Family::BOTH.into_iter().for_each(|family| transaction.remove_table(family, table));
    transaction.commit(&mut Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?)
}

impl<C: Content> Watched<C> {
    fn write(&self, state: &mut State<C>) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::default();
        for family in Family::BOTH {
            transaction.remove_table(family, &self.table);
        }
        if let Some(wanted) = &state.wanted {
            wanted.write(&mut transaction, &self.table);
        }
        let written = transaction.commit(&mut state.socket);
        state.is_written = written.is_ok();
        written
    }
}

impl<C: Content> watch::Restore for Watched<C> {
    fn table(&self) -> &str {
        &self.table
    }

    fn restore(&self) -> Result<(), NetlinkError> {
        let mut state = locked(&self.state);
        if state.wanted.is_some() { self.write(&mut state) } else { Ok(()) }
    }
}
