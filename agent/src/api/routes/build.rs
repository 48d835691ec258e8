//! Builds, and what they leave: the classic builder's cache is images, so that there is nothing of its own to prune.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What a prune may be told to leave, in bytes.
const SPACES: &[&str] = &["reserved-space", "keep-storage", "max-used-space", "min-free-space"];

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/build/prune", prune);
    router.on(Method::POST, "/build/cancel", cancel);
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
