//! `/networks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::network::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworksPruneResponse,
};

use super::beside;
use super::containers::body;
use super::swarm_networks;
use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::daemon::Daemon;
use crate::engine::connect as endpoints;
use crate::error::{Error, Kind, Result};
use crate::timestamp::Timestamp;

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/networks", list);
    router.on(Method::GET, "/networks/{}", inspect);
    router.on(Method::POST, "/networks/create", create);
    router.on(Method::POST, "/networks/prune", prune);
    router.on(Method::POST, "/networks/{}/connect", connect);
    router.on(Method::POST, "/networks/{}/disconnect", disconnect);
    router.on(Method::DELETE, "/networks/{}", remove);
}

async fn list(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &FILTERS)?;
    // Their containers, too, as in those days.
    let detailed = request.version < ApiVersion::v1(28);
    let dangling = dangling(&filters)?;
    for kind in filters.values("type") {
        if !matches!(kind, "builtin" | "custom") {
            return Err(Error::new(Kind::Internal, format!("invalid filter: 'type'='{kind}'")));
        }
    }
    beside(daemon, move |daemon| {
        let of_cluster = swarm_networks::list(daemon);
        let of_node = daemon.networks.list();
        let shown = of_node
            .iter()
            .filter(|network| of_cluster.iter().all(|it| it.id != network.id))
            .filter(|network| {
                let kind = if network.is_predefined() { "builtin" } else { "custom" };
                filters.any("driver", |wanted| wanted == network.driver.name())
                    && filters.any("name", |wanted| network.name.contains(wanted))
                    && filters.any("id", |wanted| network.id.contains(wanted))
                    && filters.any("scope", |wanted| wanted == network.scope())
                    && filters.any("type", |wanted| wanted == kind)
                    && filters.labels("label", |key| network.labels.get(key).map(String::as_str))
            })
            .filter(|network| {
                dangling.is_none_or(|wanted| {
                    wanted != (network.is_predefined() || daemon.networks.is_used(network))
                })
            })
            .map(|network| serde_json::json!(daemon.networks.show(network, detailed)));
        let others = of_cluster
            .iter()
            .filter(|network| {
                let label = |key: &str| network.labels.as_ref()?.get(key).map(String::as_str);
                filters.any("driver", |wanted| wanted == network.driver)
                    && filters.any("name", |wanted| network.name.contains(wanted))
                    && filters.any("id", |wanted| network.id.contains(wanted))
                    && filters.any("scope", |wanted| wanted == network.scope)
                    && filters.any("type", |wanted| wanted == "custom")
                    && filters.labels("label", label)
            })
            .filter(|_| dangling.is_none())
            .map(|network| serde_json::json!(network));
        let shown: Vec<_> = others.chain(shown).collect();
        response::json(StatusCode::OK, &shown)
    })
    .await
}

fn dangling(filters: &Filters) -> Result<Option<bool>> {
    match filters.values("dangling").collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        ["true" | "1"] => Ok(Some(true)),
        ["false" | "0"] => Ok(Some(false)),
        _ => Err(Error::invalid(
            r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#,
        )),
    }
}

async fn inspect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    if let Some(verbose) = request.query.text("verbose")
        && !matches!(
            verbose,
            "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False"
        )
    {
        return Err(Error::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    let name = request.operand(0).to_owned();
    let scope = request.query.text("scope").map(str::to_owned);
    beside(daemon, move |daemon| {
        let is_in = |wanted: &str| scope.as_deref().is_none_or(|scope| scope == wanted);
        let of_node = daemon.networks.find(&name).and_then(|found| match is_in(found.scope()) {
            true => Ok(found),
            false => Err(Error::not_found(format!("network {name} not found"))),
        });
        // What this node has of a cluster's network are its containers there.
        let of_cluster = match scope.as_deref() {
            None => swarm_networks::find(daemon, &name),
            Some("swarm") => swarm_networks::find_for_service(daemon, &name),
            Some(_) => None,
        };
        match (of_node, of_cluster) {
            (Ok(network), Some(mut shown)) if network.id == shown.id => {
                shown.containers = Some(daemon.networks.show(&network, true).containers);
                response::json(StatusCode::OK, &shown)
            }
            (Ok(network), _) => response::json(StatusCode::OK, &daemon.networks.show(&network, true)),
            (Err(_), Some(shown)) => response::json(StatusCode::OK, &shown),
            (Err(error), None) => Err(error),
        }
    })
    .await
}

async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (request, again) = request.twice().await?;
    let wanted: NetworkCreateRequest = body(again).await?;
    // Without a cluster the driver is the engine's own, which refuses it as dockerd's does.
    let is_alone = wanted.scope.is_none() && !wanted.ingress && super::swarm::standing(&daemon) == "inactive";
    if swarm_networks::is_meant(&wanted) && !is_alone {
        let forbidden = |text: &str| Err(Error::new(Kind::Forbidden, text));
        if wanted.ingress && wanted.driver.as_deref() != Some("overlay") {
            return forbidden("Ingress network can only be global scope network");
        }
        if wanted.driver.as_deref() == Some("overlay") && wanted.scope.as_deref() == Some("local") {
            return forbidden("cannot downgrade network scope for overlay networks");
        }
        if wanted.scope.as_deref() == Some("swarm") && !daemon.node()?.information().is_manager {
            return forbidden("cannot create a swarm scoped network when swarm is not active");
        }
        return swarm_networks::create(daemon, request).await;
    }
    beside(daemon, move |daemon| {
        let id = daemon.networks.create(wanted)?;
        response::json(StatusCode::CREATED, &NetworkCreateResponse { id, warning: String::new() })
    })
    .await
}

async fn remove(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0).to_owned();
    let of_node = daemon.networks.find(&name).ok().filter(|network| !network.is_overlay());
    if of_node.is_none() && swarm_networks::find(&daemon, &name).is_some() {
        return swarm_networks::remove(daemon, request).await;
    }
    beside(daemon, move |daemon| {
        let _removed = daemon.networks.remove(&name)?;
        Ok(response::empty(StatusCode::NO_CONTENT))
    })
    .await
}

async fn connect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0).to_owned();
    let asked: NetworkConnectRequest = body(request).await?;
    endpoints::connect(&daemon, &name, &asked.container, asked.endpoint_config.unwrap_or_default()).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn disconnect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0).to_owned();
    let asked: NetworkDisconnectRequest = body(request).await?;
    endpoints::disconnect(&daemon, &name, &asked.container, asked.force).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn prune(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["label", "label!", "until"])?;
    let until = filters
        .values("until")
        .next()
        .map(|text| Timestamp::of_filter(text, Timestamp::now()))
        .transpose()?;
    let unwanted = move |created: &str, labels: &BTreeMap<String, String>| {
        let label = |key: &str| labels.get(key).map(String::as_str);
        let young = until.is_some_and(|until| Timestamp::parse(created).is_none_or(|made| made >= until));
        let spared = filters.has("label!") && filters.labels("label!", label);
        !young && !spared && filters.labels("label", label)
    };
    let of_cluster = swarm_networks::prune(&daemon, request.version, |network| {
        unwanted(&network.created, &network.labels.clone().unwrap_or_default())
    });
    let mut names = of_cluster.await?;
    beside(daemon, move |daemon| {
        names.extend(daemon.networks.prune(|network| unwanted(&network.created, &network.labels))?);
        daemon.events.publish("network", "prune", "", [("reclaimed".to_owned(), "0".to_owned())].into());
        let networks_deleted = (!names.is_empty()).then_some(names);
        response::json(StatusCode::OK, &NetworksPruneResponse { networks_deleted })
    })
    .await
}
