//! The watch over our tables: the kernel tells of every change of the ruleset; one that somebody else made and that took
//! away something of ours is answered by writing it all again. `nft flush ruleset` costs published ports some milliseconds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use tracing::{info, warn};

use super::table::{DELETE_TABLE, SUBSYSTEM};
use crate::network::netlink::{Message, NetlinkError, Socket, attributes};

/// The kernel's group of nf_tables' changes, 7, as a bit.
const CHANGES: u32 = 1 << 6;
/// Chains, rules, elements: what can be deleted, by the request that does it. All carry the table's name first.
const DELETIONS: [u16; 5] = [DELETE_TABLE, 5, 8, 11, 14];
/// Whoever flushes a ruleset may write another in the next transaction: a restore between the two would only be in the way.
const SETTLES_IN: Duration = Duration::from_millis(20);

/// Who can write its table again.
pub(super) trait Restore: Send + Sync + 'static {
    /// Its name.
    fn table(&self) -> &str;

    /// Writes it.
    fn restore(&self) -> Result<(), NetlinkError>;
}

/// Watches until the tables' owner is gone; `own`: the socket whose changes are ours.
pub(super) fn start<O: Restore>(shared: &Arc<O>, own: u32) -> Result<(), NetlinkError> {
    let socket = Socket::open(Some(rustix::net::netlink::NETFILTER), CHANGES)?;
    let (owner, table) = (Arc::downgrade(shared), shared.table().to_owned());
    let started = std::thread::Builder::new()
        .name("nft-watch".to_owned())
        .stack_size(256 << 10)
        .spawn(move || watch(socket, &owner, &table, own));
    match started {
        Ok(_detached) => Ok(()),
        Err(error) => Err(NetlinkError {
            action: "starting the thread that watches the packet filter".to_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN),
        }),
    }
}

fn watch<O: Restore>(mut socket: Socket, owner: &Weak<O>, table: &str, own: u32) {
    loop {
        let lost = match socket.receive() {
            Ok(message) => takes_away(&message, table, own),
            // More changes than the socket holds: what they were nobody knows.
            Err(Errno::NOBUFS) => true,
            Err(errno) => {
                warn!("watching the packet filter: {errno}");
                return;
            }
        };
        let Some(shared) = owner.upgrade() else { return };
        if !lost {
            continue;
        }
        std::thread::sleep(SETTLES_IN);
        match shared.restore() {
            Ok(()) => info!("the packet filter's table {table} was taken away by another, and is back"),
            Err(error) => warn!("writing the table {table} again: {error}: {}", error.errno),
        }
    }
}

fn takes_away(message: &Message, table: &str, own: u32) -> bool {
    let [subsystem, request] = message.kind.to_be_bytes();
    if u16::from(subsystem) != SUBSYSTEM || !DELETIONS.contains(&u16::from(request)) || message.port == own {
        return false;
    }
    let list = message.body.get(4..).unwrap_or_default();
    attributes(list)
        .next()
        .is_some_and(|(kind, name)| kind == 1 && name.strip_suffix(&[0]) == Some(table.as_bytes()))
}
