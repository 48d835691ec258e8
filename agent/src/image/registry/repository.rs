//! The distribution protocol for one repository at one endpoint: manifests, blobs, and who we are while asking.

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Endpoint;
use super::auth::{Challenge, Credentials};
use super::connection::{Body, Host, whole};
use super::tls::Trust;
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::image::spec::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, ImageFile, Manifest, OCI_INDEX, OCI_MANIFEST, Platform,
};
use crate::locks::locked;

/// The most that a manifest may have, in bytes: distribution's.
const MANIFEST_LIMIT: usize = 4 << 20;
/// The most that a config or an error may have.
pub(super) const DOCUMENT_LIMIT: usize = 8 << 20;
const REDIRECTS: usize = 5;
/// New tokens for one request.
const TOKENS: usize = 3;
/// Pages of a list of tags.
const PAGES: usize = 10_000;

/// A repository there.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) endpoint: Endpoint,
    pub(super) path: String,
    pub(super) credentials: Credentials,
    /// `pull`, or `pull,push`; none for who only says who he is.
    pub(super) actions: &'static str,
    /// The `Authorization` that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
    /// What a token server gave to stand for the password.
    pub(super) identity: Mutex<String>,
}

/// A manifest as it came.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) manifest: Manifest,
}

/// `GET /distribution/{name}/json`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Distribution {
    descriptor: Descriptor,
    platforms: Option<Vec<Platform>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problems {
    errors: Vec<Problem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    message: String,
}

/// A request that may be sent again, once we know who we have to be.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Made anew for each try.
    pub(super) body: &'a (dyn Fn() -> Body + Send + Sync),
}

impl Fetched {
    /// Of its bytes, and the type that it is said to have where it says none itself.
    ///
    /// # Errors
    /// It is no manifest.
    pub(super) fn read(bytes: Bytes, stated: String) -> Result<Self> {
        let digest = Digest::of(&bytes);
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("the manifest {digest} can't be read: {error}")))?;
        if manifest.schema_version == 1 {
            return Err(Error::invalid(crate::compat::SCHEMA_1));
        }
        let media_type = manifest.media_type.clone().unwrap_or(stated);
        Ok(Self { bytes, digest, media_type, manifest })
    }
}

pub(super) fn nothing() -> Body {
    whole(Bytes::new())
}

impl Repository {
    pub(super) fn new(
        endpoint: Endpoint,
        reference: &Reference,
        credentials: &Credentials,
        actions: &'static str,
    ) -> Self {
        // A mirror is not told the password of what it mirrors.
        let credentials = if endpoint.mirror { Credentials::default() } else { credentials.clone() };
        let path = reference.path.clone();
        let (authorization, identity) = (Mutex::default(), Mutex::default());
        Self { endpoint, path, credentials, actions, authorization, identity }
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.endpoint.mirror
    }

    /// The token that may stand for the password from now on; empty without one.
    pub(super) fn identity_token(&self) -> String {
        locked(&self.identity).clone()
    }

    pub(super) fn address(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint.prefix, self.path)
    }

    /// Whether a registry answers there.
    pub(super) async fn ping(&self) -> Result<Response<Incoming>> {
        self.once(&Ask {
            method: Method::GET,
            path: format!("{}/v2/", self.endpoint.prefix),
            headers: Vec::new(),
            body: &nothing,
        })
        .await
    }

    pub(super) fn root_url(&self) -> String {
        self.endpoint.host.url(&format!("{}/v2/", self.endpoint.prefix))
    }

    /// The same, as whoever the registry asks for.
    pub(super) async fn ping_as(&self, challenge: &Challenge) -> Result<Response<Incoming>> {
        let ask = Ask {
            method: Method::GET,
            path: format!("{}/v2/", self.endpoint.prefix),
            headers: Vec::new(),
            body: &nothing,
        };
        let answered = self.answer(challenge).await;
        let authorization =
            answered.map_err(|error| Error { message: self.failed(&ask, &error.message), ..error })?;
        *locked(&self.authorization) = authorization;
        self.once(&ask).await
    }

    /// The manifest or index of a tag or digest; a digest is verified.
    pub(super) async fn manifest(&self, name: &str, digest: Option<Digest>) -> Result<Fetched> {
        let accepted = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let response = self
            .send(&Ask {
                method: Method::GET,
                path: self.address(&format!("manifests/{name}")),
                headers: vec![(ACCEPT, accepted)],
                body: &nothing,
            })
            .await?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let stated = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let stated = stated.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = read(response, MANIFEST_LIMIT).await?;
        match digest.filter(|wanted| *wanted != Digest::of(&bytes)) {
            Some(wanted) => Err(Error::invalid(format!("manifest verification failed for digest {wanted}"))),
            None => Fetched::read(bytes, stated),
        }
    }

    /// A small blob, verified.
    pub(super) async fn document(&self, digest: Digest) -> Result<Bytes> {
        let response = self.blob(digest, 0).await?;
        let bytes = read(response, DOCUMENT_LIMIT).await?;
        if Digest::of(&bytes) != digest {
            return Err(Error::invalid(format!("image config verification failed for digest {digest}")));
        }
        Ok(bytes)
    }

    /// A blob's bytes from `offset` on, if the registry heeds that: the status tells.
    pub(super) async fn blob(&self, digest: Digest, offset: u64) -> Result<Response<Incoming>> {
        let headers = if offset > 0 { vec![(RANGE, format!("bytes={offset}-"))] } else { Vec::new() };
        let path = self.address(&format!("blobs/{digest}"));
        let response = self.send(&Ask { method: Method::GET, path, headers, body: &nothing }).await?;
        if response.status().is_success() { Ok(response) } else { Err(problem(response).await) }
    }

    /// All tags, page by page.
    pub(super) async fn tags(&self) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut path = self.address("tags/list");
        for _ in 0..PAGES {
            let response = self
                .send(&Ask { method: Method::GET, path: path.clone(), headers: Vec::new(), body: &nothing })
                .await?;
            if !response.status().is_success() {
                return Err(problem(response).await);
            }
            let next = response.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
            let bytes = read(response, DOCUMENT_LIMIT).await?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|error| Error::invalid(format!("the list of tags can't be read: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            let Some(next) = next else { return Ok(tags) };
            let (host, rest) = self.resolve(&next)?;
            if host != self.endpoint.host {
                return Err(Error::invalid(format!("the list of tags goes on elsewhere: {next}")));
            }
            path = rest;
        }
        Err(Error::invalid("the list of tags has no end"))
    }

    /// Whether the registry has a blob.
    pub(super) async fn has_blob(&self, digest: Digest) -> Result<bool> {
        let path = self.address(&format!("blobs/{digest}"));
        let ask = Ask { method: Method::HEAD, path, headers: Vec::new(), body: &nothing };
        let response = self.send(&ask).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(problem(response).await),
        }
    }

    /// Sends a request; when the registry asks who we are, says so and sends it again. Redirections are followed, and only
    /// the registry itself is told: what another host asks is answered by nobody (CVE-2020-15157).
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>> {
        let mut response = self.once(ask).await?;
        for _ in 0..TOKENS {
            if response.status() != StatusCode::UNAUTHORIZED {
                break;
            }
            let Some(challenge) = challenge(&response) else { break };
            // Go's client tells of it as of a failure of this request.
            let answered = self.answer(&challenge).await;
            let answered =
                answered.map_err(|error| Error { message: self.failed(ask, &error.message), ..error });
            let Some(authorization) = answered? else { return Ok(response) };
            *locked(&self.authorization) = Some(authorization);
            response = self.once(ask).await?;
            // A token may be used up by another request in the meantime; a password that is refused stays refused.
            if challenge == Challenge::Basic {
                break;
            }
        }
        self.follow(ask, response).await
    }

    /// Go's words for a request that came to nothing.
    fn failed(&self, ask: &Ask<'_>, why: &str) -> String {
        let method = ask.method.as_str();
        let method = format!("{}{}", &method[..1], method[1..].to_ascii_lowercase());
        format!("{method} \"{}\": {why}", self.endpoint.host.url(&ask.path))
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Response<Incoming>> {
        let known = locked(&self.authorization).clone();
        let request = request(ask, &ask.path, known)?;
        self.endpoint.host.send(&self.endpoint.proxies, self.endpoint.certificates.clone(), request).await
    }

    async fn follow(&self, ask: &Ask<'_>, mut response: Response<Incoming>) -> Result<Response<Incoming>> {
        for _ in 0..REDIRECTS {
            let redirected = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirected || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| Error::invalid("a redirection to nowhere"))?;
            let (host, path) = self.resolve(location)?;
            let same = host == self.endpoint.host;
            let known = locked(&self.authorization).clone();
            let request = request(ask, &path, known.filter(|_| same))?;
            let certificates = self.endpoint.certificates.with_file_name(&host.authority);
            response = host.send(&self.endpoint.proxies, certificates, request).await?;
        }
        Err(Error::invalid(format!("{} is redirected without end", ask.path)))
    }

    /// An absolute address, or a path of the registry's.
    pub(super) fn resolve(&self, location: &str) -> Result<(Host, String)> {
        let own = &self.endpoint.host;
        if location.starts_with('/') {
            return Ok((own.clone(), location.to_owned()));
        }
        let (mut host, path) = Host::of_url(location, Trust::Verified)
            .ok_or_else(|| Error::invalid(format!("a redirection to {location:?}")))?;
        if host.authority == own.authority {
            host.trust = own.trust;
        }
        Ok((host, path))
    }

    /// What `docker manifest` and services want to know.
    pub(super) async fn inspect(&self, reference: &Reference) -> Result<Distribution> {
        let name = reference_name(reference);
        let fetched = self.manifest(&name, reference.digest).await?;
        let platforms = match (&fetched.manifest.manifests, &fetched.manifest.config) {
            (Some(manifests), _) => {
                Some(manifests.iter().map(|one| one.platform.clone().unwrap_or_default()).collect())
            }
            (None, Some(config)) => {
                let bytes = self.document(config.digest).await;
                let file = bytes.ok().and_then(|bytes| serde_json::from_slice::<ImageFile>(&bytes).ok());
                file.filter(|file| !file.os.is_empty() || !file.architecture.is_empty())
                    .map(|file| vec![file.platform()])
            }
            (None, None) => None,
        };
        let descriptor = Descriptor::new(fetched.media_type, fetched.digest, fetched.bytes.len() as u64);
        Ok(Distribution { descriptor, platforms })
    }
}

/// What a manifest is asked for by.
pub(super) fn reference_name(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_default(),
    }
}

/// The address in `<address>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| address.to_owned())
}

fn request(ask: &Ask<'_>, path: &str, authorization: Option<HeaderValue>) -> Result<Request<Body>> {
    let mut builder = Request::builder().method(ask.method.clone()).uri(path);
    for (name, value) in &ask.headers {
        builder = builder.header(name, value);
    }
    if let Some(value) = authorization {
        builder = builder.header(AUTHORIZATION, value);
    }
    builder.body((ask.body)()).map_err(|error| Error::internal(format_args!("asking for {path}"), &error))
}

pub(super) fn challenge(response: &Response<Incoming>) -> Option<Challenge> {
    let headers: &HeaderMap = response.headers();
    let stated = headers.get_all(WWW_AUTHENTICATE).iter();
    stated.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse)
}

pub(super) async fn read(response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => Err(Error::new(Kind::Internal, format!("reading a registry's answer: {error}"))),
    }
}

/// What a registry refuses, in distribution's words: the first of its errors.
pub(super) async fn problem(response: Response<Incoming>) -> Error {
    let status = response.status();
    let bytes = read(response, DOCUMENT_LIMIT).await.unwrap_or_default();
    let problems: Problems = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = match status {
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Kind::Unavailable,
        _ => Kind::Internal,
    };
    match problems.errors.first() {
        Some(problem) => {
            let code = problem.code.to_lowercase().replace('_', " ");
            Error::new(kind, format!("{code}: {}", problem.message))
        }
        None if status == StatusCode::UNAUTHORIZED => {
            Error::new(kind, "unauthorized: authentication required".to_owned())
        }
        None => Error::new(kind, format!("received unexpected HTTP status: {status}")),
    }
}

/// For a query: everything but letters, digits and a few marks.
pub(super) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
