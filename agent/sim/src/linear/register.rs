//! What is asked of one object and told of it, and what an object is that is one: the specification that a history is held against.
//!
//! An object is a config with one name. Its data is the value that it was born with, a label the value that it has; all values
//! differ, so that it is known which write each read saw. Nothing here knows of clusters.

use ketch_cluster::id::ConfigId;
use ketch_cluster::objects::Version;
use serde::{Deserialize, Serialize};

/// What one name stands for, while it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) born: u64,
    pub(crate) value: u64,
}

/// What a read saw: the content, and what an update has to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) content: Content,
    pub(crate) id: ConfigId,
    pub(crate) version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Create {
        value: u64,
    },
    Read,
    /// In place of what was seen, and of nothing else.
    Replace {
        seen: Seen,
        value: u64,
    },
    /// The very object that was seen, whatever value it has by now.
    Remove {
        seen: Seen,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Read(Option<Seen>),
    /// It was judged, and there was something else than it asks for.
    Refused,
    /// It was not done, and never will be.
    NotDone,
    /// It may be done or not, now or later.
    Unknown,
}

/// None: there is no object of that name.
pub(crate) type State = Option<Content>;

impl Action {
    /// What it makes of an object, if it does that at all.
    pub(crate) fn effect(&self, state: State) -> Option<State> {
        match (*self, state) {
            (Self::Create { value }, None) => Some(Some(Content { born: value, value })),
            (Self::Replace { seen, value }, Some(now)) if now == seen.content => {
                Some(Some(Content { value, ..now }))
            }
            (Self::Remove { seen }, Some(now)) if now.born == seen.content.born => Some(None),
            _ => None,
        }
    }

    /// The object after it, if it was so that the answer is right. Of one whose answer nobody knows: after it was done.
    pub(crate) fn step(&self, answer: Answer, state: State) -> Option<State> {
        match answer {
            Answer::Done | Answer::Unknown => self.effect(state),
            Answer::Read(seen) => (seen.map(|it| it.content) == state).then_some(state),
            Answer::Refused => self.effect(state).is_none().then_some(state),
            Answer::NotDone => None,
        }
    }
}
