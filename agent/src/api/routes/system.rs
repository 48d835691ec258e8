//! The daemon itself: whether it is there, its version, its events.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA};
use hyper::{Method, StatusCode};

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version;
use crate::daemon::Daemon;
use crate::error::Result;

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/_ping", ping);
    router.on(Method::HEAD, "/_ping", ping);
    router.on(Method::GET, "/version", show_version);
}

async fn ping(_: Arc<Daemon>, request: Request) -> Result<Response> {
    let body = if request.parts.method == Method::HEAD { Bytes::new() } else { Bytes::from_static(b"OK") };
    let mut response = response::bytes(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = response.headers_mut();
    for (name, value) in [
        (HeaderName::from_static("builder-version"), "1"),
        (HeaderName::from_static("docker-experimental"), "false"),
        (HeaderName::from_static("swarm"), "inactive"),
        (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (PRAGMA, "no-cache"),
    ] {
        let _none = headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn show_version(_: Arc<Daemon>, _: Request) -> Result<Response> {
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    response::json(
        StatusCode::OK,
        &serde_json::json!({
            "Platform": { "Name": "ketch" },
            "Components": [{
                "Name": "Engine",
                "Version": crate::VERSION,
                "Details": {
                    "ApiVersion": version::CURRENT.to_string(),
                    "Arch": "amd64",
                    "Experimental": "false",
                    "KernelVersion": kernel,
                    "MinAPIVersion": version::MINIMUM.to_string(),
                    "Os": "linux",
                },
            }],
            "Version": crate::VERSION,
            "ApiVersion": version::CURRENT.to_string(),
            "MinAPIVersion": version::MINIMUM.to_string(),
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": kernel,
        }),
    )
}
