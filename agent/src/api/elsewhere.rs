//! Containers of other nodes: a request at a manager, about a container that this node does not have, is answered by the node that
//! runs it as a task of the cluster's.
//!
//! [`asked`] says which requests may be asked elsewhere; [`answered`] finds the container's node and sends the request there as it
//! is, by [`proxied`]; [`cut`] remembers whose answers did not come to their end; [`listing`] asks all nodes for their containers; [`visits`] is the other end, which answers what managers
//! send. What this node has itself never comes by here, and a name that is nobody's gets the answer that it gets everywhere.

mod asked;
pub(crate) mod cut;
pub(crate) mod listing;
mod proxied;
pub(crate) mod visits;

use std::sync::Arc;

use bytes::Bytes;
use hyper::http::request::Parts;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_node::calls::Target;
use ketch_node::node::ReachError;

use self::asked::{Asked, Of};
use super::body::RequestBody;
use super::response::{self, Response};
use crate::daemon::Daemon;
use crate::engine::exec;
use crate::error::{Error, Kind, Result};

/// Of a container's or an exec's id, in hexadecimal digits.
const ID: usize = 64;
/// As clients show it.
const SHORT_ID: usize = 12;
/// Of a task's.
const TASK: usize = 32;

/// How often a request is asked that changes nothing.
const TRIES: u32 = 3;

/// An exec's id as a manager gives it of another node's: with its task, so that every manager knows where it is, for ever.
fn exec_with_task(exec: &str, task: TaskId) -> String {
    format!("{exec}{:032x}", task.bits())
}

fn exec_of(id: &str) -> Option<(&str, TaskId)> {
    if id.len() != ID + TASK || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (exec, task) = id.split_at(ID);
    Some((exec, TaskId::of(u128::from_str_radix(task, 16).ok()?)))
}

/// What may be elsewhere, and how sure that is.
struct Wanted {
    asked: Asked,
    target: Target,
    /// Whether nothing but a task has such a name: else, while nobody leads, it is none.
    is_certain: bool,
}

/// Answers a client's request elsewhere, when it is about another node's container; else gives it back.
pub(super) async fn answered(
    daemon: &Arc<Daemon>,
    parts: Parts,
    body: RequestBody,
) -> std::result::Result<Response, Box<(Parts, RequestBody)>> {
    let Some(Wanted { asked, target, is_certain }) = wanted(daemon, &parts) else {
        return Err(Box::new((parts, body)));
    };
    let Ok(node) = daemon.node() else { return Err(Box::new((parts, body))) };
    if let Some(unknown) = asked.shows_exec().then(|| daemon.cut_execs.take(&asked.id)).flatten() {
        return Ok(response::error(&unknown));
    }
    let path = match exec_of(&asked.id) {
        Some((exec, _)) => asked.with_id(exec),
        None => parts.uri.path().to_owned(),
    };
    // Without the query, which has what a user types.
    let line = format!("{} {path}", parts.method);
    // What only reads is asked once more when its tunnel is lost, as with a leader that is replaced; of the rest nobody knows
    // whether it was done.
    let mut tries = if parts.method.is_safe() { TRIES } else { 1 };
    let mut request = (parts, body);
    loop {
        let tunnel = match node.reach(target.clone()).await {
            Ok(tunnel) => tunnel,
            Err(ReachError::NotFound(_)) => return Err(Box::new(request)),
            Err(ReachError::NoLeader(_)) if !is_certain => return Err(Box::new(request)),
            Err(error) => {
                tracing::info!("not asked of another node: {line}: {error}");
                return Ok(response::error(&error.into()));
            }
        };
        tries -= 1;
        let again = (tries > 0).then(|| request.0.clone());
        let answered =
            match (proxied::send(tunnel, path.clone(), request, note_cut(daemon, &asked)).await, again) {
                (Err(error), Some(again)) if error.kind == Kind::Unavailable => {
                    tracing::debug!("asking again: {error}");
                    request = (again, Bytes::new().into());
                    continue;
                }
                (Ok((task, response)), _) if asked.makes_exec() => named(task, response).await,
                (answered, _) => answered.map(|(_, response)| response),
            };
        let response = answered.unwrap_or_else(|error| response::error(&error));
        daemon.counted.asked_elsewhere.count(response.status());
        tracing::info!(status = response.status().as_u16(), "asked of another node: {line}");
        return Ok(response);
    }
}

/// What is done when the stream that a request has begun is cut.
fn note_cut(daemon: &Arc<Daemon>, asked: &Asked) -> impl FnOnce() + Send + 'static {
    let (daemon, exec) = (Arc::clone(daemon), asked.starts_exec().then(|| asked.id.clone()));
    move || exec.into_iter().for_each(|exec| daemon.cut_execs.note(exec))
}

/// None of what is here, and of what can't be a task's.
fn wanted(daemon: &Daemon, parts: &Parts) -> Option<Wanted> {
    let asked = Asked::of(&parts.method, parts.uri.path())?;
    let (target, is_certain) = match asked.of {
        Of::Exec => {
            let (_, task) = exec_of(&asked.id)?;
            (Target::Task(task), true)
        }
        Of::Container => {
            let is_named = Task::of_container_name(&asked.id).is_some();
            (is_named || may_be_id(&asked.id)).then(|| (Target::Container(asked.id.clone()), is_named))?
        }
    };
    let is_here = match asked.of {
        Of::Container => !is_missing(daemon.engine.find(&asked.id)),
        Of::Exec => !is_missing(exec::find(daemon, &asked.id)),
    };
    (!is_here && is_manager(daemon)).then_some(Wanted { asked, target, is_certain })
}

fn is_missing<T>(found: Result<T>) -> bool {
    found.is_err_and(|error| error.kind == Kind::NotFound)
}

pub(crate) fn is_manager(daemon: &Daemon) -> bool {
    daemon.node().is_ok_and(|node| node.view(|_| ()).is_some())
}

/// Not a few letters: `db` and `cafe` are names, and somebody else's container must not be killed by one.
fn may_be_id(text: &str) -> bool {
    (SHORT_ID..=ID).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The answer with an exec's id, as this manager gives it on.
async fn named(task: Option<TaskId>, response: Response) -> Result<Response> {
    let Some(task) = task.filter(|_| response.status() == hyper::StatusCode::CREATED) else {
        return Ok(response);
    };
    proxied::with_json(response, |made| {
        if let Some(id) = made.get_mut("Id") {
            *id = exec_with_task(id.as_str().unwrap_or_default(), task).into();
        }
    })
    .await
}

impl From<ReachError> for Error {
    fn from(error: ReachError) -> Self {
        let kind = match &error {
            ReachError::NoLeader(_) | ReachError::Unavailable(_) => Kind::Unavailable,
            ReachError::NotFound(_) => Kind::NotFound,
            ReachError::Invalid(_) => Kind::InvalidArgument,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execs_id_tells_its_task() {
        let (exec, task) = ("a1".repeat(32), TaskId::of(7));
        let id = exec_with_task(&exec, task);
        assert_eq!(exec_of(&id), Some((exec.as_str(), task)));
        for other in ["", exec.as_str(), &id[1..], &format!("{}g", &id[1..])] {
            assert_eq!(exec_of(other), None, "{other}");
        }
    }
}
