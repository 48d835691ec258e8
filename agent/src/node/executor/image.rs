//! A task's image: its name, and its pull with the credentials that the service brings.

use std::sync::Arc;

use ketch_cluster::objects::ContainerSpec;
use tracing::warn;

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::auth::Credentials;
use crate::image::registry::pull::PullOptions;
use crate::node::layers::Others;

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
        if let Some(others) = self.others.filter(|_| options.reference.digest.is_some()) {
            match daemon.images.pull_shared(&options, others, &Progress::default()).await {
                Ok(()) => return Ok(()),
                // Whatever it is: without other nodes it may be there all the same.
                Err(error) => warn!(image = self.image, "not pulled with other nodes: {}", error.message),
            }
        }
        daemon.images.pull(&options, &Progress::default()).await
    }
}
