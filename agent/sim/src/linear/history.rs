//! What clients asked and were told, in the order in which they did: the run is one thread, so one counter is that order.

use std::collections::BTreeMap;
use std::fmt;

use super::register::{Action, Answer, Seen};

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) action: Action,
    /// When it was asked, by the history's counter.
    pub(crate) asked: u64,
    /// When it was answered; never, when nobody knows its outcome.
    pub(crate) told: Option<u64>,
    pub(crate) answer: Answer,
}

/// All requests of a run, by their object's name.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: u64,
    objects: BTreeMap<String, Vec<Operation>>,
}

/// One of a history's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    name: String,
    number: usize,
}

impl History {
    /// A client asks. Until it is told, nobody knows the outcome.
    pub(crate) fn ask(&mut self, name: &str, action: Action) -> Ticket {
        self.clock += 1;
        let operations = self.objects.entry(name.to_owned()).or_default();
        operations.push(Operation { action, asked: self.clock, told: None, answer: Answer::Unknown });
        Ticket { name: name.to_owned(), number: operations.len() - 1 }
    }

    /// The client is told.
    pub(crate) fn tell(&mut self, ticket: &Ticket, answer: Answer) {
        self.clock += 1;
        let clock = self.clock;
        let operations = self.objects.get_mut(&ticket.name);
        if let Some(operation) = operations.and_then(|it| it.get_mut(ticket.number)) {
            operation.answer = answer;
            operation.told = (answer != Answer::Unknown).then_some(clock);
        }
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &[Operation])> {
        self.objects.iter().map(|(name, operations)| (name.as_str(), operations.as_slice()))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.told {
            Some(told) => write!(f, "{:>5} to {told:>5}: ", self.asked)?,
            None => write!(f, "{:>5} to   ...: ", self.asked)?,
        }
        match self.action {
            Action::Create { value } => write!(f, "create with {value}")?,
            Action::Read => write!(f, "read")?,
            Action::Replace { seen, value } => {
                write!(f, "{value} for {} of {}", seen.content.value, seen.content.born)?;
            }
            Action::Remove { seen } => write!(f, "remove {}", seen.content.born)?,
        }
        match self.answer {
            Answer::Read(Some(Seen { content, version, .. })) => {
                write!(f, " -> {} of {} (version {})", content.value, content.born, version.0)
            }
            Answer::Read(None) => write!(f, " -> nothing"),
            answer => write!(f, " -> {answer:?}"),
        }
    }
}
