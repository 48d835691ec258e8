//! Execs on other nodes whose output was cut off from their clients here. A client asks how its exec has ended once the output ends, and
//! takes one that still runs for one that went well: who asks first is told instead that this is not known.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Kind};

/// Remembered at once; the oldest gives way.
const MOST: usize = 1024;

/// By their ids, as clients have them.
#[derive(Debug, Default)]
pub(crate) struct CutExecs(Mutex<VecDeque<String>>);

impl CutExecs {
    pub(super) fn note(&self, exec: String) {
        let mut cut = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cut.len() == MOST {
            cut.pop_front();
        }
        cut.push_back(exec);
    }

    /// What is told of the exec, once.
    pub(super) fn take(&self, exec: &str) -> Option<Error> {
        let mut cut = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = cut.iter().position(|it| it == exec)?;
        cut.remove(place)?;
        let text = "the connection to the container's node was lost before the output had ended: how the exec ends is not known";
        Some(Error::new(Kind::Unavailable, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_they_are_bounded() {
        let cut = CutExecs::default();
        (0..=MOST).for_each(|number| cut.note(number.to_string()));
        assert!(cut.take("0").is_none());
        assert_eq!(cut.take("1").unwrap().kind, Kind::Unavailable);
        assert!(cut.take("1").is_none());
    }
}
