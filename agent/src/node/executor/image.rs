//! A task's image: its name, and its pull with the credentials that the service brings.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::objects::Task;
use tokio::time::sleep;
use tracing::warn;

use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
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
    pub(super) task: &'a Task,
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
        let auth = self.task.spec.container().and_then(|spec| spec.registry_auth.as_ref());
        let credentials = Credentials::of_header(auth.map(|auth| auth.as_str()));
        let options = PullOptions { reference, platform: None, credentials };
        let Some(others) = self.others.filter(|_| options.reference.digest.is_some()) else {
            return daemon.images.pull(&options, &Progress::default()).await;
        };
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let others = others.for_task(self.task.id);
            match with_others(daemon, &options, Arc::clone(&others) as Arc<dyn Peers>).await {
                Err(error) if tries > 0 && others.is_unheard() && may_change(&error) => {
                    warn!(image = self.image, "once more: {}", error.message);
                }
                done => return done,
            }
            sleep(PAUSE).await;
        }
    }
}

/// Whether it was not the registry's own word: that will be the same in a moment.
fn may_change(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Internal)
}

/// Nothing fails that the registry would have given without others.
async fn with_others(daemon: &Daemon, options: &PullOptions, others: Arc<dyn Peers>) -> Result<()> {
    match daemon.images.pull_shared(options, others, &Progress::default()).await {
        Ok(()) => Ok(()),
        Err(error) => {
            warn!(image = options.reference.familiar(), "not pulled with other nodes: {}", error.message);
            daemon.images.pull(options, &Progress::default()).await
        }
    }
}
