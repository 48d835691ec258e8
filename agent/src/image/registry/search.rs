//! `docker search`: what a registry's search of its own finds. Docker Hub has one, and few others.

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::auth::Credentials;
use super::repository::{Ask, Repository, escaped, nothing, problem, read};
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::reference::{DEFAULT_DOMAIN, Reference};

/// Docker's, which searches what `docker.io` names.
const INDEX: &str = "index.docker.io";
/// As many as are asked for where nobody says how many.
const LIMIT: i64 = 25;
/// What an answer may have, in bytes.
const ANSWER: usize = 4 << 20;

/// What to search for.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// A text, maybe with a registry in front.
    pub term: String,
    /// As many at most: 1 to 100.
    pub limit: Option<i64>,
    /// Only Docker's own, or only others'.
    pub official: Option<bool>,
    /// Only those that were built by a service, or only others.
    pub automated: Option<bool>,
    /// With as many stars.
    pub stars: Option<i64>,
    /// Who asks.
    pub credentials: Credentials,
}

/// What is found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    star_count: i64,
    is_official: bool,
    name: String,
    is_automated: bool,
    description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    results: Vec<Found>,
}

impl Images {
    /// Asks a registry.
    ///
    /// # Errors
    /// dockerd's texts for a limit out of range; a registry that does not answer, or has no search.
    pub async fn search(&self, options: &SearchOptions) -> Result<Vec<Found>> {
        let limit = options.limit.unwrap_or(LIMIT);
        if !(1..=100).contains(&limit) {
            return Err(Error::invalid(format!("limit {limit} is outside the range of [1, 100]")));
        }
        if options.term.contains("://") {
            return Err(Error::invalid(format!(
                "invalid repository name: repository name ({}) should not have a scheme",
                options.term
            )));
        }
        let (domain, term) = match options.term.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (INDEX, options.term.as_str()),
        };
        let domain = if domain == DEFAULT_DOMAIN { INDEX } else { domain };
        let term = if domain == INDEX { term.trim_start_matches("library/") } else { term };
        let nowhere = Reference { domain: domain.to_owned(), path: String::new(), tag: None, digest: None };
        let mut last = Error::new(Kind::Internal, format!("no endpoints found for {domain}"));
        for endpoint in self.registries().endpoints(&nowhere) {
            let repository = Repository::new(endpoint, &nowhere, &options.credentials, "");
            match repository.search(term, limit).await {
                Ok(found) => return Ok(found.into_iter().filter(|one| options.wants(one)).collect()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl SearchOptions {
    fn wants(&self, found: &Found) -> bool {
        self.official.is_none_or(|official| found.is_official == official)
            && self.automated.is_none_or(|automated| found.is_automated == automated)
            && self.stars.is_none_or(|stars| found.star_count >= stars)
    }
}

impl Repository {
    async fn search(&self, term: &str, limit: i64) -> Result<Vec<Found>> {
        let ask = Ask {
            method: Method::GET,
            path: format!("/v1/search?q={}&n={limit}", escaped(term)),
            headers: Vec::new(),
            body: &nothing,
        };
        let response = self.send(&ask).await?;
        let status = response.status();
        if status.as_u16() != 200 {
            let error = problem(response).await;
            // A registry without a search has no words for it.
            return Err(match error.kind {
                Kind::Unauthorized | Kind::Forbidden => error,
                _ => Error::new(Kind::Unavailable, format!("Unexpected status code {}", status.as_u16())),
            });
        }
        let bytes = read(response, ANSWER).await?;
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|error| Error::internal("error decoding registry search results", &error))?;
        Ok(answer.results)
    }
}
