//! Histories made by hand: the question's and the answer's moment, what was asked, what was told.

use ketch_cluster::id::ConfigId;
use ketch_cluster::objects::Version;

use super::*;
use crate::linear::register::Seen;

fn seen(born: u64, value: u64) -> Seen {
    Seen { content: Content { born, value }, id: ConfigId::of(u128::from(born)), version: Version(value) }
}

fn create(value: u64) -> Action {
    Action::Create { value }
}

fn replace(born: u64, read: u64, value: u64) -> Action {
    Action::Replace { seen: seen(born, read), value }
}

fn remove(born: u64) -> Action {
    Action::Remove { seen: seen(born, born) }
}

fn sees(born: u64, value: u64) -> Answer {
    Answer::Read(Some(seen(born, value)))
}

const NOTHING: Answer = Answer::Read(None);

fn operation((asked, told): (u64, u64), action: Action, answer: Answer) -> Operation {
    Operation { action, asked, told: (answer != Answer::Unknown).then_some(told), answer }
}

fn is_linearizable<const N: usize>(operations: [((u64, u64), Action, Answer); N]) -> bool {
    let operations = operations.map(|(span, action, answer)| operation(span, action, answer));
    versions(&operations).and_then(|()| linearizable(&operations)).is_ok()
}

#[test]
fn nothing_and_one_after_another() {
    assert!(is_linearizable([]));
    assert!(is_linearizable([
        ((1, 2), Action::Read, NOTHING),
        ((3, 4), create(1), Answer::Done),
        ((5, 6), Action::Read, sees(1, 1)),
        ((7, 8), replace(1, 1, 2), Answer::Done),
        ((9, 10), create(3), Answer::Refused),
        ((11, 12), replace(1, 1, 4), Answer::Refused),
        ((13, 14), Action::Read, sees(1, 2)),
        ((15, 16), remove(1), Answer::Done),
        ((17, 18), remove(1), Answer::Refused),
        ((19, 20), create(5), Answer::Done),
        ((21, 22), remove(1), Answer::Refused),
        ((23, 24), Action::Read, sees(5, 5)),
    ]));
}

#[test]
fn a_read_that_overlaps_a_write_sees_either() {
    for answer in [NOTHING, sees(1, 1)] {
        assert!(is_linearizable([((1, 4), create(1), Answer::Done), ((2, 3), Action::Read, answer)]));
    }
}

#[test]
fn a_stale_read_is_found() {
    assert!(!is_linearizable([((1, 2), create(1), Answer::Done), ((3, 4), Action::Read, NOTHING)]));
    assert!(!is_linearizable([
        ((1, 2), create(1), Answer::Done),
        ((3, 4), replace(1, 1, 2), Answer::Done),
        ((5, 6), Action::Read, sees(1, 1)),
    ]));
}

/// Two that read one after the other, while the write goes on.
#[test]
fn reads_that_go_back_are_found() {
    let both = |first, second| {
        is_linearizable([
            ((1, 10), create(1), Answer::Done),
            ((2, 3), Action::Read, first),
            ((4, 5), Action::Read, second),
        ])
    };
    assert!(both(NOTHING, sees(1, 1)));
    assert!(!both(sees(1, 1), NOTHING));
}

#[test]
fn a_lost_update_is_found() {
    assert!(!is_linearizable([
        ((1, 2), create(1), Answer::Done),
        ((3, 6), replace(1, 1, 2), Answer::Done),
        ((4, 5), replace(1, 1, 3), Answer::Done),
    ]));
    assert!(!is_linearizable([
        ((1, 2), create(1), Answer::Done),
        ((3, 4), replace(1, 1, 2), Answer::Done),
        ((5, 6), remove(1), Answer::Done),
        ((7, 8), remove(1), Answer::Done),
    ]));
}

#[test]
fn two_that_are_both_created_are_found() {
    assert!(!is_linearizable([((1, 4), create(1), Answer::Done), ((2, 3), create(2), Answer::Done)]));
    assert!(is_linearizable([((1, 4), create(1), Answer::Refused), ((2, 3), create(2), Answer::Done)]));
    assert!(!is_linearizable([((1, 2), create(1), Answer::Refused), ((3, 4), create(2), Answer::Done)]));
}

#[test]
fn what_nobody_knows_is_done_at_any_moment_or_never() {
    let unknown = ((1, 0), create(1), Answer::Unknown);
    assert!(is_linearizable([unknown, ((2, 3), Action::Read, NOTHING)]));
    assert!(is_linearizable([unknown, ((2, 3), Action::Read, sees(1, 1))]));
    assert!(is_linearizable([
        unknown,
        ((2, 3), Action::Read, NOTHING),
        ((4, 5), Action::Read, NOTHING),
        ((6, 7), Action::Read, sees(1, 1)),
    ]));
    // Not twice, and not before it was asked.
    assert!(!is_linearizable([
        unknown,
        ((2, 3), Action::Read, sees(1, 1)),
        ((4, 5), remove(1), Answer::Done),
        ((6, 7), Action::Read, sees(1, 1)),
    ]));
    assert!(!is_linearizable([((1, 2), Action::Read, sees(1, 1)), ((3, 0), create(1), Answer::Unknown)]));
}

#[test]
fn what_was_not_done_is_not_seen() {
    let refused = ((1, 2), create(1), Answer::NotDone);
    assert!(is_linearizable([refused, ((3, 4), Action::Read, NOTHING)]));
    assert!(!is_linearizable([refused, ((3, 4), Action::Read, sees(1, 1))]));
}

#[test]
fn a_value_with_two_versions_is_found() {
    let other = Answer::Read(Some(Seen { version: Version(9), ..seen(1, 1) }));
    assert!(!is_linearizable([
        ((1, 2), create(1), Answer::Done),
        ((3, 4), Action::Read, sees(1, 1)),
        ((5, 6), Action::Read, other),
    ]));
}

/// Many that overlap: the memory of what was tried keeps it short.
#[test]
fn a_hundred_requests_at_once_are_checked() {
    let mut operations = vec![operation((0, 1), create(1), Answer::Done)];
    operations.extend(
        (2..50).map(|value| operation((value, 1000 + value), replace(1, value - 1, value), Answer::Done)),
    );
    operations
        .extend((2..50).map(|value| operation((value, 2000 + value), Action::Read, sees(1, 51 - value))));
    operations.extend((100..130).map(|value| operation((60, 0), replace(1, 25, value), Answer::Unknown)));
    assert_eq!(linearizable(&operations), Ok(()));
    operations.push(operation((3000, 3001), Action::Read, sees(1, 7)));
    assert!(linearizable(&operations).is_err());
}
