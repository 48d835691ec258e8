//! Images: lists, inspection, names, removal, archives, and what registries have.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use ketch_engine_api::image::Inspect;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::body::RequestBody;
use crate::api::filters::Filters;
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::version::ApiVersion;
use crate::blocking::Arriving;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::image::load::LoadOptions;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::spec::Platform;
use crate::image::{Images, ListOptions, PruneOptions, RemoveOptions, User};
use crate::timestamp::Timestamp;

const LIST_FILTERS: &[&str] = &["dangling", "label", "before", "since", "until", "reference"];
const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];
const JSON: &str = "application/json";

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/images/json", list);
    router.on(Method::GET, "/images/get", save_several);
    router.on(Method::GET, "/images/{*}/json", inspect);
    router.on(Method::GET, "/images/{*}/history", history);
    router.on(Method::GET, "/images/{*}/get", save_one);
    router.on(Method::POST, "/images/load", load);
    router.on(Method::POST, "/images/prune", prune);
    router.on(Method::POST, "/images/{*}/tag", tag);
    router.on(Method::DELETE, "/images/{*}", remove);
}

/// A call that blocks, on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    call: impl FnOnce(&Images) -> Result<T> + Send + 'static,
) -> Result<T> {
    let images = daemon.images.clone();
    crate::blocking::blocking(move || call(&images)).await
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

async fn list(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, LIST_FILTERS)?;
    let version = request.version;
    let texts = |key: &str| filters.values(key).map(str::to_owned).collect::<Vec<_>>();
    let mut references = texts("reference");
    if version < ApiVersion::v1(41) {
        references.extend(request.query.text("filter").map(str::to_owned));
    }
    let until = filters
        .values("until")
        .map(|text| Timestamp::of_filter(text, Timestamp::now()))
        .collect::<Result<Vec<_>>>()?;
    let options = ListOptions {
        all: request.query.flag("all"),
        shared_size: version >= ApiVersion::v1(42) && request.query.flag("shared-size"),
        dangling: filters.flag("dangling")?,
        before: texts("before"),
        since: texts("since"),
        until: until.into_iter().min(),
        references,
        labels: texts("label"),
    };
    let mut listed = daemon.images.list(&options)?;
    for image in &mut listed {
        if version < ApiVersion::v1(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
            image.repo_tags.push("<none>:<none>".to_owned());
            image.repo_digests.push("<none>@<none>".to_owned());
        }
        if version < ApiVersion::v1(44) {
            image.virtual_size = Some(image.size);
        }
        if version < ApiVersion::v1(51) {
            image.containers = -1;
        }
    }
    let mut listed =
        serde_json::to_value(listed).map_err(|error| Error::internal("encoding images", &error))?;
    if version < ApiVersion::v1(43) {
        for image in listed.as_array_mut().into_iter().flatten() {
            without_empty_lists(image);
        }
    }
    response::json(StatusCode::OK, &listed)
}

/// No names or digests were `null` before 1.43, and are in the disk's use.
pub(super) fn without_empty_lists(image: &mut Value) {
    for field in ["RepoTags", "RepoDigests"] {
        if image[field].as_array().is_some_and(Vec::is_empty) {
            image[field] = Value::Null;
        }
    }
}

async fn inspect(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let manifests = request.version >= ApiVersion::v1(48) && request.query.flag("manifests");
    let platform = platform(&request, 49)?;
    if manifests && platform.is_some() {
        return Err(Error::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let name = request.operand(0);
    if let Some(platform) = platform {
        daemon.images.find_for(name, &platform)?;
    }
    let shown = daemon.images.inspect(name)?;
    response::json(StatusCode::OK, &for_version(shown, request.version))
}

/// What older versions show more of, and a config's keys that are there even if the image has none.
fn for_version(mut shown: Inspect, version: ApiVersion) -> Inspect {
    if version < ApiVersion::v1(44) {
        shown.virtual_size = Some(shown.size);
        if shown.created.is_empty() {
            shown.created = Timestamp::NEVER.to_string();
        }
    }
    if version >= ApiVersion::v1(45) {
        shown.container = String::new();
        shown.container_config = None;
    } else if shown.container_config.is_none() {
        // docker-compose 1.29 reads it whether or not the image has one.
        shown.container_config = Some(no_container_config());
    }
    let mut config: BTreeMap<String, Value> = shown.config.into_iter().collect();
    let mut always = |keys: &[&str], value: &Value| {
        for key in keys {
            let _kept = config.entry((*key).to_owned()).or_insert_with(|| value.clone());
        }
    };
    always(&["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"], &Value::Null);
    always(&["User", "WorkingDir"], &json!(""));
    if version < ApiVersion::v1(50) {
        always(&["Domainname", "Hostname", "Image"], &json!(""));
        let flags = ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"];
        always(&flags, &Value::Bool(false));
    }
    shown.config = config.into_iter().collect();
    shown
}

/// The settings of a container that says nothing, as Go has them.
fn no_container_config() -> Value {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    })
}

/// The `platform` of a request, from the version on that has it as JSON.
fn platform(request: &Request, since: u16) -> Result<Option<Platform>> {
    let Some(text) = request.query.text("platform").filter(|_| request.version >= ApiVersion::v1(since))
    else {
        return Ok(None);
    };
    let parsed: Platform = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("failed to parse platform: {error}")))?;
    if parsed.os.is_empty() || parsed.architecture.is_empty() {
        return Err(Error::invalid("both OS and Architecture must be provided"));
    }
    Ok(Some(parsed))
}

async fn history(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0);
    if let Some(platform) = platform(&request, 48)? {
        daemon.images.find_for(name, &platform)?;
    }
    response::json(StatusCode::OK, &daemon.images.history(name)?)
}

async fn tag(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let text = |key| request.query.value(key).unwrap_or_default();
    let name = Reference::of_repository(text("repo"), text("tag")).map_err(|error| invalid(&error))?;
    let name = name.ok_or_else(|| Error::invalid("invalid reference format"))?;
    if name.familiar_name() == "sha256" {
        return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    // dockerd finds nothing by a name that is none, here.
    let image =
        daemon.images.find(request.operand(0)).map_err(|error| Error { kind: Kind::NotFound, ..error })?;
    blocking(&daemon, move |images| images.tag(&image, &name)).await?;
    Ok(response::empty(StatusCode::CREATED))
}

/// Who has images: a removal asks.
fn users(daemon: &Daemon) -> Vec<User> {
    let roots = daemon.images.roots().into_iter();
    roots
        .map(|(container, image)| {
            let running = daemon.engine.find(&container).is_ok_and(|container| container.is_running());
            User { container, image, running }
        })
        .collect()
}

async fn remove(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.operand(0).to_owned();
    if name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let options = RemoveOptions {
        force: request.query.flag("force"),
        keep_parents: request.query.flag("noprune"),
        users: users(&daemon),
    };
    let done = blocking(&daemon, move |images| images.remove(&name, &options)).await?;
    response::json(StatusCode::OK, &done)
}

async fn prune(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, PRUNE_FILTERS)?;
    let mut moments = filters.values("until");
    let until = moments.next().map(|text| Timestamp::of_filter(text, Timestamp::now())).transpose()?;
    if moments.next().is_some() {
        return Err(Error::new(Kind::Internal, "more than one until filter specified"));
    }
    let options = PruneOptions {
        all: filters.flag("dangling")? == Some(false),
        until,
        labels: filters.values("label").map(str::to_owned).collect(),
        not_labels: filters.values("label!").map(str::to_owned).collect(),
        users: users(&daemon),
    };
    let pruned = blocking(&daemon, move |images| images.prune(&options)).await?;
    response::json(StatusCode::OK, &pruned)
}

async fn load(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let options =
        LoadOptions { quiet: request.query.flag_or("quiet", true), platform: platform(&request, 48)? };
    let (sender, response) = response::stream(JSON);
    let progress = Progress::to(sender);
    let images = daemon.images.clone();
    let body = arriving(request.body);
    let _task = tokio::task::spawn_blocking(move || {
        if let Err(error) = images.load(body, &options, &progress) {
            progress.error(&error);
        }
    });
    Ok(response)
}

async fn save_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let names = vec![request.operand(0).to_owned()];
    save(&daemon, &request, names)
}

async fn save_several(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let names = request.query.values("names").map(str::to_owned).collect();
    save(&daemon, &request, names)
}

fn save(daemon: &Arc<Daemon>, request: &Request, names: Vec<String>) -> Result<Response> {
    if let Some(platform) = platform(request, 48)? {
        for name in &names {
            daemon.images.find_for(name, &platform)?;
        }
    }
    let selection = daemon.images.select(&names)?;
    let (sending, response) = Sending::begin("application/x-tar");
    let images = daemon.images.clone();
    let _task = tokio::task::spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(128 << 10, sending.clone());
        sending.end(images.save(&selection, writer).map_err(|error| {
            tracing::warn!("saving {names:?}: {error}");
            io::Error::other(error)
        }));
    });
    Ok(response)
}

/// A response's archive, written to by a thread that may block.
#[derive(Clone)]
pub(super) struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Sending {
    pub(super) fn begin(content_type: &'static str) -> (Self, Response) {
        let (sender, response) = response::archive(content_type);
        (Self(sender), response)
    }

    /// Behind all that was written: an archive that is not whole must not seem so.
    pub(super) fn end(self, written: io::Result<()>) {
        if let Err(error) = written {
            // The client may have gone, which is as good.
            let _gone = self.0.blocking_send(Err(error));
        }
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What waits between the connection and the thread: a few buffers, so that neither waits for each of the other's.
const QUEUE: usize = 16;

/// A request's body for a thread that may block, once it has begun, of a client that may not stop for longer than `patience`: somebody
/// waits for what is done with it.
///
/// # Errors
/// It does not begin in that time.
pub(super) async fn arriving_once_begun(mut body: RequestBody, patience: Duration) -> Result<Arriving> {
    let late = move |_| io::Error::other(format!("the client has sent nothing for {} s", patience.as_secs()));
    let next = async move |body: &mut RequestBody| -> Option<io::Result<Bytes>> {
        match tokio::time::timeout(patience, body.frame()).await {
            Ok(frame) => {
                Some(frame?.map(|frame| frame.into_data().unwrap_or_default()).map_err(io::Error::other))
            }
            Err(elapsed) => Some(Err(late(elapsed))),
        }
    };
    let Some(present) = next(&mut body).await else {
        let (_ended, frames) = mpsc::channel(1);
        return Ok(Arriving::new(Bytes::new(), frames));
    };
    let present = present.map_err(|error| Error::invalid(error.to_string()))?;
    let (sender, frames) = mpsc::channel(QUEUE);
    drop(tokio::spawn(async move {
        while let Some(bytes) = next(&mut body).await {
            let failed = bytes.is_err();
            if sender.send(bytes).await.is_err() || failed {
                return;
            }
        }
    }));
    Ok(Arriving::new(present, frames))
}

/// A request's body for a thread that may block. From inside a task.
pub(super) fn arriving(mut body: RequestBody) -> Arriving {
    let (sender, frames) = mpsc::channel(QUEUE);
    // It ends with the body, or when nobody reads any more.
    drop(tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let failed = frame.is_err();
            let bytes = frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(io::Error::other);
            if sender.send(bytes).await.is_err() || failed {
                return;
            }
        }
    }));
    Arriving::new(Bytes::new(), frames)
}
