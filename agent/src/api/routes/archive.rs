//! Files to and from containers, as tars: `docker cp`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::images::{Sending, arriving_once_begun};
use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::archive::PathStat;
use crate::daemon::Daemon;
use crate::engine::copy::{self, Asked};
use crate::error::{Error, Result};

/// How long a client may send nothing of an archive.
const STALLED: Duration = Duration::from_secs(120);
const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub(super) fn add(router: &mut Router) {
    router.on(Method::HEAD, "/containers/{}/archive", look);
    router.on(Method::GET, "/containers/{}/archive", read);
    router.on(Method::PUT, "/containers/{}/archive", write);
}

fn asked(daemon: &Daemon, request: &Request) -> Result<Asked> {
    let path = request
        .query
        .text("path")
        .ok_or_else(|| Error::invalid("bad parameter: pathcannot be empty"))?
        .to_owned();
    let name = request.operand(0).to_owned();
    Ok(Asked { container: daemon.engine.find(&name)?, name, path })
}

fn with_stat(mut response: Response, stat: &PathStat) -> Result<Response> {
    let failed = |error: &dyn std::error::Error| Error::invalid(format!("encoding a file's name: {error}"));
    let json = serde_json::to_vec(stat).map_err(|error| failed(&error))?;
    let value = HeaderValue::from_str(&STANDARD.encode(json)).map_err(|error| failed(&error))?;
    let _none = response.headers_mut().insert(STAT, value);
    Ok(response)
}

async fn look(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = asked(&daemon, &request)?;
    let stat = copy::stat(&daemon, asked).await?;
    with_stat(response::empty(StatusCode::OK), &stat)
}

async fn read(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = asked(&daemon, &request)?;
    let (stat, reading) = copy::read(&daemon, asked).await?;
    let accepted = request.header("accept-encoding").unwrap_or_default();
    let gzip = accepted.split(',').any(|one| one.split(';').next().is_some_and(|name| name.trim() == "gzip"));
    let (sending, response) = Sending::begin("application/x-tar");
    let mut response = with_stat(response, &stat)?;
    let stream = io::BufWriter::with_capacity(128 << 10, sending.clone());
    let end = move |written| sending.end(written);
    let writing = if gzip {
        let _none = response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        tokio::spawn(reading.write_to(GzEncoder::new(stream, Compression::default()), end))
    } else {
        tokio::spawn(reading.write_to(stream, end))
    };
    drop(writing);
    Ok(response)
}

async fn write(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let asked = asked(&daemon, &request)?;
    let (keeps, as_user) = (request.query.flag("noOverwriteDirNonDir"), request.query.flag("copyUIDGID"));
    // A container that does not run waits for its end; what it is from may be the same container.
    let stream = arriving_once_begun(request.body, STALLED).await?;
    copy::write(&daemon, asked, keeps, as_user, stream).await?;
    Ok(response::empty(StatusCode::OK))
}
