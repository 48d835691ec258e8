//! A task's image: its name, and its pull with the credentials that the service brings.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::objects::ContainerSpec;
use tokio::time::sleep;
use tracing::warn;

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::auth::Credentials;
use crate::image::registry::pull::PullOptions;
use crate::image::sharing::Peers;
use crate::node::layers::Others;

/// As often an image is looked for at other nodes while the leader does not say at which, and the registry does not give it.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_secs(5);

/// Docker's: what is on the node is used, and nothing is pulled.
const OFFLINE: &str = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE";

/// The name as the container shows it, with a tag or a digest; an id stays as it is.
pub(super) fn name_of(image: &str) -> String {
    match image.parse::<Reference>() {
        Ok(reference) => reference.with_default_tag().familiar(),
        Err(_) => image.to_owned(),
    }
}

/// A task's pull.
pub(super) struct Pull<'a> {
    pub(super) image: &'a str,
    pub(super) spec: Option<&'a ContainerSpec>,
    /// Nodes that may have it, where they share.
    pub(super) others: Option<Arc<Others>>,
}

impl Pull<'_> {
    /// Has the newest image of the name be here. What can't change is not looked for when it is: ids, and what is named by digest.
    ///
    /// # Errors
    /// It could not be pulled: the one that is here may do.
    pub(super) async fn run(self, daemon: &Daemon) -> Result<()> {
        let Ok(reference) = self.image.parse::<Reference>() else { return Ok(()) };
        if reference.digest.is_some() && daemon.images.find(self.image).is_ok() {
            return Ok(());
        }
        if std::env::var_os(OFFLINE).is_some_and(|value| value == "1") {
            return Err(Error::not_found(String::new()));
        }
        let auth = self.spec.and_then(|spec| spec.registry_auth.as_ref());
        let credentials = Credentials::of_header(auth.map(|auth| auth.as_str()));
        let options = PullOptions { reference, platform: None, credentials };
        let Some(others) = self.others.filter(|_| options.reference.digest.is_some()) else {
            return daemon.images.pull(&options, &Progress::default()).await;
        };
        for _ in 1..TRIES {
            match with_others(daemon, &options, &others).await {
                Err(error) if others.is_unheard() => {
                    warn!(image = self.image, "once more: {}", error.message)
                }
                done => return done,
            }
            sleep(PAUSE).await;
        }
        with_others(daemon, &options, &others).await
    }
}

/// Nothing fails that the registry would have given without others.
async fn with_others(daemon: &Daemon, options: &PullOptions, others: &Arc<Others>) -> Result<()> {
    let others = Arc::clone(others) as Arc<dyn Peers>;
    match daemon.images.pull_shared(options, others, &Progress::default()).await {
        Ok(()) => Ok(()),
        Err(error) => {
            warn!(image = options.reference.familiar(), "not pulled with other nodes: {}", error.message);
            daemon.images.pull(options, &Progress::default()).await
        }
    }
}
