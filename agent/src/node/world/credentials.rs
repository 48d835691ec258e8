//! The node's certificate and whom it believes, as they are now, and the TLS configurations that come of them. They are built
//! anew for each change, and new connections take the newest.

use std::sync::{Arc, RwLock};

use ketch_ca::tls::{self, Strangers};
use ketch_node::world::{Credentials, Expected, Terms};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tracing::error;

use crate::locks::{reading, writing};

/// What nodes speak: HTTP/2.
pub(super) const ALPN: &[u8] = b"h2";

/// What was last adopted.
#[derive(Debug, Default)]
pub(super) struct Held(RwLock<Option<Arc<Adopted>>>);

#[derive(Debug)]
struct Adopted {
    credentials: Credentials,
    chain: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
}

impl Held {
    /// Those that make no configuration change nothing: a certificate with a wrong key would shut everybody out.
    pub(super) fn adopt(&self, credentials: Credentials) {
        match Adopted::new(credentials) {
            Ok(adopted) => *writing(&self.0) = Some(Arc::new(adopted)),
            Err(reason) => error!("the node's new certificate can't be used, the old one is kept: {reason}"),
        }
    }

    /// The server's side; none before there is a certificate.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        reading(&self.0).as_ref().map(|adopted| Arc::clone(&adopted.server))
    }

    /// The client's side; the error is why there is none.
    pub(super) fn client(&self, terms: Terms) -> Result<Arc<ClientConfig>, String> {
        let config = match terms {
            Terms::Unverified => tls::unverified_client(clock()).map_err(|error| whole(&error)),
            Terms::Joining(trust) => tls::joining_client(trust, clock()).map_err(|error| whole(&error)),
            Terms::Member(expected) => {
                let adopted = reading(&self.0).clone();
                adopted.ok_or("this node has no certificate")?.client(expected)
            }
        };
        let mut config = config?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

impl Adopted {
    fn new(credentials: Credentials) -> Result<Self, String> {
        let chain = ketch_ca::certificates(&credentials.chain).map_err(|error| error.to_string())?;
        let own = tls::Credentials { chain: &chain, key: &credentials.key };
        let server = tls::server(&own, Arc::clone(&credentials.trust), Strangers::LetIn, clock());
        let mut server = server.map_err(|error| whole(&error))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { chain, server: Arc::new(server), credentials })
    }

    fn client(&self, expected: Expected) -> Result<ClientConfig, String> {
        let own = tls::Credentials { chain: &self.chain, key: &self.credentials.key };
        tls::client(&own, Arc::clone(&self.credentials.trust), expected, clock())
            .map_err(|error| whole(&error))
    }
}

fn clock() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

/// An error with those behind it.
pub(super) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
