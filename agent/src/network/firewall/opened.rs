//! How many TCP connections were opened to a task: of services whose replicas follow their requests (the label
//! `ketch.scale.requests`), and of no others.
//!
//! ```text
//! input  not by the loopback interface, TCP, SYN and no ACK: counted
//! ```
//! Tables of the task's own network namespace, of both families: whichever way somebody comes, by a virtual address, a published
//! port or the task's own address, he is counted once, and by the node that the task is on. What its `ketch.allow` drops has been
//! dropped before. A SYN that is sent again counts again. Nothing is kept of connections for it.

use rustix::io::Errno;

use super::expression::{Compare, Expression as E};
use super::table::{Hook, INPUT, Transaction, counted};
use super::{Family, Socket};
use crate::network::netlink::NetlinkError;

const TABLE: &str = "ketch-scale";
const CHAIN: &str = "input";
const COUNTER: &str = "opened";
/// After the filters.
const PRIORITY: i32 = 10;
const TCP: u8 = 6;

/// Those to the calling thread's namespace since it was first asked for there.
///
/// # Errors
/// The kernel's.
pub(in crate::network) fn opened() -> Result<u64, NetlinkError> {
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
    let mut sum = 0_u64;
    for family in Family::BOTH {
        match counted(&mut socket, family, (TABLE, COUNTER)) {
            Ok(count) => sum = sum.saturating_add(count),
            Err(error) if error.errno == Errno::NOENT => match begin(&mut socket, family) {
                Err(error) if is_unknown(error.errno) => {}
                begun => begun?,
            },
            Err(error) if is_unknown(error.errno) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// Whether the kernel filters no such family: then nothing comes by it.
fn is_unknown(error: Errno) -> bool {
    [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::PROTONOSUPPORT].contains(&error)
}

fn begin(socket: &mut Socket, family: Family) -> Result<(), NetlinkError> {
    let (place, counter) = ((TABLE, CHAIN), COUNTER.to_owned());
    let mut transaction = Transaction::default();
    transaction.remove_table(family, TABLE);
    transaction.table(family, TABLE);
    transaction.counter(family, (TABLE, COUNTER));
    transaction.chain(family, place, Some(Hook { kind: "filter", number: INPUT, priority: PRIORITY }));
    let rule = [
        E::InputIs(Compare::Different, "lo".to_owned()),
        E::Protocol(TCP),
        E::Opening,
        E::Counted { counter },
    ];
    transaction.rule(family, place, &rule);
    transaction.commit(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_the_kernel_does_not_have_is_no_fault() {
        assert!(is_unknown(Errno::AFNOSUPPORT) && is_unknown(Errno::OPNOTSUPP));
        assert!(!is_unknown(Errno::NOENT) && !is_unknown(Errno::PERM));
    }
}
