//! One transaction of the log, and how it is stored and sent: what the tasks in it are to run is in it once for all that run the same,
//! and its text is made once.
//!
//! Two thirds of a task's record are its spec, and a transaction's two hundred tasks are of one service as a rule. So a task is written
//! without it and with its place among the transaction's specs. Only the encoding knows: who has the transaction has whole tasks, which
//! share their specs as those of the leader did.
//!
//! The leader writes a transaction to its disk and sends it to each follower, and a follower writes what it was sent: all of them use the
//! text that was made, or read, first.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ketch_cluster::objects::{Task, TaskSpec};
use ketch_cluster::store::{Object, StoreAction};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// What one entry of the log asks for. Shared: it is copied between the log, the network and the store.
#[derive(Clone)]
pub(crate) struct Transaction(Arc<Shared>);

struct Shared {
    actions: Vec<StoreAction>,
    /// Its JSON, once somebody has needed it.
    text: OnceLock<Box<RawValue>>,
}

impl Transaction {
    pub(crate) fn actions(&self) -> &[StoreAction] {
        &self.0.actions
    }

    fn text(&self) -> Result<&RawValue, serde_json::Error> {
        if let Some(known) = self.0.text.get() {
            return Ok(known);
        }
        let mut packed = Packed::default();
        self.actions().iter().for_each(|action| packed.add(action));
        let made = to_raw_value(&packed)?;
        Ok(self.0.text.get_or_init(|| made))
    }
}

impl From<Vec<StoreAction>> for Transaction {
    fn from(actions: Vec<StoreAction>) -> Self {
        Self(Arc::new(Shared { actions, text: OnceLock::new() }))
    }
}

impl PartialEq for Transaction {
    fn eq(&self, other: &Self) -> bool {
        self.actions() == other.actions()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.actions()).finish()
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} actions", self.actions().len())
    }
}

impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Transaction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let mut reader = serde_json::Deserializer::from_str(text.get());
        let actions = reader.deserialize_any(Either).map_err(D::Error::custom)?;
        Ok(Self(Arc::new(Shared { actions, text: OnceLock::from(text) })))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Packed {
    /// Each once.
    specs: Vec<Arc<TaskSpec>>,
    /// With the spec's number, where the task in it was written without.
    actions: Vec<(Option<usize>, StoreAction)>,
}

/// A packed one; one of before there were any of these is the list of the actions as they are.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Vec<StoreAction>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the actions of a transaction")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, actions: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(actions))
    }

    fn visit_map<A: MapAccess<'de>>(self, packed: A) -> Result<Self::Value, A::Error> {
        let Packed { specs, mut actions } = Packed::deserialize(MapAccessDeserializer::new(packed))?;
        for (number, action) in &mut actions {
            let Some(number) = number.take() else { continue };
            let spec = specs.get(number).ok_or_else(|| A::Error::custom("a task's spec is missing"))?;
            let task = task_in_mut(action).ok_or_else(|| A::Error::custom("a spec of what is no task"))?;
            Arc::make_mut(task).spec = Arc::clone(spec);
        }
        Ok(actions.into_iter().map(|(_, action)| action).collect())
    }
}

impl Packed {
    fn add(&mut self, action: &StoreAction) {
        let mut bare = action.clone();
        let number = task_in_mut(&mut bare).map(|task| {
            let number = self.number_of(&task.spec);
            *task = Arc::new(Task { spec: TaskSpec::plain(), ..Task::clone(task) });
            number
        });
        self.actions.push((number, bare));
    }

    /// Neighbours run the same, as a rule.
    fn number_of(&mut self, spec: &Arc<TaskSpec>) -> usize {
        self.specs.iter().rposition(|known| Arc::ptr_eq(known, spec) || known == spec).unwrap_or_else(|| {
            self.specs.push(Arc::clone(spec));
            self.specs.len() - 1
        })
    }
}

fn task_in_mut(action: &mut StoreAction) -> Option<&mut Arc<Task>> {
    match action {
        StoreAction::Create(Object::Task(task)) | StoreAction::Update(Object::Task(task)) => Some(task),
        _ => None,
    }
}
