//! One test's world: its folder, state root, names, runtime and layout, and the ways out of a test that cannot run.

use std::fs;
use std::panic::panic_any;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bundle::Bundle;
use crate::layout::Layout;
use crate::runtime::{Invocation, Kind, Runtime};
use crate::user::{self, Caller};

/// Thrown by [`Case::skip`]; the suite counts it and prints the reason.
#[derive(Debug)]
pub struct Skip(pub String);

/// What a test gets.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub layout: Layout,
    pub runtime: Runtime,
    /// Who runs it.
    pub caller: Caller,
    /// Unique on the machine; part of every name that the case makes. Ends in `x`, so that no tag starts another.
    pub tag: String,
    /// The case's own folder, taken away at its end.
    pub dir: PathBuf,
    serial: AtomicUsize,
    notes: Mutex<Vec<String>>,
}

impl Case {
    /// Makes the folder of test `name`, the `number`th of this run.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn new(name: &str, number: usize, layout: Layout, caller: Caller, runtime: &Runtime) -> Self {
        let tag = format!("kit{}n{number}x", std::process::id());
        let dir = PathBuf::from("/tmp/ketch-integration").join(&tag);
        // What a failed test has left, whose suite had the same pid.
        let _ = fs::remove_dir_all(&dir);
        for folder in ["state", "io"] {
            fs::create_dir_all(dir.join(folder)).expect("make the case's folder");
        }
        let case = Self {
            name: name.into(),
            layout,
            runtime: runtime.clone(),
            caller,
            tag,
            dir,
            serial: AtomicUsize::new(0),
            notes: Mutex::default(),
        };
        case.give(&case.dir);
        case.give(case.state_root());
        case
    }

    /// The same case with another runtime.
    #[must_use]
    pub fn with_runtime(&self, runtime: Runtime) -> Self {
        Self {
            name: self.name.clone(),
            layout: self.layout,
            runtime,
            caller: self.caller,
            tag: self.tag.clone(),
            dir: self.dir.clone(),
            serial: AtomicUsize::new(self.serial.load(Ordering::Relaxed)),
            notes: Mutex::default(),
        }
    }

    /// Ends the test as skipped.
    pub fn skip(&self, reason: impl Into<String>) -> ! {
        panic_any(Skip(reason.into()))
    }

    /// Keeps what is to be told of the test should it fail.
    ///
    /// # Panics
    /// Never: no panic holds the notes.
    pub fn note(&self, text: String) {
        self.notes.lock().expect("no panic holds it").push(text);
    }

    /// What was kept so far.
    ///
    /// # Panics
    /// Never: no panic holds the notes.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().expect("no panic holds it").clone()
    }

    /// Goes on only when a fact of the machine holds.
    pub fn needs(&self, fact: bool, reason: &str) {
        if !fact {
            self.skip(reason);
        }
    }

    /// Goes on only with root as the caller.
    pub fn root_only(&self, reason: &str) {
        self.needs(self.caller == Caller::Root, &format!("root only: {reason}"));
    }

    /// Goes on only where the container gets a cgroup without being delegated one.
    pub fn needs_own_cgroup(&self) {
        self.root_only("a user's container has no cgroup but in what is delegated (rootless::)");
    }

    /// Gives a file or folder to whoever runs the runtime.
    pub fn give(&self, path: impl AsRef<Path>) {
        if self.caller == Caller::User {
            user::own(path.as_ref());
        }
    }

    /// Goes on only on the machine's own layout.
    pub fn native_only(&self, reason: &str) {
        self.needs(self.layout == Layout::Native, &format!("native layout only: {reason}"));
    }

    /// Goes on only where `/sys/fs/cgroup` is v1.
    pub fn v1_only(&self, reason: &str) {
        self.needs(!self.layout.is_v2(), &format!("cgroup v1 only: {reason}"));
    }

    /// Goes on only where `/sys/fs/cgroup` is v2.
    pub fn v2_only(&self, reason: &str) {
        self.needs(self.layout.is_v2(), &format!("cgroup v2 only: {reason}"));
    }

    /// Goes on only where the controller can be used.
    pub fn needs_controller(&self, controller: &str) {
        self.needs(
            self.layout.has_controller(controller),
            &format!("no {controller} controller in the {} layout", self.layout),
        );
    }

    /// Whether an old runc is being driven: older than `major.minor`.
    #[must_use]
    pub fn is_runc_before(&self, major: u32, minor: u32) -> bool {
        matches!(self.runtime.kind, Kind::Runc { major: a, minor: b } if (a, b) < (major, minor))
    }

    /// Marks what an old runc does not do or does otherwise: skipped there, with the reason.
    pub fn needs_runc(&self, major: u32, minor: u32, reason: &str) {
        if self.is_runc_before(major, minor) {
            self.skip(format!("{}: {reason} (since runc {major}.{minor})", self.runtime.version));
        }
    }

    /// Marks what runc of every age does otherwise, on purpose, with the reason.
    pub fn not_on_runc(&self, reason: &str) {
        if matches!(self.runtime.kind, Kind::Runc { .. }) {
            self.skip(format!("{}: {reason}", self.runtime.version));
        }
    }

    /// Marks what crun does otherwise.
    pub fn not_on_crun(&self, reason: &str) {
        if matches!(self.runtime.kind, Kind::Crun { .. }) {
            self.skip(format!("{}: {reason}", self.runtime.version));
        }
    }

    /// Marks peers that fall to an attack, by the beginnings of their versions: skipped with the reason, but for the table
    /// of `make attack` (KETCH_ATTACK_TABLE), which is to see them fall.
    pub fn falls(&self, known: &[(&str, &str)]) {
        if std::env::var_os("KETCH_ATTACK_TABLE").is_some() {
            return;
        }
        if let Some((_, reason)) = known.iter().find(|(version, _)| self.runtime.version.starts_with(version))
        {
            self.skip(format!("{} falls: {reason}", self.runtime.version));
        }
    }

    /// Marks what a build with a sanitiser can't do (KETCH_SANITISED, set by `make sanitise`).
    pub fn not_sanitised(&self, reason: &str) {
        self.needs(std::env::var_os("KETCH_SANITISED").is_none(), &format!("sanitised: {reason}"));
    }

    /// A name that no other container of the machine has.
    #[must_use]
    pub fn fresh_id(&self) -> String {
        format!("{}-{}", self.tag, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// A bundle with a busybox rootfs, a plain spec and a cgroup of its own.
    #[must_use]
    pub fn bundle(&self) -> Bundle<'_> {
        Bundle::new(self)
    }

    /// A new, empty folder of the case, outside of any rootfs.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).expect("make a folder of the case");
        self.give(&path);
        path
    }

    /// The state root that every command of this case uses.
    #[must_use]
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The runtime with the case's `--root`.
    #[must_use]
    pub fn ketch(&self) -> Invocation {
        self.bare().arg("--root").arg(self.state_root())
    }

    /// The runtime without any argument.
    #[must_use]
    pub fn bare(&self) -> Invocation {
        match self.caller {
            Caller::Root => self.program(&self.runtime.path),
            Caller::User => self.as_user(&self.runtime.path),
        }
    }

    /// A program, run by the user.
    #[must_use]
    pub fn as_user(&self, path: impl AsRef<Path>) -> Invocation {
        let invocation = self.program("/usr/bin/setpriv").args(user::become_user()).arg(path.as_ref());
        Invocation { caller: Caller::User, ..invocation }
    }

    /// Another program, run like the runtime: with timeout, captured output and the case's tag.
    #[must_use]
    pub fn program(&self, path: impl AsRef<Path>) -> Invocation {
        Invocation {
            program: path.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            folder: self.dir.join("io"),
            tag: self.tag.clone(),
            caller: Caller::Root,
            cwd: None,
            terminal: None,
        }
    }

    /// Whether a program is on PATH.
    #[must_use]
    pub fn has_program(&self, name: &str) -> bool {
        Command::new("/bin/sh")
            .args(["-c", &format!("command -v {name} >/dev/null")])
            .status()
            .is_ok_and(|s| s.success())
    }
}
