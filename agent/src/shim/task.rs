//! A container as its shim holds it: every call of the Task service that the daemon makes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ketch_shim_api::TASK_V3;
use ketch_shim_api::options::CheckpointOptions;
use ketch_shim_api::process::Status;
use ketch_shim_api::task as api;
use ketch_shim_api::wire::{Any, Empty, Timestamp};
use prost::Message;

use super::connection::{CallError, Connection};

/// The type that containerd gives a process's JSON; the shim reads the value only.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The same of resources.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// A container through its shim; clones share the connection.
#[derive(Clone, Debug)]
pub struct Task {
    connection: Connection,
    id: String,
}

/// The paths of a process's fifos; empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct Fifos {
    /// What the process reads.
    pub stdin: String,
    /// What it writes.
    pub stdout: String,
    /// Its errors; none with a terminal.
    pub stderr: String,
    /// Whether all go through a terminal.
    pub terminal: bool,
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Making {
    /// The folder of its config.json.
    pub bundle: String,
    /// Of its first process.
    pub fifos: Fifos,
    /// The runtime's ([`super::Launch::options`]).
    pub options: Any,
    /// The folder of a checkpoint that it starts from; empty without.
    pub images: String,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its status; 128 and the signal for one that was killed.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// What the shim says of a process.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its id on the host.
    pub pid: u32,
    /// Of one that has ended.
    pub exit: Option<Exit>,
    /// Whether it was only made.
    pub created: bool,
    /// Whether the container is frozen.
    pub paused: bool,
}

fn time(stamp: Option<Timestamp>) -> SystemTime {
    let Some(stamp) = stamp else { return SystemTime::now() };
    let nanos = u32::try_from(stamp.nanos).unwrap_or(0);
    UNIX_EPOCH + Duration::new(u64::try_from(stamp.seconds).unwrap_or(0), nanos)
}

impl Task {
    /// The container of this id, behind that connection.
    #[must_use]
    pub fn new(connection: Connection, id: &str) -> Self {
        Self { connection, id: id.to_owned() }
    }

    /// Whether its shim is known to be gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.connection.is_closed()
    }

    /// Whether its shim answers; one that does not is killed.
    pub async fn is_alive(&self) -> bool {
        self.connection.is_alive().await
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        self.connection.call(TASK_V3, method, message).await
    }

    /// Makes the container; its first process waits to be started. One that starts from a checkpoint has none before that.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn create(&self, making: Making) -> Result<(), CallError> {
        let Making { bundle, fifos, options, images } = making;
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle,
            terminal: fifos.terminal,
            stdin: fifos.stdin,
            stdout: fifos.stdout,
            stderr: fifos.stderr,
            options: Some(options),
            checkpoint: images,
            ..api::CreateTaskRequest::default()
        };
        self.call::<api::CreateTaskResponse>("Create", &request).await.map(drop)
    }

    /// Writes the container's processes to a folder of images, which is made; `exit` ends them.
    ///
    /// # Errors
    /// The shim's words; the container runs on.
    pub async fn checkpoint(&self, images: &str, exit: bool) -> Result<(), CallError> {
        let options = CheckpointOptions { exit, ..CheckpointOptions::default() };
        let request = api::CheckpointTaskRequest {
            id: self.id.clone(),
            path: images.to_owned(),
            options: Some(Any::pack(&options)),
        };
        self.call::<Empty>("Checkpoint", &request).await.map(drop)
    }

    /// Adds a process, to be started.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn add(&self, exec: &str, process: Vec<u8>, fifos: Fifos) -> Result<(), CallError> {
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            terminal: fifos.terminal,
            stdin: fifos.stdin,
            stdout: fifos.stdout,
            stderr: fifos.stderr,
            spec: Some(Any { type_url: PROCESS.to_owned(), value: process }),
        };
        self.call::<Empty>("Exec", &request).await.map(drop)
    }

    /// Starts the first process, or an added one. Returns its id.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn start(&self, exec: &str) -> Result<u32, CallError> {
        let request = api::StartRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        Ok(self.call::<api::StartResponse>("Start", &request).await?.pid)
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// The shim goes, or knows no such process.
    pub async fn wait(&self, exec: &str) -> Result<Exit, CallError> {
        let request = api::WaitRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        let answer: api::WaitResponse = self.connection.wait(TASK_V3, "Wait", &request).await?;
        Ok(Exit { status: answer.exit_status, at: time(answer.exited_at) })
    }

    /// Takes an ended container or process away.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn delete(&self, exec: &str) -> Result<Exit, CallError> {
        let request = api::DeleteRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        let answer: api::DeleteResponse = self.call("Delete", &request).await?;
        Ok(Exit { status: answer.exit_status, at: time(answer.exited_at) })
    }

    /// Ends the shim, once it holds nothing.
    pub async fn shutdown(&self) {
        let request = api::ShutdownRequest { id: self.id.clone(), now: false };
        let _gone = self.call::<Empty>("Shutdown", &request).await;
    }

    /// Sends a signal to a process, or to all of the container.
    ///
    /// # Errors
    /// There is none any more; the shim's words.
    pub async fn kill(&self, exec: &str, signal: u32, all: bool) -> Result<(), CallError> {
        let request = api::KillRequest { id: self.id.clone(), exec_id: exec.to_owned(), signal, all };
        self.call::<Empty>("Kill", &request).await.map(drop)
    }

    /// Freezes the container.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn pause(&self) -> Result<(), CallError> {
        self.call::<Empty>("Pause", &api::PauseRequest { id: self.id.clone() }).await.map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn resume(&self) -> Result<(), CallError> {
        self.call::<Empty>("Resume", &api::ResumeRequest { id: self.id.clone() }).await.map(drop)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// It has none; the shim's words.
    pub async fn resize(&self, exec: &str, width: u32, height: u32) -> Result<(), CallError> {
        let request = api::ResizePtyRequest { id: self.id.clone(), exec_id: exec.to_owned(), width, height };
        self.call::<Empty>("ResizePty", &request).await.map(drop)
    }

    /// Lets a process's input end once its writers have gone.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn close_input(&self, exec: &str) -> Result<(), CallError> {
        let request = api::CloseIoRequest { id: self.id.clone(), exec_id: exec.to_owned(), stdin: true };
        self.call::<Empty>("CloseIO", &request).await.map(drop)
    }

    /// Every process of the container.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn pids(&self) -> Result<Vec<u32>, CallError> {
        let answer: api::PidsResponse = self.call("Pids", &api::PidsRequest { id: self.id.clone() }).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Changes the container's resources; `resources` is the JSON of the runtime specification's.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn update(&self, resources: Vec<u8>) -> Result<(), CallError> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: Some(Any { type_url: RESOURCES.to_owned(), value: resources }),
            ..api::UpdateTaskRequest::default()
        };
        self.call::<Empty>("Update", &request).await.map(drop)
    }

    /// What the container uses: metrics of cgroup v1 or v2.
    ///
    /// # Errors
    /// The shim's words.
    pub async fn stats(&self) -> Result<Any, CallError> {
        let answer: api::StatsResponse =
            self.call("Stats", &api::StatsRequest { id: self.id.clone() }).await?;
        answer.stats.ok_or(CallError::Answer("Stats"))
    }

    /// What the shim says of a process now.
    ///
    /// # Errors
    /// There is none.
    pub async fn state(&self, exec: &str) -> Result<Seen, CallError> {
        let request = api::StateRequest { id: self.id.clone(), exec_id: exec.to_owned() };
        let answer: api::StateResponse = self.call("State", &request).await?;
        let status = answer.status();
        let exit = (status == Status::Stopped)
            .then(|| Exit { status: answer.exit_status, at: time(answer.exited_at) });
        Ok(Seen {
            pid: answer.pid,
            exit,
            created: status == Status::Created,
            paused: matches!(status, Status::Paused | Status::Pausing),
        })
    }
}
