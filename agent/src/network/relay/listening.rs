//! A published port as the relay has it: where connections come from, and to whom they go.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// So many backends are asked for one connection at most.
const MOST_ASKED: usize = 4;

/// A published port.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// None: nothing new is taken.
    pub(super) listeners: Vec<OwnedFd>,
    backends: Vec<SocketAddr>,
    stay: BTreeSet<SocketAddr>,
    turn: usize,
    /// How many connections it has.
    pub(super) carried: usize,
    /// It has as many as it may.
    pub(super) is_paused: bool,
}

impl Listening {
    /// Leads to these from now on; connections to those of `stay` go on.
    pub(super) fn lead(&mut self, backends: Vec<SocketAddr>, stay: Vec<SocketAddr>) {
        self.stay = stay.into_iter().chain(backends.iter().copied()).collect();
        self.backends = backends;
    }

    /// Whom the next connection is for, and who is asked when he does not answer: each has his turn.
    pub(super) fn next(&mut self) -> VecDeque<SocketAddr> {
        let count = self.backends.len();
        if count == 0 {
            return VecDeque::new();
        }
        let first = self.turn % count;
        self.turn = (first + 1) % count;
        let in_turn = self.backends.iter().cycle().skip(first);
        in_turn.take(count.min(MOST_ASKED)).copied().collect()
    }

    pub(super) fn may_go_on(&self, with: SocketAddr) -> bool {
        self.stay.contains(&with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn each_backend_has_its_turn_and_then_the_others_are_asked() {
        let mut port = Listening::default();
        assert!(port.next().is_empty());
        port.lead(vec![at(1), at(2), at(3)], vec![at(9)]);
        assert_eq!(port.next(), [at(1), at(2), at(3)]);
        assert_eq!(port.next(), [at(2), at(3), at(1)]);
        assert_eq!(port.next(), [at(3), at(1), at(2)]);
        assert_eq!(port.next()[0], at(1));
        port.lead((1..=9).map(at).collect(), Vec::new());
        assert_eq!(port.next().len(), MOST_ASKED);
    }

    #[test]
    fn those_who_get_nothing_new_keep_what_they_have() {
        let mut port = Listening::default();
        port.lead(vec![at(1)], vec![at(2)]);
        assert!(port.may_go_on(at(1)) && port.may_go_on(at(2)) && !port.may_go_on(at(3)));
        port.lead(vec![at(3)], Vec::new());
        assert!(!port.may_go_on(at(1)) && port.may_go_on(at(3)));
    }
}
