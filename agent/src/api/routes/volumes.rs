//! Volumes.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::volume::{Create, List, Pruned};

use super::beside;
use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::volume::{self, ANONYMOUS, Volume};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/volumes", list);
    router.on(Method::GET, "/volumes/{}", inspect);
    router.on(Method::POST, "/volumes/create", create);
    router.on(Method::POST, "/volumes/prune", prune);
    router.on(Method::PUT, "/volumes/{}", update);
    router.on(Method::DELETE, "/volumes/{}", remove);
}

async fn list(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["dangling", "driver", "label", "name"])?;
    let dangling = filters.flag("dangling")?;
    // A removal or a creation beside it may wait for the disk.
    beside(daemon, move |daemon| {
        let wanted = |volume: &Volume| {
            filters.any("driver", |driver| driver == volume::DRIVER)
                && filters.any("name", |name| volume.name.contains(name))
                && labelled(&filters, "label", volume)
                && dangling.is_none_or(|dangling| dangling != daemon.volumes.is_held(&volume.name))
        };
        let volumes = daemon.volumes.list();
        let wanted = volumes.iter().filter(|volume| wanted(volume));
        let volumes = wanted.map(|volume| daemon.volumes.show(volume)).collect();
        response::json(StatusCode::OK, &List { volumes, warnings: None })
    })
    .await
}

fn labelled(filters: &Filters, key: &str, volume: &Volume) -> bool {
    filters.labels(key, |label| volume.labels.as_ref()?.get(label).map(String::as_str))
}

async fn inspect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0).to_owned();
    beside(daemon, move |daemon| {
        let volume = daemon.volumes.find(&name)?;
        response::json(StatusCode::OK, &daemon.volumes.show(&volume))
    })
    .await
}

async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let body: Create = super::containers::body(request).await?;
    beside(daemon, move |daemon| {
        let asked = volume::Create {
            name: body.name,
            driver: body.driver,
            options: body.driver_opts,
            labels: body.labels,
        };
        let volume = daemon.volumes.create(&asked, None)?;
        response::json(StatusCode::CREATED, &daemon.volumes.show(&volume))
    })
    .await
}

async fn remove(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (name, force) = (request.operand(0).to_owned(), request.query.flag("force"));
    beside(daemon, move |daemon| match daemon.volumes.remove(&name) {
        Err(error) if force && error.kind == Kind::NotFound => Ok(response::empty(StatusCode::NO_CONTENT)),
        Err(error) => Err(error),
        Ok(()) => Ok(response::empty(StatusCode::NO_CONTENT)),
    })
    .await
}

async fn prune(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["label", "label!", "all"])?;
    let all = filters.values("all").collect::<Vec<_>>();
    if all.len() > 1 {
        let all = all.join(" ");
        return Err(Error::invalid(format!("invalid filter 'all=[{all}]': only one value is expected")));
    }
    // Older clients mean all of them.
    let all = request.version < ApiVersion::v1(42) || filters.flag("all")? == Some(true);
    beside(daemon, move |daemon| {
        let (volumes_deleted, space_reclaimed) = daemon.volumes.prune(|volume| {
            let anonymous = volume.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS));
            let excluded = filters.has("label!") && labelled(&filters, "label!", volume);
            (all || anonymous) && labelled(&filters, "label", volume) && !excluded
        })?;
        response::json(StatusCode::OK, &Pruned { volumes_deleted, space_reclaimed })
    })
    .await
}

/// Of volumes of a cluster only.
async fn update(_: Arc<Daemon>, _: Request) -> Result<Response> {
    Err(Error::new(
        Kind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    ))
}
