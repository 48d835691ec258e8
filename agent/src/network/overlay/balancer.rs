//! The rules of a network's namespace, as planned, and what the kernel may go on to remember. The calling thread is in it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::plan::Overlay;
use super::space::{BRIDGE, DOOR};
use crate::error::Result;
use crate::network::firewall::{Balanced, Connection, forget_those, write_balance};
use crate::network::refused;

/// Writes them; of what was written before only what differs.
///
/// # Errors
/// The kernel's.
pub(super) fn write(overlay: &Overlay, before: Option<&Overlay>) -> Result<()> {
    write_balance(&balanced(overlay), before.map(balanced).as_ref()).map_err(|error| refused(&error))?;
    // Datagrams that came while nothing was led from there, or not for their sender, would never be led.
    let is_lost =
        |it: &Connection| it.is_udp && it.to == it.answered_by && overlay.balanced.contains_key(&it.to);
    let gone = |connection: &Connection| {
        is_lost(connection) || !may_go_on(connection, (&overlay.serving, &overlay.draining))
    };
    forget_those(gone).map_err(|error| refused(&error))
}

fn balanced(overlay: &Overlay) -> Balanced<'_> {
    Balanced {
        bridge: BRIDGE,
        door: DOOR,
        own: &overlay.own,
        addresses: &overlay.balanced,
        passes: &overlay.passes,
        ports: &overlay.ports,
    }
}

/// With one who serves; streams also with one who is about to stop. Of whoever has gone nothing is left, so that whoever waits for
/// his answer learns of it.
fn may_go_on(connection: &Connection, (serving, draining): (&BTreeSet<IpAddr>, &BTreeSet<IpAddr>)) -> bool {
    let Connection { is_udp, to, answered_by } = connection;
    let is_translated = to != answered_by;
    !is_translated || serving.contains(answered_by) || (!is_udp && draining.contains(answered_by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_on_with_whoever_is_about_to_stop_and_datagrams_do_not() {
        let address = |last: u8| IpAddr::from([10, 0, 1, last]);
        let (serving, draining) = (BTreeSet::from([address(3)]), BTreeSet::from([address(4)]));
        let goes_on = |is_udp, answered_by| {
            let connection = Connection { is_udp, to: address(2), answered_by: address(answered_by) };
            may_go_on(&connection, (&serving, &draining))
        };
        assert!(goes_on(false, 3) && goes_on(true, 3), "it serves");
        assert!(goes_on(false, 4) && !goes_on(true, 4), "it is about to stop");
        assert!(!goes_on(false, 5) && !goes_on(true, 5), "it has gone");
        assert!(goes_on(true, 2), "nothing was translated");
    }
}
