//! One object by what a person calls it: its whole id, its name, or the start of its id, in that order.
//!
//! What users never see is not found: secrets of the cluster itself, networks that are removed once their last task is gone,
//! secrets and configs in whose place there are others.

use std::sync::Arc;

use crate::objects::{Cluster, Config, Network, Node, Secret, Service, Task};
use crate::store::{ObjectId, ObjectKind};
use crate::view::View;

use super::error::ControlError;
use super::texts;

/// The ways to find one, the better ones first.
type Ways<'w, 'a, T> = [&'w mut dyn Iterator<Item = &'a Arc<T>>; 3];

/// The cluster.
///
/// # Errors
/// When there is none yet.
pub fn find_cluster<'v>(view: &'v View<'_>) -> Result<&'v Arc<Cluster>, ControlError> {
    view.cluster().ok_or_else(texts::no_swarm)
}

/// # Errors
/// When no node is called so, or several are: host names need not differ.
pub fn find_node(view: &View<'_>, text: &str) -> Result<Arc<Node>, ControlError> {
    let is_called = |node: &&Arc<Node>| {
        node.description.as_ref().is_some_and(|it| it.hostname.eq_ignore_ascii_case(text))
    };
    let ways: Ways<'_, '_, Node> = [
        &mut text.parse().ok().and_then(|id| view.node(id)).into_iter(),
        &mut view.nodes().filter(is_called),
        &mut view.nodes_by_prefix(text),
    ];
    first_found(ObjectKind::Node, text, ways)
}

/// # Errors
/// When no service is called so, or several are.
pub fn find_service(view: &View<'_>, text: &str) -> Result<Arc<Service>, ControlError> {
    let named = match view.by_name(ObjectKind::Service, text) {
        Some(ObjectId::Service(id)) => view.service(id),
        _ => None,
    };
    let ways: Ways<'_, '_, Service> = [
        &mut text.parse().ok().and_then(|id| view.service(id)).into_iter(),
        &mut named.into_iter(),
        &mut view.services_by_prefix(text),
    ];
    first_found(ObjectKind::Service, text, ways)
}

/// # Errors
/// When no task is called so, or several are.
pub fn find_task(view: &View<'_>, text: &str) -> Result<Arc<Task>, ControlError> {
    // A task's name ends in its id.
    let named = text
        .rsplit_once('.')
        .and_then(|(_, id)| view.task(id.parse().ok()?))
        .filter(|task| *task.name == *text);
    let ways: Ways<'_, '_, Task> = [
        &mut text.parse().ok().and_then(|id| view.task(id)).into_iter(),
        &mut named.into_iter(),
        &mut view.tasks_by_prefix(text),
    ];
    first_found(ObjectKind::Task, text, ways)
}

/// # Errors
/// When no network is called so, or several are.
pub fn find_network(view: &View<'_>, text: &str) -> Result<Arc<Network>, ControlError> {
    let named = match view.by_name(ObjectKind::Network, text) {
        Some(ObjectId::Network(id)) => view.network(id),
        _ => None,
    };
    let is_shown = |network: &&Arc<Network>| !network.pending_delete;
    let ways: Ways<'_, '_, Network> = [
        &mut text.parse().ok().and_then(|id| view.network(id)).into_iter().filter(is_shown),
        &mut named.into_iter().filter(is_shown),
        &mut view.networks_by_prefix(text).filter(is_shown),
    ];
    first_found(ObjectKind::Network, text, ways)
}

/// # Errors
/// When no secret is called so, or several are.
pub fn find_secret(view: &View<'_>, text: &str) -> Result<Arc<Secret>, ControlError> {
    let named = match view.by_name(ObjectKind::Secret, text) {
        Some(ObjectId::Secret(id)) => view.secret(id),
        _ => None,
    };
    let is_shown = |secret: &&Arc<Secret>| !secret.internal && !secret.superseded;
    let ways: Ways<'_, '_, Secret> = [
        &mut text.parse().ok().and_then(|id| view.secret(id)).into_iter().filter(is_shown),
        &mut named.into_iter().filter(is_shown),
        &mut view.secrets_by_prefix(text).filter(is_shown),
    ];
    first_found(ObjectKind::Secret, text, ways)
}

/// # Errors
/// When no config is called so, or several are.
pub fn find_config(view: &View<'_>, text: &str) -> Result<Arc<Config>, ControlError> {
    let named = match view.by_name(ObjectKind::Config, text) {
        Some(ObjectId::Config(id)) => view.config(id),
        _ => None,
    };
    let is_shown = |config: &&Arc<Config>| !config.superseded;
    let ways: Ways<'_, '_, Config> = [
        &mut text.parse().ok().and_then(|id| view.config(id)).into_iter().filter(is_shown),
        &mut named.into_iter().filter(is_shown),
        &mut view.configs_by_prefix(text).filter(is_shown),
    ];
    first_found(ObjectKind::Config, text, ways)
}

fn first_found<T>(kind: ObjectKind, text: &str, ways: Ways<'_, '_, T>) -> Result<Arc<T>, ControlError> {
    // No text is the start of every id, and nobody's name.
    let ways = ways.into_iter().filter(|_| !text.is_empty());
    for way in ways {
        let Some(found) = way.next() else { continue };
        return match way.count() {
            0 => Ok(found.clone()),
            others => Err(texts::ambiguous(kind, text, others + 1)),
        };
    }
    Err(texts::not_found(kind, text))
}

#[cfg(test)]
mod tests;
