//! criu as a process: found, started, spoken to.
//!
//! ```text
//!   ketch                                     criu swrk 3
//!     | request ------------------------------> |
//!     | <------------------------------- NOTIFY |   at points of its way: it waits there
//!     | NOTIFY, success or not ---------------> |   without success it undoes what it has done
//!     | <------------------------------- answer |   whether it was done
//! ```
//! Each packet of the socket is one message. What criu is started with besides has the numbers from 4 on.
//!
//! criu finds the folders of a request by the number that they have in the process which made the socket, and mounts things
//! in one of them. So the process that becomes criu makes both, in its own mount namespace, and hands the other end over.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ketch_sys::process::{self, Child, CloneOptions, CloneParent, Cloned, Exec, ExitStatus};
use ketch_sys::socket::{self, SocketKind};
use ketch_sys::{Errno, path, signal};

use super::error::{CriuError, step};
use super::message::{self, Features, Folders, Kind, Response};
use crate::cgroup::JoinFile;
use crate::log;
use crate::plan::criu::bounds::NoNewPrivileges;
use crate::process::environment;

/// The oldest that has all of what is relied on: external pid namespaces, cgroup v2's freezer, the notification that a page
/// server is ready (3.15), LSM profiles at a restore (3.16), a pre-dump by itself (3.17).
const LEAST: (i32, i32, i32) = (3, 17, 0);
/// The first that restores no_new_privs.
const NO_NEW_PRIVILEGES: (i32, i32, i32) = (3, 19, 0);
/// criu's end of the socket.
const SOCKET: i32 = 3;
/// The first number of what else criu is started with.
const FIRST_EXTRA: i32 = SOCKET + 1;
/// Answers are short; a notification's descriptors come beside it.
const ANSWER_LIMIT: usize = 40 * 1024;

/// The program.
#[derive(Debug)]
pub(super) struct Criu {
    program: CString,
    version: (i32, i32, i32),
}

/// How criu is started.
pub(super) struct Start<'a> {
    /// Its standard streams; the caller's without.
    pub(super) streams: Option<&'a [OwnedFd; 3]>,
    /// Folders that it gets as descriptors, the first as number 4.
    pub(super) folders: Vec<&'a Path>,
    /// Further descriptors, behind those.
    pub(super) extra: Vec<BorrowedFd<'a>>,
    /// Namespaces to make for it.
    pub(super) namespaces: u64,
    /// The cgroup that it is born in.
    pub(super) into_cgroup: Option<BorrowedFd<'a>>,
    /// Cgroups that it enters by itself.
    pub(super) cgroup_files: &'a [JoinFile],
    /// What is done in its process before it is criu.
    pub(super) prepare: Option<&'a dyn Fn() -> Result<(), String>>,
}

impl<'a> Start<'a> {
    /// Adds the folders of a request; gives the numbers that they will have.
    pub(super) fn take_folders(&mut self, images: &'a Path, work: Option<&'a Path>) -> Folders {
        self.folders = std::iter::once(images).chain(work).collect();
        Folders { images: FIRST_EXTRA, work: work.map(|_| FIRST_EXTRA + 1) }
    }

    /// The number that the first of the further descriptors will have.
    pub(super) fn first_extra(&self) -> i32 {
        FIRST_EXTRA + i32::try_from(self.folders.len()).unwrap_or(0)
    }

    /// As a child that shares everything with the caller.
    pub(super) fn plain() -> Self {
        Self {
            streams: None,
            folders: Vec::new(),
            extra: Vec::new(),
            namespaces: 0,
            into_cgroup: None,
            cgroup_files: &[],
            prepare: None,
        }
    }
}

/// A running criu. Dropped, it is waited for: without its socket it has nobody to answer, and ends.
#[derive(Debug)]
pub(super) struct Session {
    socket: Option<OwnedFd>,
    child: Option<Child>,
}

/// What is done at a notification; an error makes criu undo what it has done.
pub(super) type OnNotify<'a> =
    &'a mut dyn FnMut(&Response, Vec<OwnedFd>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Criu {
    /// Finds criu on PATH and asks for its version.
    pub(super) fn find() -> Result<Self, CriuError> {
        let env: Vec<String> = std::env::var("PATH").map(|path| format!("PATH={path}")).into_iter().collect();
        let program = environment::find_program("criu", &env).map_err(CriuError::Missing)?;
        let mut criu = Self { program, version: (0, 0, 0) };
        let answer = criu.ask(&message::bare(Kind::Version))?;
        let text = |(major, minor, third): (i32, i32, i32)| format!("{major}.{minor}.{third}");
        log::debug(format_args!("using criu {}", text(answer.version)));
        if answer.version < LEAST {
            return Err(CriuError::TooOld { found: text(answer.version), least: text(LEAST) });
        }
        criu.version = answer.version;
        Ok(criu)
    }

    /// What it makes of no_new_privs.
    pub(super) fn no_new_privileges(&self) -> NoNewPrivileges {
        if self.version < NO_NEW_PRIVILEGES { NoNewPrivileges::Lost } else { NoNewPrivileges::Restored }
    }

    /// Refuses what this criu or this kernel can't do.
    pub(super) fn check_features(&self, asked: Features) -> Result<(), CriuError> {
        let found = self.ask(&message::feature_check(asked))?.features;
        let missing: Vec<&str> = [
            ("MemTrack", asked.memory_tracking && !found.memory_tracking),
            ("LazyPages", asked.lazy_pages && !found.lazy_pages),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if missing.is_empty() { Ok(()) } else { Err(CriuError::MissingFeatures(missing.join(", "))) }
    }

    fn ask(&self, request: &[u8]) -> Result<Response, CriuError> {
        let mut session = self.start(&Start::plain())?;
        session.converse(request, &mut |_, _| Ok(()))
    }

    /// Starts `criu swrk`.
    pub(super) fn start(&self, start: &Start<'_>) -> Result<Session, CriuError> {
        let (report, their_report) = socket::pair(SocketKind::SeqPacket).map_err(step("starting criu"))?;
        let options = CloneOptions {
            namespaces: start.namespaces,
            into_cgroup: start.into_cgroup,
            parent: CloneParent::Caller,
        };
        let child = match process::clone3(&options).map_err(step("starting criu"))? {
            Cloned::Parent(child) => child,
            Cloned::Child => {
                drop(report);
                let Err(mut error) = self.become_criu(start, &their_report);
                error.truncate(error.floor_char_boundary(REPORT_LIMIT));
                let _nobody_listens = socket::send(&their_report, error.as_bytes(), &[]);
                process::exit_now(EXEC_FAILED)
            }
        };
        drop(their_report);
        let mut session = Session { socket: None, child: Some(child) };
        let mut text = [0; REPORT_LIMIT];
        let (length, fds) = socket::receive(&report, &mut text).map_err(step("starting criu"))?;
        session.socket = fds.into_iter().next();
        match (&session.socket, length) {
            (Some(_), _) => Ok(session),
            (None, 0) => Err(session.ended()),
            (None, _) => Err(CriuError::Preparation(String::from_utf8_lossy(&text[..length]).into_owned())),
        }
    }

    /// In the child: everything that can fail before the descriptors are moved, as that may close the report's.
    fn become_criu(&self, start: &Start<'_>, report: &OwnedFd) -> Result<std::convert::Infallible, String> {
        let text = |error: ketch_sys::SyscallError| error.to_string();
        signal::reset().map_err(text)?;
        start.cgroup_files.iter().try_for_each(JoinFile::join).map_err(text)?;
        if let Some(prepare) = start.prepare {
            prepare()?;
        }
        let open = |folder: &&Path| path::open_host(folder, path::READ | path::DIRECTORY);
        let folders: Vec<OwnedFd> = start.folders.iter().map(open).collect::<Result<_, _>>().map_err(text)?;
        let arguments = [self.program.clone(), c"swrk".into(), c"3".into()];
        let env = std::env::vars_os().filter_map(|(mut name, value)| {
            use std::os::unix::ffi::OsStringExt;
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        });
        let exec = Exec::new(self.program.clone(), arguments.to_vec(), env.collect());
        for (stream, number) in start.streams.into_iter().flatten().zip(0..) {
            path::duplicate_onto_standard_stream(stream, number).map_err(text)?;
        }
        let (theirs, ours) = socket::pair(SocketKind::SeqPacket).map_err(text)?;
        let mut fds = vec![ours.as_fd()];
        fds.extend(folders.iter().map(AsFd::as_fd));
        fds.extend(&start.extra);
        socket::send(report, b"criu", &[theirs.as_fd()]).map_err(text)?;
        drop(theirs);
        // From here on nobody is told but by the end of the socket.
        process::place_fds(&fds, SOCKET).map_err(text)?;
        // What this program's caller left open is not for criu, which would hand it on.
        let behind = i32::try_from(fds.len()).unwrap_or(i32::MAX - SOCKET) + SOCKET;
        process::close_on_exec_from(behind).map_err(text)?;
        let _refused = exec.replace_process();
        process::exit_now(EXEC_FAILED)
    }
}

/// The longest reason of a child that can't become criu.
const REPORT_LIMIT: usize = 4096;
/// The exit code of a child that could not execute criu, which was executable a moment ago.
const EXEC_FAILED: i32 = 127;

impl Session {
    /// Its number, for as long as it is not waited for.
    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// Sends a request, answers what criu has to tell on its way, and gives its last answer.
    pub(super) fn converse(&mut self, request: &[u8], notify: OnNotify<'_>) -> Result<Response, CriuError> {
        self.send(request)?;
        loop {
            let (response, fds) = self.receive()?;
            if !response.success {
                let kind = response.kind();
                let Response { errno, message, .. } = response;
                return Err(CriuError::Failed { kind, errno, message: message.trim().to_owned() });
            }
            if response.kind() != Kind::Notify {
                return Ok(response);
            }
            log::debug(format_args!("criu: {}", response.script));
            let outcome = notify(&response, fds);
            let sent = self.send(&message::notified(outcome.is_ok()));
            let Err(error) = outcome else {
                sent?;
                continue;
            };
            // Until it has undone everything, or is gone.
            let mut goes_on = sent.is_ok();
            while goes_on && let Ok((response, _)) = self.receive() {
                goes_on = response.kind() != Kind::Notify || self.send(&message::notified(true)).is_ok();
            }
            return Err(CriuError::Caller(error));
        }
    }

    /// Waits for its end; an error unless it says that all went well.
    pub(super) fn finish(mut self) -> Result<(), CriuError> {
        match self.wait() {
            Some(ExitStatus::Exited(0)) | None => Ok(()),
            Some(status) => Err(CriuError::Ended { status: described(status) }),
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        drop(self.socket.take());
        let child = self.child.take()?;
        process::wait(&child.pidfd).ok()
    }

    fn socket(&self) -> Result<BorrowedFd<'_>, CriuError> {
        let gone = || CriuError::Ended { status: "its socket is closed".to_owned() };
        self.socket.as_ref().map(AsFd::as_fd).ok_or_else(gone)
    }

    fn send(&mut self, message: &[u8]) -> Result<(), CriuError> {
        match socket::send(self.socket()?, message, &[]) {
            Err(error) if matches!(error.errno, Errno::EPIPE | Errno::ECONNRESET) => Err(self.ended()),
            other => other.map_err(step("sending a request to criu")),
        }
    }

    fn receive(&mut self) -> Result<(Response, Vec<OwnedFd>), CriuError> {
        let mut buffer = vec![0; ANSWER_LIMIT];
        match socket::receive(self.socket()?, &mut buffer) {
            Ok((0, _)) => Err(self.ended()),
            Err(error) if error.errno == Errno::ECONNRESET => Err(self.ended()),
            Ok((length, fds)) => Ok((Response::decode(&buffer[..length])?, fds)),
            Err(error) => Err(step("waiting for an answer of criu")(error)),
        }
    }

    fn ended(&mut self) -> CriuError {
        let status = match self.wait() {
            Some(ExitStatus::Exited(EXEC_FAILED)) => "it could not be executed".to_owned(),
            Some(status) => described(status),
            None => "its socket is closed".to_owned(),
        };
        CriuError::Ended { status }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _status = self.wait();
    }
}

fn described(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exit code {code}"),
        ExitStatus::Signaled(signal) => format!("signal {signal}"),
    }
}
