//! Who we say we are: the answer to a registry's challenge, and the tokens that token servers give for it.

use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::auth::{Challenge, Token};
use super::connection::{Scheme, whole};
use super::repository::{Repository, escaped, nothing, problem, read};
use super::tls::Trust;
use crate::error::{Error, Kind, Result};
use crate::locks::locked;

/// What a token server's answer may have, in bytes.
const ANSWER: usize = 1 << 20;
/// What we are called by token servers.
const CLIENT: &str = "docker";

impl Repository {
    /// What to say to a challenge; `None` when we are nobody.
    pub(super) async fn answer(&self, challenge: &Challenge) -> Result<Option<HeaderValue>> {
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
                None => Err(Error::new(Kind::Internal, "no basic auth credentials")),
            };
        };
        let scope = match scope.as_str() {
            "" if self.path.is_empty() => String::new(),
            "" => format!("repository:{}:{}", self.path, self.actions),
            stated => stated.to_owned(),
        };
        let token = self.token(realm, service, &scope).await?;
        if !token.refresh_token.is_empty() {
            *locked(&self.identity) = token.refresh_token;
        }
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() {
            let text = "authorization server did not include a token in the response";
            return Err(Error::new(Kind::Unauthorized, text));
        }
        secret(format!("Bearer {token}"))
    }

    /// Asks a token server: with a refresh token by POST, else by GET with user and password, if there are any.
    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<Token> {
        let (host, path) = self.resolve(realm)?;
        let own = &self.endpoint.host;
        if host.scheme == Scheme::Http && own.scheme == Scheme::Https && own.trust == Trust::Verified {
            // Whoever is on the way would read the password.
            let text = format!("the token server {realm} of a registry with TLS has none");
            return Err(Error::new(Kind::Unauthorized, text));
        }
        let request = if self.credentials.identitytoken.is_empty() {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut query = vec![("service", service)];
            // Several scopes are several parameters.
            query.extend(scope.split(' ').map(|one| ("scope", one)));
            if self.actions.is_empty() {
                // A login: we want something to stand for the password.
                query.extend([("offline_token", "true"), ("client_id", CLIENT)]);
            }
            query.push(("account", &self.credentials.username));
            let mut builder = Request::builder().uri(format!("{path}{joint}{}", form(&query)));
            if let Some(basic) = self.credentials.basic() {
                builder = builder.header(AUTHORIZATION, basic);
            }
            builder.body(nothing())
        } else {
            let form = form(&[
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT),
                ("refresh_token", &self.credentials.identitytoken),
                ("service", service),
                ("scope", scope),
            ]);
            Request::builder()
                .method("POST")
                .uri(path)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(CONTENT_LENGTH, form.len())
                .body(whole(form))
        };
        let request = request.map_err(|error| Error::internal("asking for a token", &error))?;
        let certificates = self.endpoint.certificates.with_file_name(&host.authority);
        let response = host.send(&self.endpoint.proxies, certificates, request).await?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let bytes = read(response, ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Kind::Unauthorized, format!("unable to decode token response: {error}"))
        })
    }
}

/// Pairs as a query, or as a form; those without a value are left out.
fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}
