//! What a client gave and left out: nothing is `null`, `[]` or not there; and drivers, which both have in one form.

use std::collections::BTreeSet;

use ketch_cluster::objects::{Driver, Given, Labels};
use ketch_engine_api::swarm;

/// Notes that a part is there.
pub(crate) fn note<T>(given: &mut BTreeSet<Given>, part: Given, value: Option<&T>) {
    if value.is_some() {
        given.insert(part);
    }
}

/// A part that is shown when it says something, or was given all the same.
pub(crate) fn part<T: Default + PartialEq>(given: &BTreeSet<Given>, part: Given, value: T) -> Option<T> {
    (given.contains(&part) || value != T::default()).then_some(value)
}

pub(crate) fn driver_of(driver: swarm::Driver) -> Driver {
    Driver { name: driver.name, options: driver.options.unwrap_or_default() }
}

pub(crate) fn driver_shown(driver: &Driver) -> swarm::Driver {
    swarm::Driver { name: driver.name.clone(), options: Some(driver.options.clone()) }
}

pub(crate) fn annotations(name: &str, labels: &Labels) -> swarm::Annotations {
    swarm::Annotations { name: name.to_owned(), labels: Some(labels.clone()) }
}
