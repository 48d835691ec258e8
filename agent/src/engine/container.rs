//! A container: what is remembered of it, and what only a living daemon has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_engine_api::container::{Config, Health};
use ketch_engine_api::host_config::HostConfig;
use ketch_engine_api::network::EndpointSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::mounts::Planned;
use super::streams::Streams;
use super::task::OfTask;
use super::words::human;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::locks::locked;
use crate::logs::LogDriver;
use crate::shim::Task;
use crate::store::Table;
use crate::timestamp::Timestamp;

/// Where containers are remembered.
pub const TABLE: Table = Table("containers");

/// What is remembered. Written whole at each change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash that the API shows before it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The program: the first word of entrypoint and command.
    pub path: String,
    /// The other words.
    pub args: Vec<String>,
    /// The image, as a digest.
    pub image: String,
    /// The image's words and the request's, merged.
    pub config: Config,
    /// As asked for, with the daemon's defaults.
    pub host_config: HostConfig,
    /// The endpoints that were asked for.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// What the network gave it.
    pub network: Value,
    /// What is mounted, but for what every container has.
    pub mounts: Vec<Planned>,
    /// The daemon's setting when it was made.
    pub no_new_privileges: bool,
    /// What it does.
    pub state: State,
    /// How often its policy has started it again.
    pub restart_count: u32,
    /// Whether it was ever started.
    pub was_started: bool,
    /// Whether somebody has stopped it.
    pub was_stopped: bool,
    /// Of a service's task.
    #[serde(default)]
    pub task: Option<OfTask>,
}

/// What a container does. Docker's flags: a container that waits to be started again is running and restarting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// There is a process, or there will be one again.
    pub running: bool,
    /// It is frozen.
    pub paused: bool,
    /// It waits to be started again.
    pub restarting: bool,
    /// Its removal has begun.
    pub removing: bool,
    /// Its removal has failed.
    pub dead: bool,
    /// The kernel has killed one of its processes for its memory.
    pub oom_killed: bool,
    /// The first process; 0 when there is none.
    pub pid: u32,
    /// Of the last run.
    pub exit_code: i64,
    /// Why it did not start.
    pub error: String,
    /// The last start.
    pub started_at: Timestamp,
    /// The last end.
    pub finished_at: Timestamp,
    /// Of a container with probes, once it was started.
    pub health: Option<Health>,
    /// Why the last restart was one that Docker would not have made.
    #[serde(default)]
    pub restart_reason: String,
}

impl State {
    /// Docker's one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self { running: true, paused: true, .. } => "paused",
            Self { running: true, restarting: true, .. } => "restarting",
            Self { running: true, .. } => "running",
            Self { removing: true, .. } => "removing",
            Self { dead: true, .. } => "dead",
            Self { started_at, .. } if *started_at == Timestamp::NEVER => "created",
            _ => "exited",
        }
    }

    /// What `docker ps` shows.
    #[must_use]
    pub fn words(&self, now: Timestamp) -> String {
        let up = || human(now.since(self.started_at));
        let ago = || human(now.since(self.finished_at));
        match self.word() {
            "paused" => format!("Up {} (Paused)", up()),
            "restarting" => format!("Restarting ({}) {} ago", self.exit_code, ago()),
            "running" => match self.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("" | "none") => format!("Up {}", up()),
                Some("starting") => format!("Up {} (health: starting)", up()),
                Some(status) => format!("Up {} ({status})", up()),
            },
            "removing" => "Removal In Progress".to_owned(),
            "dead" => "Dead".to_owned(),
            "created" => "Created".to_owned(),
            _ if self.finished_at == Timestamp::NEVER => String::new(),
            _ => format!("Exited ({}) {} ago", self.exit_code, ago()),
        }
    }
}

/// What those who wait for a container see.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// How often it has ended while this daemon watched.
    pub ends: u64,
    /// Whether it runs now.
    pub running: bool,
    /// Of the last end.
    pub exit_code: i64,
    /// It is no more.
    pub removed: bool,
    /// What its probes say.
    pub probed: Probed,
}

/// What the probes of a container's present run have said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probed {
    /// It has none.
    #[default]
    Never,
    /// Nothing that decides.
    Starting,
    /// It is healthy.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// A container of this daemon.
#[derive(Debug)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    record: Mutex<Record>,
    /// Held by whoever starts, ends, renames or removes it, or copies to or from it while it does not run.
    pub changing: Arc<tokio::sync::Mutex<()>>,
    /// Held while the record is written: the last word is the last written.
    saving: tokio::sync::Mutex<()>,
    /// Held while the root of its last run is being let go: a folder is under one root only.
    pub letting_go: Arc<tokio::sync::Mutex<()>>,
    /// For waiters.
    pub life: watch::Sender<Life>,
    /// Its output and input.
    pub streams: Arc<Streams>,
    task: watch::Sender<Option<Task>>,
    /// Ends the pause before a restart.
    pub awake: Notify,
    /// The last pause before a restart.
    pub pause: Mutex<Duration>,
    /// How many restart it: its end is not the end of one that removes itself.
    pub comes_back: AtomicU32,
    /// Its health is why it ends.
    pub unwell: AtomicBool,
    /// Somebody wants it killed: it does not live on for want of a shim.
    pub doomed: watch::Sender<bool>,
    /// Its start with the daemon waits for its networks' cluster: to stop it then is to say that it is not to be started.
    pub waits_for_cluster: AtomicBool,
    /// It is known what it does; of one of an earlier daemon's not before its shim has said so, or is known not to.
    pub known: watch::Sender<bool>,
    /// How often the shim has told of its end on its own: what it had told before has been heard by then.
    pub told: watch::Sender<u64>,
    log: Mutex<Option<Arc<LogDriver>>>,
    /// Ends its probes.
    pub probes: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Container {
    /// A container with this record, which is not looked into.
    #[must_use]
    pub fn new(record: Record) -> Self {
        let State { running, exit_code, .. } = record.state;
        let life = Life { running, exit_code, ..Life::default() };
        Self {
            id: record.id.clone(),
            streams: Arc::new(Streams::new(record.config.open_stdin)),
            record: Mutex::new(record),
            changing: Arc::default(),
            letting_go: Arc::default(),
            saving: tokio::sync::Mutex::default(),
            life: watch::Sender::new(life),
            task: watch::Sender::default(),
            awake: Notify::new(),
            pause: Mutex::default(),
            comes_back: AtomicU32::new(0),
            unwell: AtomicBool::new(false),
            doomed: watch::Sender::new(false),
            waits_for_cluster: AtomicBool::new(false),
            known: watch::Sender::new(true),
            told: watch::Sender::new(0),
            log: Mutex::default(),
            probes: Mutex::default(),
        }
    }

    /// Looks at the record.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&locked(&self.record))
    }

    /// Changes the record, in memory.
    pub fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut locked(&self.record))
    }

    /// Writes the record, unless the container is gone.
    ///
    /// # Errors
    /// The disk.
    pub async fn save(&self, daemon: &Arc<Daemon>) -> Result<()> {
        let _saving = self.saving.lock().await;
        // It would be back at the next start.
        if self.life.borrow().removed {
            return Ok(());
        }
        let (store, record) = (daemon.store.clone(), self.read(Record::clone));
        blocking(move || store.put(TABLE, &record.id, &record)).await
    }

    /// The container behind its shim, while there is one.
    pub fn task(&self) -> Option<Task> {
        self.task.borrow().clone()
    }

    /// Whether it is known what it does.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self.known.borrow()
    }

    /// Waits until that is known, as long as this at most; whether it is.
    pub async fn becomes_known(&self, limit: Duration) -> bool {
        let mut known = self.known.subscribe();
        tokio::time::timeout(limit, known.wait_for(|known| *known)).await.is_ok()
    }

    /// Has it killed, whether there is a shim to do it or not.
    pub fn doom(&self) {
        let _before = self.doomed.send_replace(true);
    }

    /// Whether somebody wants that.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        *self.doomed.borrow()
    }

    /// Waits until somebody does.
    pub async fn becomes_doomed(&self) {
        let mut doomed = self.doomed.subscribe();
        let _so = doomed.wait_for(|doomed| *doomed).await;
    }

    /// Waits until the shim is known, and another than one that is gone, or none any more.
    pub async fn next_task(&self) {
        let mut known = self.known.subscribe();
        drop(known.wait_for(|known| *known).await);
        let mut task = self.task.subscribe();
        let _told = task.wait_for(|task| task.as_ref().is_none_or(|task| !task.is_gone())).await;
    }

    /// Sets or takes away the shim's side.
    pub fn set_task(&self, task: Option<Task>) {
        let _before = self.task.send_replace(task);
    }

    /// The log that is being written.
    pub fn log(&self) -> Option<Arc<LogDriver>> {
        locked(&self.log).clone()
    }

    /// Sets or takes away the log; gives the one that was.
    pub fn set_log(&self, log: Option<Arc<LogDriver>>) -> Option<Arc<LogDriver>> {
        std::mem::replace(&mut *locked(&self.log), log)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> String {
        self.read(|record| record.name.clone())
    }

    /// Whether it runs, as Docker means it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.read(|record| record.state.running)
    }

    /// Tells everyone of an event of this container, with its labels, image and name.
    pub fn publish(&self, daemon: &Daemon, action: impl Into<String>) {
        self.publish_with(daemon, action, &[]);
    }

    /// The same, with more attributes.
    pub fn publish_with(&self, daemon: &Daemon, action: impl Into<String>, more: &[(&str, String)]) {
        let mut attributes = self.read(|record| {
            let mut attributes = record.config.labels.clone().unwrap_or_default();
            let _label = attributes.insert("image".to_owned(), record.config.image.clone());
            let _label = attributes.insert("name".to_owned(), record.name.clone());
            attributes
        });
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        daemon.events.publish("container", action, &self.id, attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_states() {
        let now = Timestamp::new(100, 0);
        let up = State { running: true, started_at: Timestamp::new(95, 0), ..State::default() };
        assert_eq!((up.word(), up.words(now).as_str()), ("running", "Up 5 seconds"));
        let mut health = up.clone();
        health.health = Some(Health { status: "starting".into(), ..Health::default() });
        assert_eq!(health.words(now), "Up 5 seconds (health: starting)");
        let paused = State { paused: true, ..up.clone() };
        assert_eq!((paused.word(), paused.words(now).as_str()), ("paused", "Up 5 seconds (Paused)"));
        let again =
            State { restarting: true, exit_code: 3, finished_at: Timestamp::new(99, 0), ..up.clone() };
        assert_eq!(again.words(now), "Restarting (3) 1 second ago");
        let exited = State { running: false, exit_code: 1, finished_at: Timestamp::new(40, 0), ..up };
        assert_eq!((exited.word(), exited.words(now).as_str()), ("exited", "Exited (1) About a minute ago"));
        assert_eq!(State::default().words(now), "Created");
    }
}
