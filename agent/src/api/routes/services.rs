//! `/services`.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_cluster::control::{
    ServiceUpdate, count_tasks, create_service, find_service, list_services, remove_service, update_service,
};
use ketch_cluster::store::ObjectKind;
use ketch_cluster::view::View;
use ketch_convert::{filters, query, service};
use ketch_engine_api::swarm::service::{ServiceCreateResponse, ServiceSpec};

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::engine::name::random_name;
use crate::error::Result;
use crate::node::api::{Led, led};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/services", |daemon, request| led(daemon, request, list));
    router.on(Method::POST, "/services/create", |daemon, request| led(daemon, request, create));
    router.on(Method::GET, "/services/{}", |daemon, request| led(daemon, request, inspect));
    router.on(Method::DELETE, "/services/{}", |daemon, request| led(daemon, request, remove));
    router.on(Method::POST, "/services/{}/update", |daemon, request| led(daemon, request, update));
}

async fn list(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let wanted = filters::of(request.query.value("filters"))?;
    let counted = query::status(request.query.value("status"))?;
    let shown = led.read(|view| {
        let found = list_services(view, &wanted)?;
        let shown = found.iter().map(|it| {
            let counts = counted.then(|| count_tasks(view, it));
            service::shown(it, service::Defaults::LeftOut, counts)
        });
        Ok(shown.collect::<Vec<_>>())
    });
    response::json(StatusCode::OK, &shown.await?)
}

async fn inspect(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let defaults = query::insert_defaults(request.query.value("insertDefaults"))?;
    let found = led.read(|view| find_service(view, request.operand(0))).await?;
    response::json(StatusCode::OK, &service::shown(&found, defaults, None))
}

async fn create(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let auth = query::sent_auth(request.header("x-registry-auth"));
    let mut wanted: ServiceSpec = request.json_or_nothing().await?.unwrap_or_default();
    if wanted.name.is_empty() {
        wanted.name = free_name(&led).await?;
    }
    let id = led.change(|view, now, bits| {
        let spec = service::spec_of(view, wanted, auth)?;
        create_service(view, spec, now, bits)
    });
    let created = ServiceCreateResponse { id: id.await?.to_string(), ..ServiceCreateResponse::default() };
    response::json(StatusCode::CREATED, &created)
}

/// A name that no service has.
async fn free_name(led: &Led) -> Result<String> {
    let is_free = |view: &View<'_>, name: &str| view.by_name(ObjectKind::Service, name).is_none();
    led.read(|view| Ok(random_name(|name| is_free(view, name)))).await?
}

async fn update(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let version = query::version(query::Updated::Service, request.query.value("version"))?;
    let rollback = query::rollback(request.query.value("rollback"))?;
    let header = request.header("x-registry-auth");
    let registry_auth = query::registry_auth(header, request.query.value("registryAuthFrom"))?;
    let name = request.operand(0).to_owned();
    let wanted: ServiceSpec = request.json().await?;
    led.change(|view, now, _| {
        let id = find_service(view, &name)?.id;
        let spec = service::spec_of(view, wanted, None)?;
        let update = ServiceUpdate { version, spec, rollback, registry_auth };
        update_service(view, id, update, now).map(|actions| ((), actions))
    })
    .await?;
    response::json(StatusCode::OK, &serde_json::json!({ "Warnings": null }))
}

async fn remove(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    led.change(|view, _, _| {
        let id = find_service(view, request.operand(0))?.id;
        remove_service(view, id).map(|actions| ((), actions))
    })
    .await?;
    Ok(response::empty(StatusCode::OK))
}
