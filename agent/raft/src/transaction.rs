//! A transaction as it is stored and sent: what the tasks in it are to run is in it once for all that run the same.
//!
//! Two thirds of a task's record are its spec, and a transaction's two hundred tasks are of one service as a rule. So a task is written
//! without it and with its place among the transaction's specs. Only the encoding knows: who has the transaction has whole tasks, which
//! share their specs as those of the leader did.

use std::fmt;
use std::sync::Arc;

use ketch_cluster::objects::{Task, TaskSpec};
use ketch_cluster::store::{Object, StoreAction};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Packed {
    /// Each once.
    specs: Vec<Arc<TaskSpec>>,
    /// With the spec's number, where the task in it was written without.
    actions: Vec<(Option<usize>, StoreAction)>,
}

/// Of the field of a record.
pub(crate) fn serialize<S: Serializer>(
    actions: &Arc<[StoreAction]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut packed = Packed::default();
    actions.iter().for_each(|action| packed.add(action));
    packed.serialize(serializer)
}

/// Of the field of a record; one of before there were any of these is the list of the actions as they are.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<[StoreAction]>, D::Error> {
    deserializer.deserialize_any(Either)
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Arc<[StoreAction]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the actions of a transaction")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, actions: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(actions)).map(Arc::from)
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
