//! Whether a history is linearizable: whether its requests can be put in one order, each at a moment between its question and
//! its answer, so that every answer is right.
//!
//! Wing and Gong's search ("Testing and verifying concurrent objects", 1993) with Lowe's memory of what was tried ("Testing for
//! linearizability", 2017): what counts is only which requests are placed and what the object is then. Each object is checked alone,
//! which is enough (Herlihy and Wing, "Linearizability", 1990). A request whose outcome nobody knows may be placed
//! at any moment after its question, or never.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{History, Operation};
use super::register::{Action, Answer, Content, State};

/// So many places of the search are looked at for one object; a history that needs more is refused as too wide.
const MOST: usize = 2_000_000;

/// Checks each object of a history; the answer counts what was checked.
///
/// # Errors
/// The history of an object that is not linearizable.
pub(crate) fn check(history: &History) -> Result<Checked, String> {
    let mut checked = Checked::default();
    for (name, operations) in history.objects() {
        versions(operations).map_err(|why| told(name, operations, &why))?;
        linearizable(operations).map_err(|why| told(name, operations, &why))?;
        checked.objects += 1;
        checked.operations += operations.len();
        checked.unknown += operations.iter().filter(|it| it.answer == Answer::Unknown).count();
    }
    Ok(checked)
}

/// How much a check has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checked {
    pub(crate) objects: usize,
    pub(crate) operations: usize,
    /// Of them, those whose outcome nobody knows.
    pub(crate) unknown: usize,
}

fn told(name: &str, operations: &[Operation], why: &str) -> String {
    let lines: String = operations.iter().map(|operation| format!("\n  {operation}")).collect();
    format!("{name} is not linearizable: {why}{lines}")
}

/// Whatever was read twice with the same value has the same version.
fn versions(operations: &[Operation]) -> Result<(), String> {
    let mut known: BTreeMap<Content, u64> = BTreeMap::new();
    for operation in operations {
        if let Answer::Read(Some(seen)) = operation.answer {
            let first = *known.entry(seen.content).or_insert(seen.version.0);
            if first != seen.version.0 {
                return Err(format!("{:?} has versions {first} and {}", seen.content, seen.version.0));
            }
        }
    }
    Ok(())
}

/// Which requests are placed, and what the object is after them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    placed: Vec<u64>,
    state: State,
}

impl Place {
    fn has(&self, number: usize) -> bool {
        self.placed[number / 64] >> (number % 64) & 1 == 1
    }

    fn with(&self, number: usize, state: State) -> Self {
        let mut placed = self.placed.clone();
        placed[number / 64] |= 1 << (number % 64);
        Self { placed, state }
    }
}

fn linearizable(operations: &[Operation]) -> Result<(), String> {
    let operations: Vec<&Operation> = operations.iter().filter(says_something).collect();
    let first = Place { placed: vec![0; operations.len().div_ceil(64)], state: None };
    let mut open = vec![settled(&operations, first)];
    let mut tried: BTreeSet<Place> = open.iter().cloned().collect();
    let mut furthest = (0, None);
    while let Some(place) = open.pop() {
        let Some(end) = end(&operations, &place) else { return Ok(()) };
        let reached =
            operations.iter().enumerate().filter(|(number, it)| it.told.is_some() && place.has(*number));
        let reached = reached.count();
        if furthest.1.is_none() || reached > furthest.0 {
            furthest = (reached, Some(place.clone()));
        }
        for next in nexts(&operations, &place, end) {
            let next = settled(&operations, next);
            if tried.insert(next.clone()) {
                open.push(next);
            }
        }
        if tried.len() > MOST {
            return Err(format!("more than {MOST} orders would have to be tried"));
        }
    }
    Err(stuck(&operations, furthest.1))
}

/// Not what was never done, nor a read that nobody has seen.
fn says_something(operation: &&Operation) -> bool {
    match operation.answer {
        Answer::NotDone => false,
        Answer::Unknown => operation.action != Action::Read,
        _ => true,
    }
}

/// With all placed that is right here and changes nothing: none of them would be better placed later.
fn settled(operations: &[&Operation], mut place: Place) -> Place {
    while let Some(end) = end(operations, &place) {
        let is_right = |(number, it): &(usize, &&Operation)| {
            !place.has(*number)
                && it.asked < end
                && matches!(it.answer, Answer::Read(_) | Answer::Refused)
                && it.action.step(it.answer, place.state).is_some()
        };
        let Some((number, _)) = operations.iter().enumerate().find(is_right) else { break };
        place = place.with(number, place.state);
    }
    place
}

/// After each request that may be the next and changes something; those last that are to be tried first.
fn nexts(operations: &[&Operation], place: &Place, end: u64) -> Vec<Place> {
    let may_be = |(number, it): &(usize, &&Operation)| {
        !place.has(*number) && it.asked < end && matches!(it.answer, Answer::Done | Answer::Unknown)
    };
    let mut numbers: Vec<usize> =
        operations.iter().enumerate().filter(may_be).map(|(number, _)| number).collect();
    numbers.sort_by_key(|number| operations[*number].told.is_some());
    let after = |number: usize| {
        let state = operations[number].action.step(operations[number].answer, place.state)?;
        Some(place.with(number, state))
    };
    numbers.into_iter().filter_map(after).collect()
}

/// When the first answer comes of the requests that are not placed; none when all that were answered are.
fn end(operations: &[&Operation], place: &Place) -> Option<u64> {
    let waiting = operations.iter().enumerate().filter(|(number, _)| !place.has(*number));
    waiting.filter_map(|(_, operation)| operation.told).min()
}

/// The best that was found.
fn stuck(operations: &[&Operation], place: Option<Place>) -> String {
    let Some(place) = place else { return "no order fits".to_owned() };
    let first = operations.iter().enumerate().filter(|(number, it)| it.told.is_some() && !place.has(*number));
    let first = first.min_by_key(|(_, it)| it.told).map(|(_, it)| it.to_string()).unwrap_or_default();
    let state = match place.state {
        Some(Content { born, value }) => format!("{value} of {born}"),
        None => "nothing".to_owned(),
    };
    format!("in the order that fits longest there is {state} where this can't be placed: {}", first.trim())
}

#[cfg(test)]
mod tests;
