//! `/secrets` and `/configs`, which differ in nothing but what they are of.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_cluster::control::{
    SpecUpdate, create_config, create_secret, find_config, find_secret, list_configs, list_secrets,
    remove_config, remove_secret, update_config, update_secret,
};
use ketch_convert::{config, filters, query, secret};
use ketch_engine_api::swarm::payload::{ConfigSpec, SecretSpec};

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::node::api::{Led, led};

macro_rules! routes {
    ($module:ident: $path:literal, $kind:ident, $spec:ident, $convert:ident,
     [$list:ident, $find:ident, $create:ident, $update:ident, $remove:ident]) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::api::routes) fn add(router: &mut Router) {
                router.on(Method::GET, concat!("/", $path), |daemon, request| led(daemon, request, list));
                router.on(Method::POST, concat!("/", $path, "/create"), |daemon, request| led(daemon, request, create));
                router.on(Method::GET, concat!("/", $path, "/{}"), |daemon, request| led(daemon, request, inspect));
                router.on(Method::DELETE, concat!("/", $path, "/{}"), |daemon, request| led(daemon, request, remove));
                router.on(Method::POST, concat!("/", $path, "/{}/update"), |daemon, request| led(daemon, request, update));
            }

            async fn list(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
                let wanted = filters::of(request.query.value("filters"))?;
                let found = led.read(|view| $list(view, &wanted)).await?;
                let shown: Vec<_> = found.iter().map(|it| $convert::shown(it)).collect();
                response::json(StatusCode::OK, &shown)
            }

            async fn inspect(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
                let found = led.read(|view| $find(view, request.operand(0))).await?;
                response::json(StatusCode::OK, &$convert::shown(&found))
            }

            async fn create(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
                let wanted: $spec = request.json().await?;
                let spec = $convert::spec_of(wanted)?;
                let id = led.change(|view, now, bits| $create(view, spec, now, bits)).await?;
                response::json(StatusCode::CREATED, &serde_json::json!({ "ID": id.to_string() }))
            }

            async fn update(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
                let version = query::version(query::Updated::$kind, request.query.value("version"))?;
                let name = request.operand(0).to_owned();
                let wanted: $spec = request.json().await?;
                let spec = $convert::spec_of(wanted)?;
                led.change(|view, now, bits| {
                    let id = $find(view, &name)?.id;
                    $update(view, id, SpecUpdate { version, spec }, now, bits).map(|actions| ((), actions))
                })
                .await?;
                Ok(response::empty(StatusCode::OK))
            }

            async fn remove(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
                led.change(|view, now, _| {
                    let id = $find(view, request.operand(0))?.id;
                    $remove(view, id, now).map(|actions| ((), actions))
                })
                .await?;
                Ok(response::empty(StatusCode::NO_CONTENT))
            }
        }
    };
}

routes! {
    secrets: "secrets", Secret, SecretSpec, secret, [list_secrets, find_secret, create_secret, update_secret, remove_secret]
}
routes! {
    configs: "configs", Config, ConfigSpec, config, [list_configs, find_config, create_config, update_config, remove_config]
}
