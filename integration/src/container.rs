//! A container that the runtime under test made: its commands, its state, and its removal at the end of the test.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::case::Case;
use crate::runtime::{Invocation, Output};
use crate::wait::wait_until;

/// Removed with `delete --force` when dropped, whatever became of the test; the leak check follows.
#[derive(Debug)]
pub struct Container<'a> {
    pub case: &'a Case,
    pub id: String,
    created: Option<Output>,
}

impl<'a> Container<'a> {
    /// Takes over the removal of a container that the test made by itself, or may have made.
    #[must_use]
    pub fn adopt(case: &'a Case, id: &str) -> Self {
        Self { case, id: id.to_owned(), created: None }
    }

    pub(crate) fn created(case: &'a Case, id: &str, output: Output) -> Self {
        Self { case, id: id.to_owned(), created: Some(output) }
    }

    /// A command of the runtime on this container: `command id args...`.
    #[must_use]
    pub fn command(&self, command: &str, args: &[&str]) -> Invocation {
        self.case.ketch().arg(command).arg(&self.id).args(args)
    }

    /// `start`.
    #[must_use]
    pub fn start(&self) -> Output {
        self.command("start", &[]).run()
    }

    /// `kill`.
    #[must_use]
    pub fn kill(&self, signal: &str) -> Output {
        self.command("kill", &[signal]).run()
    }

    /// `delete` without force.
    #[must_use]
    pub fn delete(&self) -> Output {
        self.command("delete", &[]).run()
    }

    /// `exec` in the foreground.
    #[must_use]
    pub fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(&[], args)
    }

    /// `exec` with flags before the id.
    #[must_use]
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Output {
        self.case.ketch().arg("exec").args(flags).arg(&self.id).args(args).run()
    }

    /// `exec` of a shell script, expected to succeed; gives what it wrote, trimmed.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[must_use]
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["/bin/sh", "-c", script]).ok().text().to_owned()
    }

    /// `state`, expected to succeed.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> Value {
        self.command("state", &[]).run().ok().json()
    }

    /// The status, or `gone` when there is no such container.
    #[must_use]
    pub fn status(&self) -> String {
        let out = self.command("state", &[]).run();
        if out.code == 0 {
            out.json()["status"].as_str().unwrap_or("?").to_owned()
        } else {
            "gone".to_owned()
        }
    }

    /// The pid of the container's first process on the host.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        let state = self.state();
        let pid = state["pid"].as_i64().filter(|pid| *pid > 0);
        let pid = pid.unwrap_or_else(|| panic!("no pid in {state}"));
        i32::try_from(pid).expect("a pid")
    }

    /// A file of the first process under /proc.
    #[track_caller]
    #[must_use]
    pub fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid()))
    }

    /// Waits for a status.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        wait_until(&format!("status {status}"), || {
            let seen = self.status();
            if seen == status { Ok(()) } else { Err(seen) }
        });
    }

    /// Waits for a status, and leaves the removal to somebody else.
    #[track_caller]
    pub fn wait_status_and_keep(self, status: &str) {
        self.wait_status(status);
        std::mem::forget(self);
    }

    /// Sends SIGKILL and waits until it is stopped.
    #[track_caller]
    pub fn stop(&self) {
        let _ = self.kill("KILL").ok();
        self.wait_status("stopped");
    }

    /// `update` with resources on standard input.
    #[must_use]
    pub fn update(&self, resources: &Value) -> Output {
        let bytes = serde_json::to_vec(resources).expect("a JSON value");
        self.case.ketch().args(["update", "--resources", "-"]).arg(&self.id).stdin(bytes).run()
    }

    /// What the container has written so far: standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.created.as_ref().map(Output::stdout_now).unwrap_or_default()
    }

    /// What the container has written so far: standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.created.as_ref().map(Output::stderr_now).unwrap_or_default()
    }

    /// Waits until the container has written `text` to standard output.
    #[track_caller]
    pub fn wait_stdout(&self, text: &str) {
        wait_until(&format!("{text:?} on stdout"), || {
            let seen = self.stdout();
            if seen.contains(text) { Ok(()) } else { Err(seen) }
        });
    }

    /// The process file that `exec --process` takes, with the defaults of the harness.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn process_file(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut process = json!({
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/"
        });
        change(&mut process);
        let path = self.case.dir.join(format!("process-{}.json", self.case.fresh_id()));
        fs::write(&path, process.to_string()).expect("write the process file");
        path
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.case.state_root().join(&self.id).exists() {
            let _ = self.case.ketch().args(["delete", "--force"]).arg(&self.id).run();
        }
    }
}
