//! Containers: from create to remove, what they do and what they say.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_engine_api::container::{CreateBody, Created, Updated, Waited};
use ketch_engine_api::host_config::{NAMES, UpdateBody};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api;
use crate::api::elsewhere::{self, listing};
use crate::api::filters::Filters;
use crate::api::hijack;
use crate::api::request::{self, Request};
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::api::stdcopy::{self, Stream};
use crate::api::version::ApiVersion;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::engine::container::Container;
use crate::engine::remove::Remove;
use crate::engine::signal::Stop;
use crate::engine::wait::{self, Condition};
use crate::engine::{create, inspect, lifecycle, list, log_entries, remove, signal, stats, top, update};
use crate::error::{Error, Kind, Result};
use crate::image::spec::Platform;
use crate::logs;
use crate::timestamp::Timestamp;

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/containers/json", list_all);
    router.on(Method::POST, "/containers/create", create_one);
    router.on(Method::POST, "/containers/prune", prune);
    router.on(Method::GET, "/containers/{}/json", inspect_one);
    router.on(Method::GET, "/containers/{}/top", top_one);
    router.on(Method::GET, "/containers/{}/logs", logs_of);
    router.on(Method::GET, "/containers/{}/stats", stats_of);
    router.on(Method::POST, "/containers/{}/start", start);
    router.on(Method::POST, "/containers/{}/stop", stop);
    router.on(Method::POST, "/containers/{}/restart", restart);
    router.on(Method::POST, "/containers/{}/kill", kill);
    router.on(Method::POST, "/containers/{}/pause", pause);
    router.on(Method::POST, "/containers/{}/unpause", unpause);
    router.on(Method::POST, "/containers/{}/wait", wait_for);
    router.on(Method::POST, "/containers/{}/resize", resize);
    router.on(Method::POST, "/containers/{}/rename", rename);
    router.on(Method::POST, "/containers/{}/update", update_one);
    router.on(Method::DELETE, "/containers/{}", remove_one);
}

pub(super) fn find(daemon: &Daemon, request: &Request) -> Result<Arc<Container>> {
    daemon.engine.find(request.operand(0))
}

/// The JSON body, or what an empty one means.
pub(super) async fn body<T: DeserializeOwned + Default>(request: Request) -> Result<T> {
    Ok(request.json_or_nothing().await?.unwrap_or_default())
}

async fn list_all(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    if listing::is_asked(&request.query) && elsewhere::is_manager(&daemon) {
        return listing::list(daemon, request).await;
    }
    let filters = Filters::of(&request.query, &list::FILTERS)?;
    let limit = request.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let wanted = list::Wanted {
        all: request.query.flag("all"),
        limit: limit.filter(|limit| *limit > 0),
        size: request.query.flag("size"),
        filters,
    };
    response::json(StatusCode::OK, &blocking(move || list::list(&daemon, &wanted)).await?)
}

fn mounts_image(body: &CreateBody) -> bool {
    let mounts = body.placing.host_config.as_ref().and_then(|host_config| host_config.mounts.as_ref());
    mounts.is_some_and(|mounts| mounts.iter().any(|one| one.kind == "image"))
}

async fn create_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let name = request.query.value("name").unwrap_or_default().to_owned();
    let platform = request.query.text("platform").filter(|_| request.version >= ApiVersion::v1(41));
    let platform = platform.map(str::to_owned);
    let version = request.version;
    let mut asked: Value = request.json().await?;
    api::json::rename(&mut asked, &["HostConfig", "NetworkingConfig"]);
    if let Some(host_config) = asked.get_mut("HostConfig") {
        api::json::rename(host_config, &NAMES);
    }
    // Any other field is the configuration's, which is there if one is.
    let is_config = |field: &String| !matches!(field.as_str(), "HostConfig" | "NetworkingConfig");
    if asked.is_null() || asked.as_object().is_some_and(|fields| !fields.keys().any(is_config)) {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    let body = CreateBody { config: api::json::of_value(&asked)?, placing: api::json::of_value(&asked)? };
    if version < ApiVersion::v1(48) && mounts_image(&body) {
        return Err(Error::invalid("Mount type \"Image\" needs API v1.48 or newer"));
    }
    if let Some(platform) = platform {
        let platform = Platform::parse(&platform)
            .ok_or_else(|| Error::invalid(format!("{platform:?} is an invalid component of a platform")))?;
        let _fits = daemon.images.find_for(&body.config.image, &platform)?;
    }
    let has_address = version >= ApiVersion::v1(44) && !body.config.mac_address.is_empty();
    let mut made = create::create(&daemon, &name, body).await?;
    if has_address {
        made.warnings.push("The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned());
    }
    response::json(StatusCode::CREATED, &Created { id: made.id, warnings: made.warnings })
}

async fn inspect_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let size = request.query.flag("size");
    let mut shown = blocking(move || Ok(inspect::inspect(&daemon, &container, size))).await?;
    if request.version < ApiVersion::v1(45) {
        inspect::with_id_among_aliases(&mut shown);
    }
    response::json(StatusCode::OK, &shown)
}

async fn top_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let arguments = request.query.value("ps_args").unwrap_or_default();
    response::json(StatusCode::OK, &top::top(&container, arguments).await?)
}

async fn start(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    // Before 1.24 a HostConfig was taken here.
    let length = request.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > 7) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let checkpoint = request.query.text("checkpoint");
    if checkpoint.is_some() && !daemon.config.experimental {
        return Err(Error::invalid("checkpoint is only supported in experimental mode"));
    }
    let container = find(&daemon, &request)?;
    if request.query.text("checkpoint-dir").is_some() {
        lifecycle::may_start(&container)?;
        return Err(Error::new(Kind::Forbidden, "custom checkpointdir is not supported"));
    }
    lifecycle::start_from(&daemon, &container, checkpoint).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

fn how(request: &Request) -> Result<Stop> {
    let signal = request.query.text("signal").filter(|_| request.version >= ApiVersion::v1(42));
    Ok(Stop { signal: signal.map(signal::number).transpose()?, timeout: request.query.number("t")? })
}

async fn stop(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (how, container) = (how(&request)?, find(&daemon, &request)?);
    signal::stop(&daemon, &container, how).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn restart(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (how, container) = (how(&request)?, find(&daemon, &request)?);
    let asked = request.operand(0).to_owned();
    signal::restart(&daemon, &container, how).await.map_err(|error| {
        Error::new(error.kind, format!("Cannot restart container {asked}: {}", error.message))
    })?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn kill(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = request.operand(0).to_owned();
    let cannot = move |error: Error| {
        Error::new(error.kind, format!("cannot kill container: {asked}: {}", error.message))
    };
    let signal = request.query.text("signal").map(signal::number).transpose().map_err(&cannot)?;
    let container = find(&daemon, &request).map_err(&cannot)?;
    signal::kill(&daemon, &container, signal.unwrap_or(0)).await.map_err(&cannot)?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn pause(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    signal::pause(&daemon, &container).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn unpause(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    signal::unpause(&daemon, &container).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Height and width, which both have to be there.
pub(super) fn size(request: &Request) -> Result<(u32, u32)> {
    let side = |key: &str| -> Result<u32> {
        let text = request.query.value(key).unwrap_or_default();
        text.parse::<i64>()
            .map_err(|error| request::unfit(&error))
            .and_then(|side| u32::try_from(side).map_err(|_| "value out of range"))
            .map_err(|why| {
                let side = if key == "h" { "height" } else { "width" };
                Error::invalid(format!("invalid resize {side} {text:?}: {why}"))
            })
    };
    Ok((side("h")?, side("w")?))
}

async fn resize(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let (height, width) = size(&request)?;
    let container = find(&daemon, &request)?;
    signal::resize(&daemon, &container, height, width).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn rename(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let name = request.query.value("name").unwrap_or_default().to_owned();
    update::rename(&daemon, &container, &name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn update_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = request.operand(0).to_owned();
    let mut body: Value = body(request).await?;
    api::json::rename(&mut body, &NAMES);
    let body: UpdateBody = if body.is_null() { UpdateBody::default() } else { api::json::of_value(&body)? };
    update::check(&daemon, &body)?;
    let container = daemon.engine.find(&asked)?;
    let warnings = update::update(&daemon, &container, body).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    response::json(StatusCode::OK, &Updated { warnings })
}

async fn remove_one(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let asked = request.operand(0).to_owned();
    let how = Remove { force: request.query.flag("force"), volumes: request.query.flag("v") };
    if request.query.flag("link") {
        let text = "Conflict, cannot remove the default link name of the container";
        return Err(Error::new(Kind::Internal, text));
    }
    remove::remove(&daemon, &container, &asked, how).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn prune(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let filters = Filters::of(&request.query, &["label", "label!", "until"])?;
    let pruned = remove::prune(&daemon, &filters).await?;
    response::json(
        StatusCode::OK,
        &json!({ "ContainersDeleted": pruned.ids, "SpaceReclaimed": pruned.bytes }),
    )
}

async fn wait_for(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let condition = Condition::of(request.query.value("condition").unwrap_or_default())?;
    let container = find(&daemon, &request)?;
    let end = wait::wait(&container, condition);
    // The headers are out before the wait: clients start the container once they have them.
    let (sender, response) = response::stream("application/json");
    drop(tokio::spawn(async move {
        let life = tokio::select! {
            life = end => life,
            () = sender.closed() => return,
        };
        let answer = Waited { status_code: life.exit_code };
        let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
        bytes.push(b'\n');
        let _gone = sender.send(bytes.into()).await;
    }));
    Ok(response)
}

pub(super) fn stream_of(stream: logs::Stream) -> Stream {
    match stream {
        logs::Stream::Stdout => Stream::Stdout,
        logs::Stream::Stderr => Stream::Stderr,
    }
}

async fn logs_of(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let query = &request.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !(stdout || stderr) {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let container = find(&daemon, &request)?;
    let time = |key: &str| query.text(key).filter(|text| *text != "0").map(Timestamp::of_query).transpose();
    let options = logs::Options {
        since: time("since")?,
        until: time("until")?,
        // As Docker: what is no number is all.
        tail: query.text("tail").and_then(|tail| tail.parse().ok()),
        follow: query.flag("follow"),
    };
    let (timestamps, details) = (query.flag("timestamps"), query.flag("details"));
    let terminal = container.read(|record| record.config.tty);
    let mut entries = log_entries::read(&daemon, &container, options).await?;
    let content_type = hijack::content_type(request.version, terminal);
    let (sender, response) = response::stream(content_type);
    drop(tokio::spawn(async move {
        loop {
            let entry = tokio::select! {
                entry = entries.recv() => entry,
                () = sender.closed() => return,
            };
            let bytes = match entry {
                None => return,
                Some(Ok(entry)) => {
                    let stream = stream_of(entry.stream);
                    if !(stream == Stream::Stdout && stdout || stream == Stream::Stderr && stderr) {
                        continue;
                    }
                    let line = entry.printed(timestamps, details);
                    if terminal { line.into() } else { stdcopy::frame(stream, &line) }
                }
                Some(Err(error)) => {
                    let text = format!("Error grabbing logs: {}\n", error.message);
                    stdcopy::frame(Stream::System, text.as_bytes())
                }
            };
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
    }));
    Ok(response)
}

async fn stats_of(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let container = find(&daemon, &request)?;
    let stream = request.query.flag_or("stream", true);
    let one_shot = request.query.flag("one-shot");
    if stream && one_shot {
        return Err(Error::invalid("cannot have stream=true and one-shot=true"));
    }
    if !stream {
        let shown = stats::once(&daemon, &container, one_shot).await?;
        return response::json(StatusCode::OK, &shown);
    }
    let (sender, response) = response::stream("application/json");
    drop(tokio::spawn(async move { stats::stream(&daemon, &container, sender).await }));
    Ok(response)
}
