//! What a task lets in whose service has closed its ports (the label `ketch.allow`).
//!
//! ```text
//! input  by the loopback interface, established, about a connection, ICMP: accepted. Who may pass, to the ports that he may go to:
//!        accepted. The rest is dropped.
//! ```
//! Tables of the task's own network namespace, of both families: whichever network or interface somebody comes by, and whoever he is,
//! there is this one door; and whoever flushes the node's rules has not opened it. A task with `NET_ADMIN` could: `control` refuses such
//! a service. Dropped, not refused: a task that is new may come before this node knows of it, and its second try finds the door open.

use super::expression::{Compare, Expression as E, Verdict};
use super::pass::{self, Pass};
use super::table::{Hook, INPUT, Transaction};
use super::{Family, Socket};
use crate::network::netlink::NetlinkError;

const TABLE: &str = "ketch-allow";
const CHAIN: &str = "input";

/// Who may come in; all others may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Admission {
    pub(in crate::network) passes: Vec<Pass>,
}

/// Has the calling thread's namespace let these in and nobody else; `None`: everybody.
///
/// # Errors
/// The kernel's: it has what it had.
pub(in crate::network) fn admit(admission: Option<&Admission>) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::default();
    for family in Family::BOTH {
        transaction.remove_table(family, TABLE);
        if let Some(admission) = admission {
            write(&mut transaction, family, admission);
        }
    }
    transaction.commit(&mut Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?)
}

fn write(transaction: &mut Transaction, family: Family, admission: &Admission) {
    transaction.table(family, TABLE);
    let place = (TABLE, CHAIN);
    transaction.chain(family, place, Some(Hook { kind: "filter", number: INPUT, priority: 0 }));
    let accept = [E::Then(Verdict::Accept)];
    let icmp = E::Protocol(if family == Family::Ipv4 { 1 } else { 58 });
    for passes in [E::InputIs(Compare::Equal, "lo".to_owned()), E::Established, icmp] {
        transaction.rule(family, place, &[passes, E::Then(Verdict::Accept)]);
    }
    pass::write(transaction, family, place, (&admission.passes, &accept));
    transaction.rule(family, place, &[E::Then(Verdict::Drop)]);
}
