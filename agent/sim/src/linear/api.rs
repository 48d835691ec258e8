//! The objects' API as the managers of a run answer it: here when this one leads, else by the leader, to which it is sent on over
//! the simulated network. As in ketchd: a read is behind the leader's barrier, a change is judged by the leader.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::control::{
    ControlError, ErrorKind, SpecUpdate, create_config, remove_config, update_config,
};
use ketch_cluster::fault::Fault;
use ketch_cluster::objects::{Config, ConfigSpec};
use ketch_cluster::store::{ObjectId, ObjectKind, Store};
use ketch_node::calls::{ManagerAddress, Request};
use ketch_node::manager::{ChangeError, LeadError, Leader};
use ketch_node::node::{Lead, Node};
use ketch_node::wire::{self, Call, CallError, Destination, Refusal, Service};
use ketch_node::world::Expected;
use serde::{Deserialize, Serialize};

use super::register::{Action, Answer, Content, Seen};

/// How long the leader may take.
const PATIENCE: Duration = Duration::from_secs(12);
const VALUE: &str = "value";

/// One request, as it is sent on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) action: Action,
}

impl Request for Asked {
    const PATH: &'static str = "/ketch/v1/api/register";
    type Answer = Answer;
}

/// Answers what other managers have sent on.
#[derive(Debug, Default)]
pub(crate) struct Api(OnceLock<Weak<Node>>);

impl Api {
    /// The node that it speaks for.
    pub(crate) fn is_of(&self, node: &Arc<Node>) {
        self.0.get_or_init(|| Arc::downgrade(node));
    }
}

impl Service for Api {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<wire::Answer, Refusal>> {
        let node = self.0.get().and_then(Weak::upgrade);
        async move {
            let node = node.ok_or_else(|| Refusal::Unavailable("the agent ends".to_owned()))?;
            let Ok(Lead::Here(leader, _)) = node.lead().await else {
                return Err(Refusal::NotLeader { leader: None });
            };
            wire::Answer::of(&by_leader(&leader, call.read()?).await)
        }
        .boxed()
    }
}

/// Asks a manager, which sends it on when it does not lead.
pub(crate) async fn ask(node: &Node, asked: Asked) -> Answer {
    match node.lead().await {
        Ok(Lead::Here(leader, _)) => by_leader(&leader, asked).await,
        Ok(Lead::There(_)) if Fault::FollowerRead.is_made() && asked.action == Action::Read => {
            node.view(|store| read(store, &asked.name)).unwrap_or(Answer::NotDone)
        }
        Ok(Lead::There(leader)) => forward(node, &leader, &asked).await,
        Err(_) => Answer::NotDone,
    }
}

async fn forward(node: &Node, leader: &ManagerAddress, asked: &Asked) -> Answer {
    let Ok(links) = node.links() else { return Answer::NotDone };
    let to = Destination::member(leader.address.as_str(), Expected::Node(leader.node));
    match links.ask(&to, asked, PATIENCE).await {
        Ok(answer) => answer,
        Err(CallError::Dial(_) | CallError::Refused(Refusal::NotLeader { .. })) => Answer::NotDone,
        Err(_) => Answer::Unknown,
    }
}

async fn by_leader(leader: &Leader, Asked { name, action }: Asked) -> Answer {
    let changed = match action {
        Action::Read => {
            return match leader.read().await {
                Ok(()) => leader.view(|view| read(view, &name)),
                Err(_) => Answer::NotDone,
            };
        }
        Action::Create { value } => {
            let made = leader.change(|view, now, bits| create_config(view, spec(name, value), now, bits));
            made.await.map(|_| ())
        }
        Action::Replace { seen, value } => {
            let change = leader.change(|view, now, bits| {
                let spec = ConfigSpec { data: Vec::new(), ..spec(name, value) };
                let update = SpecUpdate { version: seen.version, spec };
                update_config(view, seen.id, update, now, bits).map(|actions| ((), actions))
            });
            change.await
        }
        Action::Remove { seen } => {
            let change =
                leader.change(|view, now, _| remove_config(view, seen.id, now).map(|actions| ((), actions)));
            change.await
        }
    };
    changed.map_or_else(|error| not_changed(&error), |()| Answer::Done)
}

fn not_changed(error: &ChangeError<ControlError>) -> Answer {
    match error {
        ChangeError::Refused(error) => match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::OutOfSequence => Answer::Refused,
            _ => Answer::NotDone,
        },
        ChangeError::Store(_) => Answer::Refused,
        ChangeError::Lead(LeadError::NotLeader { .. } | LeadError::NoQuorum) => Answer::NotDone,
        ChangeError::Lead(LeadError::Uncertain | LeadError::Stopped(_)) => Answer::Unknown,
    }
}

fn spec(name: String, value: u64) -> ConfigSpec {
    ConfigSpec { name, labels: labels(value), data: value.to_string().into_bytes(), templating: None }
}

fn labels(value: u64) -> BTreeMap<String, String> {
    BTreeMap::from([(VALUE.to_owned(), value.to_string())])
}

fn read(store: &Store, name: &str) -> Answer {
    let Some(ObjectId::Config(id)) = store.by_name(ObjectKind::Config, name) else {
        return Answer::Read(None);
    };
    Answer::Read(store.config(id).and_then(|config| seen(config)))
}

fn seen(config: &Config) -> Option<Seen> {
    let born = std::str::from_utf8(&config.spec.data).ok()?.parse().ok()?;
    let value = config.spec.labels.get(VALUE)?.parse().ok()?;
    Some(Seen { content: Content { born, value }, id: config.id, version: config.meta.version })
}
