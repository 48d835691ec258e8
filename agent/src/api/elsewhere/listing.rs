//! `docker ps --filter node=...` at a manager: the containers of the nodes that are meant, as one list. Of other nodes those are
//! shown that are tasks. A node that does not answer is named in a header `Warning`, and the others are shown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, WARNING};
use ketch_cluster::id::{NodeId, TaskId};
use ketch_node::calls::Target;
use serde_json::Value;
use tokio::time::timeout;

use super::proxied;
use crate::api::filters::Filters;
use crate::api::request::{Query, Request};
use crate::api::response::{self, Response};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::engine::list;
use crate::error::{Error, Kind, Result};
use crate::random;

/// The filter's key: a node's name or id, or `*` for all.
pub(crate) const NODE: &str = "node";
/// So many nodes are asked at once, and each has so long.
const AT_ONCE: usize = 16;
/// A node's answer, and all of them, in bytes: they are in memory until the list is sent.
const MOST_OF_NODE: usize = 4 << 20;
const MOST: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
/// Labels of a task's container: its task, and the node that it is on.
const TASK: &str = "com.docker.swarm.task.id";
const OF_NODE: &str = "com.docker.swarm.node.id";
/// Nodes that are named as missing.
const MOST_WARNINGS: usize = 20;

/// Whether a list is asked for of more than this node.
pub(crate) fn is_asked(query: &Query) -> bool {
    Filters::unchecked(query).is_ok_and(|filters| filters.has(NODE))
}

/// The list.
///
/// # Errors
/// Filters that can't be meant; a node that is not there.
pub(crate) async fn list(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let accepted: Vec<&str> = list::FILTERS.into_iter().chain([NODE]).collect();
    let mut filters = Filters::of(&request.query, &accepted)?;
    for key in ["before", "since"] {
        if filters.has(key) {
            return Err(Error::invalid(format!("filters '{key}' and 'node' can't be given together")));
        }
    }
    let limit = request.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| *limit > 0);
    let named = filters.take(NODE);
    let Asked { is_own, others } = asked(&daemon, &named)?;
    let wanted = list::Wanted {
        // As of one node: the newest, whether they run or not.
        all: request.query.flag("all") || limit.is_some(),
        limit: None,
        size: request.query.flag("size"),
        filters,
    };
    let query = query_of(&wanted);
    let mut shown = if is_own { own(&daemon, wanted).await? } else { Vec::new() };
    let mut warnings = Vec::new();
    let mut answers = iter(others.into_iter().map(|(id, name)| {
        let (daemon, query) = (Arc::clone(&daemon), query.clone());
        async move { (name, timeout(PATIENCE, of_node(&daemon, id, &query)).await) }
    }))
    .buffer_unordered(AT_ONCE);
    let mut size = 0;
    while let Some((name, answer)) = answers.next().await {
        match answer {
            Ok(Ok((listed, bytes))) if size + bytes <= MOST => {
                size += bytes;
                shown.extend(listed);
            }
            Ok(Ok(_)) => warnings.push(format!("node {name}: there are too many containers to list")),
            Ok(Err(error)) => warnings.push(format!("node {name}: {}", error.message)),
            Err(_) => warnings.push(format!("node {name} did not answer in time")),
        }
    }
    let created = |container: &Value| container.get("Created").and_then(Value::as_i64).unwrap_or_default();
    shown.sort_by_key(|container| std::cmp::Reverse(created(container)));
    shown.truncate(limit.unwrap_or(usize::MAX));
    let mut response = response::json(StatusCode::OK, &shown)?;
    warnings.sort();
    for warning in warnings.iter().take(MOST_WARNINGS) {
        tracing::warn!("a list of containers lacks a node: {warning}");
        if let Ok(value) = HeaderValue::from_str(&format!("199 ketchd \"{}\"", warning.escape_default())) {
            let _more = response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}

struct Asked {
    is_own: bool,
    /// With what users call them.
    others: Vec<(NodeId, String)>,
}

/// The nodes that the filter's values mean.
fn asked(daemon: &Daemon, named: &[String]) -> Result<Asked> {
    let node = daemon.node()?;
    let own = node.information().node;
    let known = node.view(|store| {
        let hostname = |node: &ketch_cluster::objects::Node| {
            node.description.as_ref().map(|it| it.hostname.clone()).unwrap_or_default()
        };
        store.nodes().map(|node| (node.id, hostname(node))).collect::<Vec<_>>()
    });
    let known = known.unwrap_or_default();
    let means = |value: &str, (id, hostname): &(NodeId, String)| {
        value == "*" || value == hostname || value == id.to_string()
    };
    if let Some(missing) = named.iter().find(|value| !known.iter().any(|node| means(value, node))) {
        return Err(Error::not_found(format!("node {missing} not found")));
    }
    let (mut is_own, mut others) = (false, Vec::new());
    for node in known.into_iter().filter(|node| named.iter().any(|value| means(value, node))) {
        if Some(node.0) == own { is_own = true } else { others.push(node) }
    }
    Ok(Asked { is_own, others })
}

async fn own(daemon: &Arc<Daemon>, wanted: list::Wanted) -> Result<Vec<Value>> {
    let daemon = Arc::clone(daemon);
    let listed = blocking(move || list::list(&daemon, &wanted)).await?;
    listed
        .iter()
        .map(|one| serde_json::to_value(one).map_err(|error| Error::internal("encoding a list", &error)))
        .collect()
}

/// Its tasks' containers, and in how many bytes it has told them.
async fn of_node(daemon: &Daemon, id: NodeId, query: &str) -> Result<(Vec<Value>, usize)> {
    let tunnel = daemon.node()?.reach(Target::Node(id)).await?;
    let request = hyper::Request::get(format!("/containers/json?{query}")).body(());
    let request = request.map_err(|error| Error::internal("asking a node for its containers", &error))?;
    let path = "/containers/json".to_owned();
    let request = (request.into_parts().0, Bytes::new().into());
    let (_, response) = proxied::send(tunnel, path, request, || ()).await?;
    let (Value::Array(mut listed), size) = proxied::json(response, MOST_OF_NODE).await? else {
        return Err(Error::invalid("its answer is no list"));
    };
    let told = listed.len();
    let own = daemon.node()?.view(|store| {
        let of = |task: TaskId| store.task(task).map(|task| (task.node, task.container_name()));
        listed.retain_mut(|container| is_own(container, id, of));
    });
    own.ok_or_else(|| Error::new(Kind::Unavailable, "this node is no manager any more"))?;
    if listed.len() < told {
        // It may not have heard yet that a task is gone.
        tracing::info!(node = %id, "a node lists {} containers that are none of its tasks'", told - listed.len());
    }
    Ok((listed, size))
}

/// Whether what a node tells is a container of a task that it has; by the task's name then, and as that node's. Whatever else it says
/// of it is its word. `task` gives a task's node and its container's name.
fn is_own(
    container: &mut Value,
    node: NodeId,
    task: impl FnOnce(TaskId) -> Option<(Option<NodeId>, String)>,
) -> bool {
    let is_id = container.get("Id").and_then(Value::as_str).is_some_and(random::is_id);
    let told = container.pointer(&format!("/Labels/{TASK}")).and_then(Value::as_str);
    let task = told.and_then(|id| id.parse().ok()).and_then(task);
    let Some((_, name)) = task.filter(|(of, _)| is_id && *of == Some(node)) else { return false };
    container["Names"] = vec![format!("/{name}")].into();
    container["Labels"][OF_NODE] = node.to_string().into();
    true
}

fn query_of(wanted: &list::Wanted) -> String {
    let flag = |set: bool| if set { "1" } else { "0" };
    let filters: String = wanted.filters.json().bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("all={}&size={}&filters={filters}", flag(wanted.all), flag(wanted.size))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_lists_containers_of_its_tasks_by_their_names_alone() {
        let (node, task) = (NodeId::of(1), TaskId::of(2));
        let told = |id: &str, task: TaskId| {
            json!({
                "Id": id, "Names": ["/another"],
                "Labels": {TASK: task.to_string(), OF_NODE: NodeId::of(9).to_string(), "a": "b"},
            })
        };
        let find = |wanted: TaskId| (wanted == task).then(|| (Some(node), "web.1".to_owned()));
        let id = "ab".repeat(32);
        let mut own = told(&id, task);
        assert!(is_own(&mut own, node, find));
        let labels = json!({TASK: task.to_string(), OF_NODE: node.to_string(), "a": "b"});
        assert_eq!(own, json!({"Id": id, "Names": ["/web.1"], "Labels": labels}));
        assert!(!is_own(&mut told(&id, task), NodeId::of(3), find), "another node's task");
        assert!(!is_own(&mut told(&id, TaskId::of(4)), node, find), "no task");
        assert!(!is_own(&mut told("web", task), node, find), "no id");
        for none in [json!({"Id": id}), json!("x"), json!({"Id": id, "Labels": []})] {
            assert!(!is_own(&mut none.clone(), node, find), "{none}");
        }
    }
}
