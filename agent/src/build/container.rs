//! The containers of a build's steps: made, run, and removed; ordinary ones, which whoever looks finds.

use std::sync::Arc;

use ketch_engine_api::container::{Config, CreateBody, Placing};
use tokio::sync::oneshot;

use super::output::{Output, Text};
use super::{Failure, Options};
use crate::api::stdcopy::Stream;
use crate::daemon::Daemon;
use crate::engine::remove::{self, Remove};
use crate::engine::wait::{self, Condition};
use crate::engine::{create, lifecycle};
use crate::error::{Error, Kind, Result};

/// Those of one build that are not removed yet.
#[derive(Debug)]
pub(super) struct Containers {
    daemon: Arc<Daemon>,
    ids: Vec<String>,
    /// The one that runs: it goes with the build's client.
    running: Option<String>,
    force: bool,
}

const EVERYTHING: Remove = Remove { force: true, volumes: true };

impl Containers {
    pub(super) fn new(daemon: &Arc<Daemon>, options: &Options) -> Self {
        Self { daemon: Arc::clone(daemon), ids: Vec::new(), running: None, force: options.force_remove }
    }

    /// Makes one, and tells of it.
    pub(super) async fn create(
        &mut self,
        config: Config,
        options: &Options,
        output: &Output,
    ) -> Result<String> {
        let placing = Placing { host_config: Some(options.host_config()), networking_config: None };
        let body = CreateBody { config, placing };
        // To its end, whether the client waits for it or not.
        let (daemon, (sender, made)) = (Arc::clone(&self.daemon), oneshot::channel());
        drop(tokio::spawn(async move {
            let made = create::create_for_build(&daemon, body).await;
            if let Err(Ok(made)) = sender.send(made) {
                clear(&daemon, vec![made.id]).await;
            }
        }));
        let made = made.await.map_err(|error| Error::internal("making a container", &error))??;
        self.ids.push(made.id.clone());
        for warning in &made.warnings {
            output.print(&format!(" ---> [Warning] {warning}\n")).await;
        }
        output.print(&format!(" ---> Running in {}\n", short(&made.id))).await;
        Ok(made.id)
    }

    /// Runs one to its end, and passes on what it says.
    ///
    /// # Errors
    /// It does not start, or ends with another code than 0; `command` is how that is told.
    pub(super) async fn run(&mut self, id: &str, command: &str, output: &Output) -> Result<(), Failure> {
        let container = self.daemon.engine.find(id)?;
        let mut said = container.streams.listen();
        let end = wait::wait(&container, Condition::NextExit);
        self.running = Some(id.to_owned());
        let daemon = Arc::clone(&self.daemon);
        let started = tokio::spawn(async move { lifecycle::start(&daemon, &container).await }).await;
        let started = started.map_err(|error| Error::internal("starting a container", &error));
        if let Err(error) = started.and_then(|started| started) {
            self.running = None;
            return Err(error.into());
        }
        let (mut stdout, mut stderr) = (Text::default(), Text::default());
        while let Some((stream, bytes)) = said.recv().await {
            if stream == Stream::Stderr {
                let text = stderr.add(&bytes);
                output.print_error(&text).await;
            } else {
                let text = stdout.add(&bytes);
                output.print(&text).await;
            }
        }
        for (rest, is_error) in [(stdout.rest(), false), (stderr.rest(), true)] {
            match (rest.is_empty(), is_error) {
                (true, _) => {}
                (false, false) => output.print(&rest).await,
                (false, true) => output.print_error(&rest).await,
            }
        }
        let life = end.await;
        self.running = None;
        if life.exit_code == 0 && !life.removed {
            return Ok(());
        }
        let code = life.exit_code;
        let text = format!("The command '{command}' returned a non-zero code: {code}");
        Err(Failure { error: Error::new(Kind::Internal, text), code })
    }

    /// Removes all, and tells of it.
    pub(super) async fn remove_all(&mut self, output: &Output) {
        for id in std::mem::take(&mut self.ids) {
            match remove_one(&self.daemon, &id).await {
                Ok(()) => {
                    output.print(&format!(" ---> Removed intermediate container {}\n", short(&id))).await
                }
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => {
                    let text = format!("Removing intermediate container {}: {}\n", short(&id), error.message);
                    output.print(&text).await;
                }
            }
        }
    }
}

impl Drop for Containers {
    /// The build's client has gone, or the build has failed.
    fn drop(&mut self) {
        let mut left: Vec<String> = self.running.take().into_iter().collect();
        if self.force {
            left.append(&mut self.ids);
        }
        if left.is_empty() {
            return;
        }
        let daemon = Arc::clone(&self.daemon);
        drop(tokio::spawn(async move { clear(&daemon, left).await }));
    }
}

async fn clear(daemon: &Arc<Daemon>, ids: Vec<String>) {
    for id in ids {
        // It may be on its way up.
        if let Ok(container) = daemon.engine.find(&id) {
            drop(container.changing.lock().await);
        }
        match remove_one(daemon, &id).await {
            Err(error) if error.kind != Kind::NotFound => {
                tracing::warn!("removing the container of a build that has ended: {error}");
            }
            _ => {}
        }
    }
}

/// To its end, whether somebody waits for it or not.
async fn remove_one(daemon: &Arc<Daemon>, id: &str) -> Result<()> {
    let (daemon, id) = (Arc::clone(daemon), id.to_owned());
    let removed = tokio::spawn(async move {
        let container = daemon.engine.find(&id)?;
        remove::remove(&daemon, &container, &id, EVERYTHING).await
    });
    removed.await.map_err(|error| Error::internal("removing a container", &error))?
}

/// As Docker shortens ids.
pub(super) fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}
