//! What happens to the cluster, as events of this manager: each manager tells of all that is committed, as dockerd's do.
//!
//! Objects' creation, update and removal are Docker's, with its attributes. Beside these, what is decided of a service's tasks, of type
//! `service` with the service's id:
//!
//! | action | attributes beside `name` |
//! |---|---|
//! | `task_restart`, `task_move` | `task`, `slot`, `cause`; `exitCode` where it is known |
//! | `task_wait`, `task_go` | `task`, `slot`; `reason` of a wait: for other services, or for room on a node |
//! | `schedule_run` | `iteration` |
//! | `schedule_skip` | `due` (seconds since 1970), `reason` |
//! | `payload_roll` | `payloads`: names of secrets and configs that have other data now |

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use ketch_cluster::objects::decision::Cause;
use ketch_cluster::objects::task::{Gate, TaskRuntime};
use ketch_cluster::objects::{Node, Service, ServiceMode, Task, TaskState};
use ketch_cluster::store::{Change, Object, ObjectId};
use ketch_node::node::Node as OwnNode;
use ketch_raft::Notice;

use crate::daemon::Daemon;

type Attributes = BTreeMap<String, String>;

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Happened {
    kind: &'static str,
    action: &'static str,
    id: String,
    attributes: Attributes,
}

/// Tells of what is committed, for as long as the daemon runs; of nothing while this node is no manager.
pub(super) async fn tell(daemon: Arc<Daemon>, node: Arc<OwnNode>) {
    let mut ending = daemon.ending.subscribe();
    let telling = async {
        loop {
            let mut notices = node.notices().await;
            while let Some(notice) = notices.next().await {
                // Of what a snapshot has brought nobody knows what has happened.
                if let Notice::Committed(committed) = notice {
                    for it in committed.changes.iter().flat_map(happened) {
                        if it.action == "schedule_skip" {
                            tracing::info!(service = it.id, why = ?it.attributes, "a due time makes no run");
                        }
                        daemon.events.publish_of_cluster(it.kind, it.action, &it.id, it.attributes);
                    }
                }
            }
            // The log has ended; the manager will, or begins again.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        _ = telling => {}
        _ = ending.wait_for(|ending| *ending) => {}
    }
}

fn happened(change: &Change) -> Vec<Happened> {
    let of_object = object(change);
    let of_tasks = match (&change.old, &change.new) {
        (Some(Object::Service(old)), Some(Object::Service(new))) => decided_of_service(old, new),
        (old, Some(Object::Task(new))) => {
            let old =
                old.as_ref().and_then(|old| if let Object::Task(old) = old { Some(&**old) } else { None });
            decided_of_task(old, new).into_iter().collect()
        }
        _ => Vec::new(),
    };
    of_object.into_iter().chain(of_tasks).collect()
}

/// Docker's own.
fn object(change: &Change) -> Option<Happened> {
    let object = change.new.as_ref().or(change.old.as_ref())?;
    let (kind, id, name) = match object {
        Object::Service(it) => ("service", it.id.to_string(), it.spec.name.clone()),
        Object::Node(it) => ("node", it.id.to_string(), name_of(it)),
        Object::Network(it) => ("network", it.id.to_string(), it.spec.name.clone()),
        Object::Secret(it) if !it.internal => ("secret", it.id.to_string(), it.spec.name.clone()),
        Object::Config(it) => ("config", it.id.to_string(), it.spec.name.clone()),
        Object::Secret(_) | Object::Cluster(_) | Object::Task(_) => return None,
    };
    let action = match (&change.old, &change.new) {
        (None, _) => "create",
        (_, None) => "remove",
        _ => "update",
    };
    let mut attributes = Attributes::from([("name".to_owned(), name)]);
    match (&change.old, &change.new) {
        (Some(Object::Service(old)), Some(Object::Service(new))) => {
            attributes.extend(changed_of_service(old, new));
        }
        (Some(Object::Node(old)), Some(Object::Node(new))) => attributes.extend(changed_of_node(old, new)),
        _ => {}
    }
    Some(Happened { kind, action, id, attributes })
}

fn name_of(node: &Node) -> String {
    let hostname = || node.description.as_ref().map(|it| it.hostname.clone()).unwrap_or_default();
    if node.spec.name.is_empty() { hostname() } else { node.spec.name.clone() }
}

/// Two attributes of what is different now.
fn pair<T: PartialEq>(key: &str, old: &T, new: &T, shown: impl Fn(&T) -> String) -> Attributes {
    if old == new {
        return Attributes::new();
    }
    Attributes::from([(format!("{key}.old"), shown(old)), (format!("{key}.new"), shown(new))])
}

fn changed_of_service(old: &Service, new: &Service) -> Attributes {
    let replicas = |service: &Service| match service.spec.mode {
        ServiceMode::Replicated { replicas } => Some(replicas),
        _ => None,
    };
    let image =
        |service: &Service| service.spec.task.container().map(|it| it.image.clone()).unwrap_or_default();
    let update = |service: &Service| service.update_status.as_ref().map(|status| status.state);
    let mut changed = pair("image", &image(old), &image(new), Clone::clone);
    if let (Some(old), Some(new)) = (replicas(old), replicas(new)) {
        changed.extend(pair("replicas", &old, &new, ToString::to_string));
    }
    let state = |state: &Option<_>| state.as_ref().map(snake).unwrap_or_default();
    changed.extend(pair("updatestate", &update(old), &update(new), state));
    changed
}

fn changed_of_node(old: &Node, new: &Node) -> Attributes {
    let mut changed = pair("state", &old.status.state, &new.status.state, word);
    changed.extend(pair("availability", &old.spec.availability, &new.spec.availability, word));
    changed.extend(pair("role", &old.spec.role, &new.spec.role, word));
    changed
}

fn decided_of_service(old: &Service, new: &Service) -> Vec<Happened> {
    let said = |action, more: &[(&str, String)]| of_service(new.id.to_string(), &new.spec.name, action, more);
    let mut decided = Vec::new();
    if let (Some(before), Some(now)) = (old.job, new.job)
        && let (Some(was), Some(is)) = (before.schedule, now.schedule)
    {
        if now.iteration > before.iteration && is.decided_until > was.decided_until {
            decided.push(said("schedule_run", &[("iteration", now.iteration.to_string())]));
        }
        if let Some(passed) = is.passed.filter(|passed| was.passed.as_ref() != Some(passed)) {
            let due = (passed.due.0 / 1_000_000_000).to_string();
            decided.push(said("schedule_skip", &[("due", due), ("reason", passed.why.text().to_owned())]));
        }
    }
    let (was, is) = (payloads_of(old), payloads_of(new));
    let rolled: Vec<_> = is
        .iter()
        .filter(|(name, id)| was.get(*name).is_some_and(|was| was != *id))
        .map(|(name, _)| name.as_str())
        .collect();
    if !rolled.is_empty() {
        decided.push(said("payload_roll", &[("payloads", rolled.join(","))]));
    }
    decided
}

/// The secrets and configs that a service names, by their names.
fn payloads_of(service: &Service) -> BTreeMap<String, ObjectId> {
    let TaskRuntime::Container(container) = &service.spec.task.runtime else { return BTreeMap::new() };
    let secrets = container.secrets.iter().map(|it| (it.name.clone(), ObjectId::Secret(it.secret)));
    let configs = container.configs.iter().map(|it| (it.name.clone(), ObjectId::Config(it.config)));
    secrets.chain(configs).collect()
}

fn decided_of_task(old: Option<&Task>, new: &Task) -> Option<Happened> {
    let service = new.service?;
    let said = |action, more: &[(&str, String)]| {
        let own = [("task", new.id.to_string()), ("slot", new.slot.to_string())];
        let all: Vec<_> = own.into_iter().chain(more.iter().cloned()).collect();
        Some(of_service(service.to_string(), &new.service_name, action, &all))
    };
    let waits = |task: &Task| task.status.state <= TaskState::Pending && !task.status.error.is_empty();
    match old {
        None => {
            let born = born(new);
            let waits = waits(new).then(|| said("task_wait", &[("reason", new.status.error.to_string())]));
            born.map_or(waits.flatten(), |(action, more)| said(action, &more))
        }
        Some(old) if waits(new) && (!waits(old) || old.gate != new.gate) => {
            said("task_wait", &[("reason", new.status.error.to_string())])
        }
        Some(old) if old.gate == Gate::Closed && new.gate == Gate::Open => said("task_go", &[]),
        // The scheduler had said that it waits.
        Some(old) if waits(old) && new.status.state == TaskState::Assigned => said("task_go", &[]),
        _ => None,
    }
}

/// What the birth of a task means, beyond what its service's change has said.
fn born(task: &Task) -> Option<(&'static str, Vec<(&'static str, String)>)> {
    let cause = |text: &str| ("cause", text.to_owned());
    Some(match task.decision.cause {
        Cause::Restarted { exit_code } => {
            let code = exit_code.map(|code| ("exitCode", code.to_string()));
            ("task_restart", std::iter::once(cause("ended")).chain(code).collect())
        }
        Cause::NodeDown => ("task_move", vec![cause("node down")]),
        Cause::NodeRemoved => ("task_move", vec![cause("node removed")]),
        Cause::Drained => ("task_move", vec![cause("node drained")]),
        Cause::Moved => ("task_move", vec![cause("asked to leave its node")]),
        _ => return None,
    })
}

fn of_service(id: String, name: &str, action: &'static str, more: &[(&str, String)]) -> Happened {
    let name = ("name".to_owned(), name.to_owned());
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    Happened { kind: "service", action, id, attributes: std::iter::once(name).chain(more).collect() }
}

fn word(state: &impl Debug) -> String {
    format!("{state:?}").to_lowercase()
}

/// `RollbackStarted` as dockerd writes it: `rollback_started`.
fn snake(state: &impl Debug) -> String {
    let mut text = String::new();
    for letter in format!("{state:?}").chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As the log has it.
    fn service(changed: &serde_json::Value) -> Service {
        let mut service = json!({
            "id": "0000000000000000000000001",
            "meta": {"version": 1, "created_at": 0, "updated_at": 0},
            "spec": {
                "name": "web", "task": {}, "mode": {"Replicated": {"replicas": 1}}, "update": null, "rollback": null, "endpoint": null
            },
            "spec_version": 1, "previous_spec": null, "previous_spec_version": null,
            "endpoint": {"spec": {}, "ports": [], "virtual_ips": []}, "update_status": null, "job": null,
        });
        for (key, value) in changed.as_object().unwrap() {
            service[key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn actions(old: Option<Service>, new: Option<Service>) -> Vec<(&'static str, Attributes)> {
        let change = Change { old: old.map(Object::from), new: new.map(Object::from) };
        happened(&change).into_iter().map(|it| (it.action, it.attributes)).collect()
    }

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_update_says_what_is_different_in_dockers_words() {
        let old = service(&json!({}));
        let mut new = service(&json!({
            "update_status": {"state": "rollback_started", "started_at": 0, "completed_at": null, "message": "", "slots": 0}
        }));
        new.spec.mode = ServiceMode::Replicated { replicas: 3 };
        let wanted = attributes(&[
            ("name", "web"),
            ("replicas.new", "3"),
            ("replicas.old", "1"),
            ("updatestate.new", "rollback_started"),
            ("updatestate.old", ""),
        ]);
        assert_eq!(actions(Some(old.clone()), Some(new)), [("update", wanted)]);
        assert_eq!(actions(None, Some(old.clone())), [("create", attributes(&[("name", "web")]))]);
        assert_eq!(actions(Some(old), None), [("remove", attributes(&[("name", "web")]))]);
    }

    #[test]
    fn runs_of_a_schedule_and_those_that_are_passed_over_are_told() {
        let job = |iteration: u64, until: u64, passed: serde_json::Value| {
            let schedule = json!({"decided_until": until, "ran": true, "passed": passed});
            service(&json!({"job": {"iteration": iteration, "last_execution": 0, "schedule": schedule}}))
        };
        let name = ("name", "web");
        let ran = actions(Some(job(1, 5, json!(null))), Some(job(2, 9, json!(null))));
        assert_eq!(ran[1], ("schedule_run", attributes(&[name, ("iteration", "2")])));
        let passed = json!({"due": 60_000_000_000_u64, "why": "overlaps"});
        let skipped = actions(Some(job(2, 9, json!(null))), Some(job(2, 60, passed)));
        let reason = ("reason", "the run before goes on");
        assert_eq!(skipped[1], ("schedule_skip", attributes(&[name, ("due", "60"), reason])));
        assert_eq!((ran.len(), skipped.len()), (2, 2));
    }
}
