//! The daemon itself: whether it is there, its version, what it and its machine are, what it keeps on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, PRAGMA};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{info, swarm};
use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::{self, ApiVersion};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::engine::list::{self, Wanted};
use crate::error::{Error, Kind, Result};
use crate::image::ListOptions;
use crate::{metrics, system};

/// The commit that a release is of, and its time: `make build` names them.
const COMMIT: &str = match option_env!("KETCH_COMMIT") {
    Some(commit) => commit,
    None => "",
};
const BUILT: &str = match option_env!("KETCH_BUILD_TIME") {
    Some(time) => time,
    None => "",
};

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/_ping", ping);
    router.on(Method::HEAD, "/_ping", ping);
    router.on(Method::GET, "/version", show_version);
    router.on(Method::GET, "/info", show_info);
    router.on(Method::GET, "/system/df", disk_usage);
    router.on(Method::GET, "/metrics", show_metrics);
    router.on(Method::GET, "/plugins", no_plugins);
    router.on(Method::POST, "/session", no_builder);
    router.on(Method::POST, "/grpc", no_builder);
}

async fn ping(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let is_head = request.parts.method == Method::HEAD;
    let body = if is_head { Bytes::new() } else { Bytes::from_static(b"OK") };
    let mut response = response::bytes(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = response.headers_mut();
    let _none =
        headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static(swarm::standing(&daemon)));
    if is_head {
        // Not the length that GET has, as HTTP would have it.
        let _none = headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    for (name, value) in [
        (HeaderName::from_static("builder-version"), "1"),
        (
            HeaderName::from_static("docker-experimental"),
            if daemon.config.experimental { "true" } else { "false" },
        ),
        (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (PRAGMA, "no-cache"),
    ] {
        let _none = headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn show_version(daemon: Arc<Daemon>, _: Request) -> Result<Response> {
    let kernel = system::machine().kernel;
    let experimental = daemon.config.experimental;
    let mut shown = json!({
        "Platform": { "Name": "ketch" },
        "Components": [
            {
                "Name": "Engine",
                "Version": crate::VERSION,
                "Details": {
                    "ApiVersion": version::CURRENT.to_string(),
                    "Arch": "amd64",
                    "BuildTime": BUILT,
                    "Experimental": experimental.to_string(),
                    "GitCommit": COMMIT,
                    "GoVersion": "",
                    "KernelVersion": kernel,
                    "MinAPIVersion": version::MINIMUM.to_string(),
                    "Os": "linux",
                },
            },
            { "Name": "ketch", "Version": env!("CARGO_PKG_VERSION"), "Details": { "GitCommit": COMMIT } },
        ],
        "Version": crate::VERSION,
        "ApiVersion": version::CURRENT.to_string(),
        "MinAPIVersion": version::MINIMUM.to_string(),
        "GitCommit": COMMIT,
        "GoVersion": "",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": kernel,
        "BuildTime": BUILT,
    });
    if let (true, Value::Object(shown)) = (experimental, &mut shown) {
        let _none = shown.insert("Experimental".to_owned(), Value::Bool(true));
    }
    response::json(StatusCode::OK, &shown)
}

async fn show_info(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let version = request.version;
    // The machine is read from files.
    let shown = blocking(move || Ok(info::info(&daemon, version))).await?;
    response::json(StatusCode::OK, &shown)
}

async fn show_metrics(daemon: Arc<Daemon>, _: Request) -> Result<Response> {
    Ok(response::bytes(StatusCode::OK, metrics::TEXT, metrics::text(daemon).await?))
}

/// There are none, and clients that offer them beside the engine's own drivers (Portainer, docker-py) hear so.
async fn no_plugins(_: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["capability", "enabled"])?;
    let _checked = filters.flag("enabled")?;
    response::json(StatusCode::OK, &json!([]))
}

async fn no_builder(_: Arc<Daemon>, _: Request) -> Result<Response> {
    Err(Error::new(
        Kind::NotImplemented,
        "BuildKit is not served by ketchd: use the docker-container driver (docker buildx create --use)",
    ))
}

/// What `/system/df` is asked for.
#[derive(Clone, Copy)]
struct Parts {
    images: bool,
    containers: bool,
    volumes: bool,
    builds: bool,
}

impl Parts {
    fn of(request: &Request) -> Result<Self> {
        let asked: Vec<_> = request.query.values("type").collect();
        let all = asked.is_empty() || request.version < ApiVersion::v1(42);
        let mut parts = Self { images: all, containers: all, volumes: all, builds: all };
        for part in asked.into_iter().filter(|_| !all) {
            match part {
                "image" => parts.images = true,
                "container" => parts.containers = true,
                "volume" => parts.volumes = true,
                "build-cache" => parts.builds = true,
                other => return Err(Error::invalid(format!("unknown object type: {other}"))),
            }
        }
        Ok(parts)
    }
}

async fn disk_usage(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (parts, version) = (Parts::of(&request)?, request.version);
    let shown = blocking(move || usage(&daemon, parts, version)).await?;
    response::json(StatusCode::OK, &shown)
}

fn usage(daemon: &Arc<Daemon>, parts: Parts, version: ApiVersion) -> Result<Value> {
    let encoded = |value: serde_json::Result<Value>| {
        value.map_err(|error| Error::internal("encoding the disk's use", &error))
    };
    let mut shown =
        json!({ "LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null });
    if parts.images {
        let mut users = BTreeMap::<String, i64>::new();
        for container in daemon.engine.all() {
            *users.entry(container.read(|record| record.image.clone())).or_default() += 1;
        }
        let mut images = daemon.images.list(&ListOptions { shared_size: true, ..ListOptions::default() })?;
        for image in &mut images {
            image.containers = users.get(&image.id).copied().unwrap_or(0);
            image.virtual_size = (version < ApiVersion::v1(44)).then_some(image.size);
        }
        shown["LayersSize"] = json!(daemon.images.layers_size());
        let mut images = encoded(serde_json::to_value(images))?;
        images.as_array_mut().into_iter().flatten().for_each(super::images::without_empty_lists);
        shown["Images"] = images;
    }
    if parts.containers {
        let wanted = Wanted { all: true, limit: None, size: true, filters: Filters::default() };
        shown["Containers"] = encoded(serde_json::to_value(list::list(daemon, &wanted)?))?;
    }
    if parts.volumes {
        shown["Volumes"] = encoded(serde_json::to_value(daemon.volumes.usage()))?;
    }
    if parts.builds {
        shown["BuildCache"] = json!([]);
    }
    Ok(shown)
}
