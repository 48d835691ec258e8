//! What registries have: pull, push, distribution, login; and import.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::container::Config;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::images::arriving;
use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::dockerfile;
use crate::engine::image_config;
use crate::error::{Error, Kind, Result};
use crate::image::import::ImportOptions;
use crate::image::progress::Progress;
use crate::image::reference::{AnyReference, Reference, ReferenceError};
use crate::image::registry::auth::Credentials;
use crate::image::registry::pull::PullOptions;
use crate::image::registry::push::PushOptions;
use crate::image::registry::search::SearchOptions;
use crate::image::spec::Platform;

const JSON: &str = "application/json";
const CREDENTIALS: &str = "x-registry-auth";

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/images/create", create);
    router.on(Method::POST, "/images/{*}/push", push);
    router.on(Method::GET, "/distribution/{*}/json", distribution);
    router.on(Method::POST, "/auth", login);
    router.on(Method::GET, "/images/search", search);
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives values")]
fn invalid(error: ReferenceError) -> Error {
    Error::invalid(error.to_string())
}

/// Runs what tells how it goes. An error in front of the first message is the request's; one behind it is the last message.
pub(super) async fn told<F>(work: impl FnOnce(Progress) -> F) -> Result<Response>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, response) = response::stream(JSON);
    let (begun, mut first) = watch::channel(false);
    let (failing, failed) = oneshot::channel();
    let left = sender.clone();
    let progress = Progress::to(sender).telling(begun);
    let work = work(progress.clone());
    drop(tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = work => outcome,
            // A client that leaves takes its request along.
            () = left.closed() => return,
        };
        match outcome {
            Err(error) if progress.has_begun() => progress.error(&error),
            Err(error) => drop(failing.send(error)),
            Ok(()) => {}
        }
    }));
    tokio::select! {
        biased;
        Ok(error) = failed => Err(error),
        _ = first.wait_for(|begun| *begun) => Ok(response),
    }
}

async fn create(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let platform = match request.query.text("platform").filter(|_| request.version >= ApiVersion::v1(32)) {
        Some(text) => Some(parse_platform(text)?),
        None => None,
    };
    let images = daemon.images.clone();
    let tag = request.query.text("tag").unwrap_or_default().to_owned();
    let Some(name) = request.query.text("fromImage") else { return import(daemon, request, platform).await };
    // `docker pull --all-tags` sends a colon behind the name.
    let mut reference: Reference = name.trim_end_matches(':').parse().map_err(invalid)?;
    if !tag.is_empty() {
        reference = match tag.parse() {
            Ok(digest) => reference.with_digest(digest),
            Err(_) => reference.with_tag(&tag).map_err(invalid)?,
        };
    }
    if reference.familiar_name() == "scratch" {
        return Err(Error::new(Kind::Forbidden, "'scratch' is a reserved name"));
    }
    let credentials = Credentials::of_header(request.header(CREDENTIALS));
    let options = PullOptions { reference, platform, credentials };
    told(|progress| async move { images.pull(&options, &progress).await }).await
}

pub(super) fn parse_platform(text: &str) -> Result<Platform> {
    Platform::parse(text).ok_or_else(|| {
        let fits = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        let part = text.split('/').find(|part| !fits(part)).unwrap_or(text);
        Error::invalid(format!("{part:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"))
    })
}

async fn import(daemon: Arc<Daemon>, request: Request, platform: Option<Platform>) -> Result<Response> {
    let text = |key| request.query.value(key).unwrap_or_default().to_owned();
    let (source, mut message) = (text("fromSrc"), text("message"));
    let reference = Reference::of_repository(&text("repo"), &text("tag")).map_err(invalid)?;
    if message.is_empty() {
        message = format!("Imported from {source}");
    }
    if source != "-" {
        return Err(Error::new(
            Kind::NotImplemented,
            "importing from a URL is not supported: fetch it, and import the file",
        ));
    }
    let changes: Vec<String> = request.query.values("changes").map(str::to_owned).collect();
    let config = image_config::of_image(&dockerfile::changed(Config::default(), &changes)?)?;
    let options = ImportOptions { reference, platform, message, config };
    let images = daemon.images.clone();
    let body = arriving(request.body);
    told(|progress| async move {
        let id = blocking(move || images.import(body, &options)).await?;
        progress.status(&id.to_string());
        Ok(())
    })
    .await
}

async fn push(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0);
    let reference = match request.query.text("tag") {
        Some(tag) => Reference::of_repository(name, tag).map_err(invalid)?,
        None => Some(name.parse().map_err(invalid)?),
    };
    let reference = reference.ok_or_else(|| Error::invalid("invalid reference format"))?;
    let credentials = Credentials::of_header(request.header(CREDENTIALS));
    let options = PushOptions { reference, credentials };
    let images = daemon.images.clone();
    told(|progress| async move { images.push(&options, &progress).await }).await
}

async fn distribution(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let reference = match request.operand(0).parse().map_err(invalid)? {
        AnyReference::Named(reference) => reference,
        AnyReference::Id(_) => return Err(Error::new(Kind::Internal, "no manifest found for full image ID")),
    };
    let credentials = Credentials::of_header(request.header(CREDENTIALS));
    response::json(StatusCode::OK, &daemon.images.distribution(&reference, &credentials).await?)
}

async fn search(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["is-automated", "is-official", "stars"])?;
    let flag = |key: &str| {
        filters.flag(key).map_err(|_| {
            let value = filters.values(key).next().unwrap_or_default();
            Error::invalid(format!("invalid filter '{key}=[{value}]'"))
        })
    };
    let mut stars = None;
    for text in filters.values("stars") {
        let count: i64 = text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid filter 'stars={text}': strconv.Atoi: parsing {text:?}: invalid syntax"
            ))
        })?;
        stars = stars.max(Some(count));
    }
    let options = SearchOptions {
        term: request.query.text("term").unwrap_or_default().to_owned(),
        limit: request
            .query
            .number::<i64>("limit")
            .map_err(|error| Error::invalid(format!("invalid limit specified: {}", error.message)))?,
        official: flag("is-official")?,
        automated: flag("is-automated")?,
        stars,
        credentials: Credentials::of_header(request.header(CREDENTIALS)),
    };
    response::json(StatusCode::OK, &daemon.images.search(&options).await?)
}

async fn login(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let credentials: Credentials = request.json().await?;
    let identity = daemon.images.login(&credentials).await?;
    response::json(StatusCode::OK, &json!({ "IdentityToken": identity, "Status": "Login Succeeded" }))
}
