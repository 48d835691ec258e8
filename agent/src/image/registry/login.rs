//! `docker login`: whether a registry believes what a client has.

use super::auth::Credentials;
use super::repository::{Repository, challenge, problem};
use crate::error::{Error, Kind, Result};
use crate::image::Images;
use crate::image::reference::{DEFAULT_DOMAIN, Reference};

impl Images {
    /// Asks the registry that the credentials name. Gives a token that may stand for the password from now on; empty where
    /// the registry has none.
    ///
    /// # Errors
    /// It refuses them, or does not answer.
    pub async fn login(&self, credentials: &Credentials) -> Result<String> {
        let server = credentials.serveraddress.as_str();
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let domain = match server.split('/').next().unwrap_or_default() {
            "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
            domain => domain,
        };
        let credentials = credentials.clone().completed();
        // Nobody's: a token server is asked for nothing but who we are.
        let nowhere = Reference { domain: domain.to_owned(), path: String::new(), tag: None, digest: None };
        let mut last = Error::invalid(format!("no endpoints found for {domain}"));
        for endpoint in self.registries().endpoints_of(domain).into_iter().filter(|endpoint| !endpoint.mirror)
        {
            let repository = Repository::new(endpoint, &nowhere, &credentials, "");
            match repository.identify().await {
                Ok(()) => return Ok(repository.identity_token()),
                Err(error) if error.kind == Kind::Unauthorized => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Repository {
    /// Shows who we are where the registry's root asks for it.
    async fn identify(&self) -> Result<()> {
        let response = self.ping().await?;
        if response.status().is_success() {
            return Ok(());
        }
        let Some(asked) = challenge(&response) else { return Err(problem(response).await) };
        let response = self.ping_as(&asked).await?;
        let url = self.root_url();
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status();
        let (code, reason) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
        let kind = if code == 401 { Kind::Unauthorized } else { Kind::Internal };
        Err(Error::new(kind, format!("login attempt to {url} failed with status: {code} {reason}")))
    }
}
