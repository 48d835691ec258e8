//! The 17 calls of the Task service, v2 or v3 by what the shim said at its start.
//!
//! Called by the `shim_` tests and the bench.

use std::time::Duration;

use serde_json::{Value, json};

use super::protobuf::{Fields, Message, any_json};
use super::stream::Stream;
use super::ttrpc::{Client, Failure, Pending};
use crate::bundle::Bundle;
use crate::wait::wait_until;

/// containerd.v1.types.Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unknown,
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

impl Status {
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Created,
            2 => Self::Running,
            3 => Self::Stopped,
            4 => Self::Paused,
            5 => Self::Pausing,
            _ => Self::Unknown,
        }
    }
}

/// What Create is asked for.
#[derive(Clone, Debug, Default)]
pub struct Create {
    pub id: String,
    pub bundle: String,
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub checkpoint: String,
    pub rootfs: Vec<Message>,
    pub options: Option<Message>,
}

impl Create {
    /// Of a bundle that has its root file system already.
    #[must_use]
    pub fn new(bundle: &Bundle<'_>, options: Option<&Message>) -> Self {
        bundle.write();
        Self {
            id: bundle.id.clone(),
            bundle: bundle.dir.display().to_string(),
            options: options.cloned(),
            ..Self::default()
        }
    }

    /// Gives it both streams; [`Create::stderr`] takes one away again. containerd's shim wants both or none.
    #[must_use]
    pub fn stdout(mut self, stream: &Stream) -> Self {
        self.stdout = stream.path.display().to_string();
        self.stderr.clone_from(&self.stdout);
        self
    }

    #[must_use]
    pub fn stderr(mut self, stream: &Stream) -> Self {
        self.stderr = stream.path.display().to_string();
        self
    }

    fn message(&self) -> Message {
        let message = Message::new()
            .text(1, &self.id)
            .text(2, &self.bundle)
            .messages(3, &self.rootfs)
            .flag(4, self.terminal)
            .text(5, &self.stdin)
            .text(6, &self.stdout)
            .text(7, &self.stderr)
            .text(8, &self.checkpoint);
        match &self.options {
            Some(options) => message.message(10, options),
            None => message,
        }
    }
}

/// What Exec is asked for.
#[derive(Clone, Debug)]
pub struct Exec {
    pub exec_id: String,
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub process: Value,
}

impl Exec {
    #[must_use]
    pub fn new(exec_id: &str, args: &[&str]) -> Self {
        let process = json!({
            "user": { "uid": 0, "gid": 0 }, "args": args, "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/"
        });
        Self {
            exec_id: exec_id.to_owned(),
            terminal: false,
            stdin: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            process,
        }
    }

    #[must_use]
    pub fn script(exec_id: &str, script: &str) -> Self {
        Self::new(exec_id, &["/bin/sh", "-c", script])
    }

    /// Gives it both streams.
    #[must_use]
    pub fn stdout(mut self, stream: &Stream) -> Self {
        self.stdout = stream.path.display().to_string();
        self.stderr.clone_from(&self.stdout);
        self
    }

    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self.process["terminal"] = json!(true);
        self
    }
}

type Answer = Result<Fields, Failure>;

/// The service at the other end of a connection.
#[derive(Debug)]
pub struct Tasks {
    pub client: Client,
    service: String,
}

impl Tasks {
    #[must_use]
    pub fn new(client: Client, version: u64) -> Self {
        Self { client, service: format!("containerd.task.v{version}.Task") }
    }

    /// Any call by its name.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn call(&self, method: &str, message: &Message) -> Answer {
        self.client.call(&self.service, method, message)
    }

    /// Sends a call and does not wait.
    pub fn send(&self, method: &str, message: &Message) -> Pending {
        self.client.send(&self.service, method, message)
    }

    /// Any call, to be answered within `limit`, of a container or with `exec_id` of an exec.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn call_within(&self, method: &str, id: &str, exec_id: &str, limit: Duration) -> Answer {
        self.client.send_within(&self.service, method, &process(id, exec_id), limit).wait()
    }

    /// Create, to be answered within `limit`.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn create_within(&self, create: &Create, limit: Duration) -> Answer {
        self.client.send_within(&self.service, "Create", &create.message(), limit).wait()
    }

    /// Sends Create and does not wait.
    pub fn creating(&self, create: &Create) -> Pending {
        self.send("Create", &create.message())
    }

    /// State of the container, or with `exec_id` of an exec.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn state(&self, id: &str, exec_id: &str) -> Answer {
        self.call("State", &process(id, exec_id))
    }

    /// The status in it.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn status(&self, id: &str, exec_id: &str) -> Result<Status, Failure> {
        Ok(Status::of(self.state(id, exec_id)?.number(4)))
    }

    /// Waits for a status.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn wait_status(&self, id: &str, exec_id: &str, status: Status) {
        wait_until(&format!("{status:?} of {id} {exec_id}"), || match self.status(id, exec_id) {
            Ok(seen) if seen == status => Ok(()),
            seen => Err(format!("{seen:?}")),
        });
    }

    /// # Errors
    /// What the shim answered.
    pub fn create(&self, create: &Create) -> Result<i32, Failure> {
        Ok(pid(&self.call("Create", &create.message())?, 1))
    }

    /// # Errors
    /// What the shim answered.
    pub fn start(&self, id: &str, exec_id: &str) -> Result<i32, Failure> {
        Ok(pid(&self.call("Start", &process(id, exec_id))?, 1))
    }

    /// Gives the exit status.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn delete(&self, id: &str, exec_id: &str) -> Result<u64, Failure> {
        Ok(self.call("Delete", &process(id, exec_id))?.number(2))
    }

    /// The pids of every process in the container.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn pids(&self, id: &str) -> Result<Vec<i32>, Failure> {
        let answer = self.call("Pids", &container(id))?;
        Ok(answer.messages(1).iter().map(|info| pid(info, 1)).collect())
    }

    /// # Errors
    /// What the shim answered.
    pub fn pause(&self, id: &str) -> Answer {
        self.call("Pause", &container(id))
    }

    /// # Errors
    /// What the shim answered.
    pub fn resume(&self, id: &str) -> Answer {
        self.call("Resume", &container(id))
    }

    /// # Errors
    /// What the shim answered.
    pub fn kill(&self, id: &str, exec_id: &str, signal: u32) -> Answer {
        self.call("Kill", &process(id, exec_id).number(3, signal.into()))
    }

    /// # Errors
    /// What the shim answered.
    pub fn kill_all(&self, id: &str, signal: u32) -> Answer {
        self.call("Kill", &container(id).number(3, signal.into()).flag(4, true))
    }

    /// # Errors
    /// What the shim answered.
    pub fn exec(&self, id: &str, exec: &Exec) -> Answer {
        let message = process(id, &exec.exec_id)
            .flag(3, exec.terminal)
            .text(4, &exec.stdin)
            .text(5, &exec.stdout)
            .text(6, &exec.stderr)
            .message(7, &any_json("Process", &exec.process));
        self.call("Exec", &message)
    }

    /// # Errors
    /// What the shim answered.
    pub fn resize(&self, id: &str, exec_id: &str, (columns, rows): (u64, u64)) -> Answer {
        self.call("ResizePty", &process(id, exec_id).number(3, columns).number(4, rows))
    }

    /// # Errors
    /// What the shim answered.
    pub fn close_stdin(&self, id: &str, exec_id: &str) -> Answer {
        self.call("CloseIO", &process(id, exec_id).flag(3, true))
    }

    /// # Errors
    /// What the shim answered.
    pub fn update(&self, id: &str, resources: &Value) -> Answer {
        self.call("Update", &container(id).message(2, &any_json("LinuxResources", resources)))
    }

    /// Waits for the end, and gives the exit status.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn wait(&self, id: &str, exec_id: &str) -> Result<u64, Failure> {
        Ok(self.call("Wait", &process(id, exec_id))?.number(1))
    }

    /// Asks to wait, and does not.
    pub fn waiting(&self, id: &str, exec_id: &str) -> Pending {
        self.send("Wait", &process(id, exec_id))
    }

    /// The metrics' type and message.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn stats(&self, id: &str) -> Result<(String, Fields), Failure> {
        let stats = self.call("Stats", &container(id))?.message(1);
        Ok((stats.text(1), stats.message(2)))
    }

    /// The shim's pid and the task's.
    ///
    /// # Errors
    /// What the shim answered.
    pub fn connect(&self, id: &str) -> Result<(i32, i32), Failure> {
        let answer = self.call("Connect", &container(id))?;
        Ok((pid(&answer, 1), pid(&answer, 2)))
    }

    /// Asks the shim to leave; it may end before it answers.
    pub fn shutdown(&self, id: &str) -> Answer {
        self.call("Shutdown", &container(id))
    }

    /// Create and Start, expected to succeed; gives the pid.
    ///
    /// # Panics
    /// When one fails.
    #[track_caller]
    pub fn run(&self, create: &Create) -> i32 {
        let created = self.create(create).unwrap_or_else(|e| panic!("Create {}: {e}", create.id));
        let started = self.start(&create.id, "").unwrap_or_else(|e| panic!("Start {}: {e}", create.id));
        assert_eq!(created, started, "Create and Start name one process");
        started
    }

    /// Exec, Start and Wait, expected to succeed, and Delete; gives the exit status.
    ///
    /// # Panics
    /// When one fails.
    #[track_caller]
    pub fn run_exec(&self, id: &str, exec: &Exec) -> u64 {
        let exec_id = &exec.exec_id;
        self.exec(id, exec).unwrap_or_else(|e| panic!("Exec {exec_id}: {e}"));
        self.start(id, exec_id).unwrap_or_else(|e| panic!("Start {exec_id}: {e}"));
        let status = self.wait(id, exec_id).unwrap_or_else(|e| panic!("Wait {exec_id}: {e}"));
        let deleted = self.delete(id, exec_id).unwrap_or_else(|e| panic!("Delete {exec_id}: {e}"));
        assert_eq!(status, deleted, "Wait and Delete give one status");
        status
    }

    /// Kills the container, waits, deletes it and has the shim leave.
    ///
    /// # Panics
    /// When one fails, or the shim stays.
    #[track_caller]
    pub fn end(&self, id: &str) {
        let _ = self.kill_all(id, 9);
        self.wait(id, "").unwrap_or_else(|e| panic!("Wait {id}: {e}"));
        self.delete(id, "").unwrap_or_else(|e| panic!("Delete {id}: {e}"));
        self.leave(id);
    }

    /// Shutdown, and the connection's end with the shim's.
    ///
    /// # Panics
    /// When the shim stays.
    #[track_caller]
    pub fn leave(&self, id: &str) {
        let answer = self.shutdown(id);
        self.client.hang_up();
        wait_until("the shim's end", || {
            if self.client.is_closed() { Ok(()) } else { Err(format!("Shutdown: {answer:?}")) }
        });
    }
}

fn container(id: &str) -> Message {
    Message::new().text(1, id)
}

fn process(id: &str, exec_id: &str) -> Message {
    container(id).text(2, exec_id)
}

fn pid(fields: &Fields, field: u32) -> i32 {
    i32::try_from(fields.number(field)).unwrap_or(-1)
}
