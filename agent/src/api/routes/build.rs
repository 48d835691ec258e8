//! Builds by the classic builder. Its cache is images, so that there is nothing of its own to prune.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use ketch_engine_api::host_config::Resources;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::images::arriving;
use super::registries::{parse_platform, told};

use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::build::{Logins, Options, build};
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::image::reference::Reference;

/// What a prune may be told to leave, in bytes.
const SPACES: &[&str] = &["reserved-space", "keep-storage", "max-used-space", "min-free-space"];

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/build", build_one);
    router.on(Method::POST, "/build/prune", prune);
    router.on(Method::POST, "/build/cancel", cancel);
}

async fn build_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let options = options(&daemon, &request)?;
    let body = arriving(request.body);
    told(|progress| async move { build(&daemon, options, body, &progress).await }).await
}

/// JSON in the query.
fn decoded<T: DeserializeOwned + Default>(request: &Request, key: &str, what: &str) -> Result<T> {
    let Some(text) = request.query.text(key) else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("error reading {what}: {error}")))
}

fn options(daemon: &Daemon, request: &Request) -> Result<Options> {
    let query = &request.query;
    let text = |key: &str| query.value(key).unwrap_or_default().to_owned();
    // What is no number is 0, as dockerd has it.
    let number = |key: &str| query.text(key).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    if query.value("securityopt").is_some() {
        return Err(Error::invalid("security options are not supported on linux"));
    }
    let platform = query.text("platform").filter(|_| request.version >= ApiVersion::v1(32));
    let platform = platform.map(parse_platform).transpose()?;
    let invalid_size =
        |text: &str| Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    let shm_size =
        query.text("shmsize").map(|text| text.parse().map_err(|_| invalid_size(text))).transpose()?;
    let isolation = text("isolation");
    if !matches!(isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!("unsupported isolation: {isolation:?}")));
    }
    match query.text("version") {
        None | Some("1") => {}
        Some("2") => {
            let text = "BuildKit is not served by ketchd: use the docker-container driver (docker buildx create --use), or DOCKER_BUILDKIT=0";
            return Err(Error::new(Kind::NotImplemented, text));
        }
        Some(other) => return Err(Error::invalid(format!("invalid version {other:?}"))),
    }
    if query.flag("squash") {
        return Err(match daemon.config.experimental {
            false => Error::invalid("squash is only supported with experimental mode"),
            true => Error::new(Kind::NotImplemented, "squash is not supported"),
        });
    }
    if let Some(remote) = query.text("remote") {
        let text = format!("building from {remote} is not supported: fetch it, and send it as the context");
        return Err(Error::new(Kind::NotImplemented, text));
    }
    let force_remove = query.flag("forcerm");
    Ok(Options {
        dockerfile: query.text("dockerfile").unwrap_or("Dockerfile").to_owned(),
        tags: tags(query.values("t"))?,
        target: text("target"),
        platform,
        args: decoded(request, "buildargs", "build args")?,
        labels: decoded(request, "labels", "labels")?,
        cache_from: decoded(request, "cachefrom", "cache-from")?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        remove: force_remove || query.text("rm").is_none() || query.flag("rm"),
        force_remove,
        quiet: query.flag("q"),
        aux: request.version >= ApiVersion::v1(30),
        network: text("networkmode"),
        shm_size: shm_size.unwrap_or(0),
        extra_hosts: query.values("extrahosts").map(str::to_owned).collect(),
        resources: Resources {
            cgroup_parent: text("cgroupparent"),
            cpu_shares: number("cpushares"),
            cpu_period: number("cpuperiod"),
            cpu_quota: number("cpuquota"),
            cpuset_cpus: text("cpusetcpus"),
            cpuset_mems: text("cpusetmems"),
            memory: number("memory"),
            memory_swap: number("memswap"),
            ..Resources::default()
        },
        ulimits: decoded(request, "ulimits", "ulimit settings")?,
        logins: logins(request.header("x-registry-config")),
    })
}

fn tags<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Reference>> {
    let mut tags: Vec<Reference> = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let reference: Reference = name
            .parse()
            .map_err(|error: crate::image::reference::ReferenceError| Error::invalid(error.to_string()))?;
        if reference.digest.is_some() {
            return Err(Error::new(Kind::Internal, "build tag cannot contain a digest"));
        }
        let reference = reference.with_default_tag();
        if !tags.contains(&reference) {
            tags.push(reference);
        }
    }
    Ok(tags)
}

/// As in dockerd, what can't be read is nobody.
fn logins(header: Option<&str>) -> Logins {
    let text = header.unwrap_or_default().trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    Logins(serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn prune(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let _any = Filters::unchecked(&request.query)?;
    let spaces = if request.version < ApiVersion::v1(48) { &SPACES[1..2] } else { SPACES };
    for name in spaces {
        let Some(text) = request.query.text(name) else { continue };
        let _bytes: i64 = text.parse().map_err(|_| {
            Error::invalid(format!(
                "{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
            ))
        })?;
    }
    let reclaimed = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
    daemon.events.publish("builder", "prune", "", reclaimed);
    response::json(StatusCode::OK, &json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}

/// A classic build ends with its connection; of another kind there is none.
async fn cancel(_: Arc<Daemon>, request: Request) -> Result<Response> {
    if request.query.text("id").is_none() {
        return Err(Error::invalid("build ID not provided"));
    }
    let mut response = response::empty(StatusCode::OK);
    let _none = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
