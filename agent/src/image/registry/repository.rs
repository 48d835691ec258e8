//! The distribution protocol for one repository at one endpoint: manifests, blobs, and who we are while asking.

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Endpoint;
use super::auth::{Challenge, Credentials, Token};
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
const DOCUMENT_LIMIT: usize = 8 << 20;
const REDIRECTS: usize = 5;

/// A repository there.
#[derive(Debug)]
pub(super) struct Repository {
    endpoint: Endpoint,
    path: String,
    credentials: Credentials,
    /// `pull`, or `pull,push`.
    actions: &'static str,
    /// The `Authorization` that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
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

fn nothing() -> Body {
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
        Self { endpoint, path, credentials, actions, authorization: Mutex::default() }
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.endpoint.mirror
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
        let authorization = self.answer(&ask, challenge).await?;
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
        let found = Digest::of(&bytes);
        if let Some(wanted) = digest.filter(|wanted| *wanted != found) {
            return Err(Error::invalid(format!("manifest verification failed for digest {wanted}")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("the manifest {found} can't be read: {error}")))?;
        if manifest.schema_version == 1 {
            return Err(Error::invalid(format!(
                "the manifest {found} is of schema 1, which is not supported: push the image again with a current tool"
            )));
        }
        let media_type = manifest.media_type.clone().unwrap_or(stated);
        Ok(Fetched { bytes, digest: found, media_type, manifest })
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
    /// the registry itself is told.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>> {
        let response = self.follow(ask, self.once(ask).await?).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = challenge(&response) else { return Ok(response) };
        let Some(authorization) = self.answer(ask, &challenge).await? else {
            return Ok(response);
        };
        *locked(&self.authorization) = Some(authorization);
        self.follow(ask, self.once(ask).await?).await
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Response<Incoming>> {
        let known = locked(&self.authorization).clone();
        let request = request(ask, &ask.path, known)?;
        self.endpoint.host.send(self.endpoint.certificates.clone(), request).await
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
            response = host.send(certificates, request).await?;
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

    /// What to say to a challenge; `None` when we are nobody.
    async fn answer(&self, ask: &Ask<'_>, challenge: &Challenge) -> Result<Option<HeaderValue>> {
        let secret = |text: String| -> Result<Option<HeaderValue>> {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| Error::new(Kind::Unauthorized, "credentials that no header can hold"))?;
            value.set_sensitive(true);
            Ok(Some(value))
        };
        if !self.credentials.registrytoken.is_empty() {
            return secret(format!("Bearer {}", self.credentials.registrytoken));
        }
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return match self.credentials.basic() {
                Some(basic) => secret(basic),
                None => {
                    let url = self.endpoint.host.url(&ask.path);
                    let method = if ask.method == Method::HEAD { "Head" } else { "Get" };
                    let text = format!("{method} \"{url}\": no basic auth credentials");
                    Err(Error::new(Kind::Internal, text))
                }
            };
        };
        let scope = match scope.as_str() {
            "" if self.path.is_empty() => String::new(),
            "" => format!("repository:{}:{}", self.path, self.actions),
            stated => stated.to_owned(),
        };
        let token = self.token(realm, service, &scope).await?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() {
            return Err(Error::new(
                Kind::Unauthorized,
                "authorization server did not include a token in the response",
            ));
        }
        secret(format!("Bearer {token}"))
    }

    /// Asks a token server: with a refresh token by POST, else by GET with user and password, if there are any.
    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<Token> {
        let (host, path) = self.resolve(realm)?;
        let parameters = [("service", service), ("scope", scope)]
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect::<Vec<_>>()
            .join("&");
        let mut builder = Request::builder();
        let refresh = &self.credentials.identitytoken;
        let request = if refresh.is_empty() {
            let joint = if path.contains('?') { '&' } else { '?' };
            builder = builder.uri(format!("{path}{joint}{parameters}"));
            if let Some(basic) = self.credentials.basic() {
                builder = builder.header(AUTHORIZATION, basic);
            }
            builder.body(nothing())
        } else {
            let form = format!(
                "grant_type=refresh_token&client_id=docker&refresh_token={}&{parameters}",
                escaped(refresh)
            );
            builder
                .method(Method::POST)
                .uri(path)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(CONTENT_LENGTH, form.len())
                .body(whole(form))
        };
        let request = request.map_err(|error| Error::internal("asking for a token", &error))?;
        let certificates = self.endpoint.certificates.with_file_name(&host.authority);
        let response = host.send(certificates, request).await?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let bytes = read(response, DOCUMENT_LIMIT).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Kind::Unauthorized, format!("unable to decode token response: {error}"))
        })
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
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
