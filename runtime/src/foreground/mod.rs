//! What `run` and `exec` do while their process runs in the foreground: pass stdio and signals on, reap, take its status.
//!
//! One thread, one poll loop. [`Foreground::prepare`] comes before the process is made, so that no signal is lost in
//! between; [`Foreground::attend`] lasts until the process has ended; [`Foreground::finish`] until its output has.
//! The process itself must call `ketch_sys::signal::reset` before it execs. Called by `cli`.

mod notify;
mod relay;
mod stdio;
mod tty;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use ketch_sys::poll::{self, Until};
use ketch_sys::process::{self, ExitStatus};
use ketch_sys::signal::{self, SignalQueue};
use ketch_sys::{Errno, SyscallError, stream};

use crate::log;
pub use notify::NotifySocket;
use relay::Relay;
pub use stdio::{Attachment, Connection, ConnectionError, HostEnd, activation_sockets};
pub use tty::HostTerminal;

/// Something in the foreground's machinery failed.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError {
    /// Signals could not be taken.
    #[error("take signals")]
    Signals(#[source] SyscallError),
    /// Waiting for events failed.
    #[error("wait for the process")]
    Wait(#[source] SyscallError),
    /// The caller has no terminal to show the container's on.
    #[error("open /dev/tty")]
    OpenTerminal(#[source] io::Error),
    /// The process did not send its terminal.
    #[error("the process sent no terminal")]
    NoTerminal,
    /// A terminal could not be set up.
    #[error("set up the terminal")]
    Terminal(#[source] SyscallError),
    /// The caller's stdin, stdout or stderr could not be used.
    #[error("use standard stream {stream}")]
    Stdio {
        /// 0, 1 or 2.
        stream: i32,
        /// Why.
        source: io::Error,
    },
    /// The notification socket failed.
    #[error("notify socket {}", path.display())]
    Notify {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The process's stdio as the runtime holds it.
#[derive(Debug)]
pub enum Stdio {
    /// The process has the caller's own.
    Inherited,
    /// The runtime's ends of three pipes.
    Pipes {
        /// To be written.
        stdin: OwnedFd,
        /// To be read.
        stdout: OwnedFd,
        /// To be read.
        stderr: OwnedFd,
    },
    /// The master of the process's terminal.
    Terminal {
        /// The master.
        master: OwnedFd,
        /// What it is shown on.
        host: HostTerminal,
    },
}

/// Whether orphaned descendants become children of the runtime, to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subreaper {
    /// They do.
    Enabled,
    /// They go to the init of the pid namespace (`--no-subreaper`, and `exec`).
    Disabled,
}

/// The process that is attended to.
#[derive(Debug, Clone, Copy)]
pub struct Attended<'a> {
    /// Its pid.
    pub pid: i32,
    /// The same by descriptor: where signals go.
    pub pidfd: BorrowedFd<'a>,
}

impl Attended<'_> {
    /// Ends a process that its caller could not be told about.
    pub fn terminate(self) {
        let _ = process::pidfd_send_signal(self.pidfd, signal::KILL);
        let _ = process::wait(self.pidfd);
    }
}

/// The runtime in the foreground: signals are taken from here on.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalQueue,
    relays: Vec<Relay>,
    terminal: Option<(OwnedFd, HostTerminal)>,
}

impl Foreground {
    /// Takes over the signals of the runtime.
    pub fn prepare(subreaper: Subreaper) -> Result<Self, ForegroundError> {
        if subreaper == Subreaper::Enabled
            && let Err(error) = process::set_child_subreaper()
        {
            log::warn(error);
        }
        let signals = SignalQueue::open().map_err(ForegroundError::Signals)?;
        Ok(Self { signals, relays: Vec::new(), terminal: None })
    }

    /// Attaches the caller's stdio to the process's.
    pub fn connect(&mut self, stdio: Stdio) -> Result<(), ForegroundError> {
        match stdio {
            Stdio::Inherited => {}
            Stdio::Pipes { stdin, stdout, stderr } => {
                for pipe in [&stdin, &stdout, &stderr] {
                    stream::set_nonblocking(pipe).map_err(ForegroundError::Wait)?;
                }
                self.relays.push(Relay::new(standard(0)?, stdin));
                self.relays.push(Relay::new(stdout, standard(1)?));
                self.relays.push(Relay::new(stderr, standard(2)?));
            }
            Stdio::Terminal { master, host } => {
                host.set_raw()?;
                stream::set_nonblocking(&master).map_err(ForegroundError::Terminal)?;
                let copy =
                    |stream| master.try_clone().map_err(|source| ForegroundError::Stdio { stream, source });
                self.relays.push(Relay::new(standard(0)?, copy(0)?));
                self.relays.push(Relay::new(copy(1)?, standard(1)?));
                self.terminal = Some((master, host));
            }
        }
        Ok(())
    }

    /// Copies, forwards and reaps until `process` has ended. Readiness that comes by `notify` is told with the runtime's
    /// own pid, since it is the one that the caller started.
    pub fn attend(
        &mut self,
        process: Attended<'_>,
        notify: Option<&NotifySocket>,
    ) -> Result<ExitStatus, ForegroundError> {
        let mut notify = notify;
        // It may have ended before its SIGCHLD could be queued for us.
        if let Some(status) = reap(process.pid)? {
            return Ok(status);
        }
        loop {
            // The process beside its SIGCHLD: a signal that gets lost must not make this wait for ever.
            let mut waits = vec![(self.signals.as_fd(), Until::Readable), (process.pidfd, Until::Readable)];
            waits.extend(notify.map(|socket| (socket.as_fd(), Until::Readable)));
            let relayed = waits.len();
            let busy: Vec<usize> =
                (0..self.relays.len()).filter(|at| self.relays[*at].wait_for().is_some()).collect();
            waits.extend(busy.iter().filter_map(|at| self.relays[*at].wait_for()));
            let ready = poll::wait(&waits).map_err(ForegroundError::Wait)?;
            for (at, ready) in busy.iter().zip(&ready[relayed..]) {
                if *ready {
                    self.relays[*at].advance();
                }
            }
            if let Some(socket) = notify
                && ready[2]
            {
                match socket.forward(process::own_pid()) {
                    Ok(false) => {}
                    Ok(true) => notify = None,
                    Err(error) => {
                        log::warn(crate::error::chain(&error));
                        notify = None;
                    }
                }
            }
            if ready[0]
                && let Some(status) = self.take_signals(process)?
            {
                return Ok(status);
            }
            if ready[1] {
                return match reap(process.pid)? {
                    Some(status) => Ok(status),
                    // Its tracer is told first, and then this wait; or its status is nobody's, which is an error.
                    None => process::wait(process.pidfd).map_err(ForegroundError::Wait),
                };
            }
        }
    }

    /// Copies what the process has still written, until everyone who could write has ended or closed; a signal that asks
    /// the runtime to end cuts that short. Puts the caller's terminal back.
    pub fn finish(mut self) -> Result<(), ForegroundError> {
        if self.terminal.is_some() {
            // Others may hold the terminal open for as long as they like; the keyboard has nobody to go to.
            if let Some(output) = self.relays.get_mut(1) {
                output.drain();
            }
            return Ok(());
        }
        if !self.relays.is_empty() {
            self.relays.remove(0);
        }
        loop {
            self.relays.retain(|relay| relay.wait_for().is_some());
            if self.relays.is_empty() {
                return Ok(());
            }
            let mut waits = vec![(self.signals.as_fd(), Until::Readable)];
            waits.extend(self.relays.iter().filter_map(Relay::wait_for));
            let ready = poll::wait(&waits).map_err(ForegroundError::Wait)?;
            for (relay, ready) in self.relays.iter_mut().zip(&ready[1..]) {
                if *ready {
                    relay.advance();
                }
            }
            while let Some(signal) = self.signals.next().map_err(ForegroundError::Signals)? {
                if matches!(signal, signal::TERMINATE | signal::INTERRUPT | signal::HANGUP | signal::QUIT) {
                    return Ok(());
                }
            }
        }
    }

    fn take_signals(&self, process: Attended<'_>) -> Result<Option<ExitStatus>, ForegroundError> {
        let mut ended = None;
        while let Some(signal) = self.signals.next().map_err(ForegroundError::Signals)? {
            match signal {
                signal::CHILD => ended = reap(process.pid)?.or(ended),
                signal::WINDOW_CHANGE => {
                    if let Some((master, host)) = &self.terminal {
                        host.copy_size_to(master.as_fd());
                    }
                }
                // runc keeps this one to itself, as its language's scheduler uses it.
                signal::URGENT => {}
                signal => forward(process, signal),
            }
        }
        Ok(ended)
    }
}

fn forward(process: Attended<'_>, signal: i32) {
    log::debug(format_args!("forwarding signal {signal} to {}", process.pid));
    match process::pidfd_send_signal(process.pidfd, signal) {
        Ok(()) => {}
        // It has just ended, and its SIGCHLD is on the way.
        Err(error) if error.errno == Errno::ESRCH => {}
        Err(error) => log::warn(error),
    }
}

/// Reaps every child that has ended; the status of `pid` when it is one of them.
fn reap(pid: i32) -> Result<Option<ExitStatus>, ForegroundError> {
    let mut found = None;
    while let Some((ended, status)) = process::reap_any().map_err(ForegroundError::Wait)? {
        log::debug(format_args!("process {ended} exited with {}", status.code()));
        if ended == pid {
            found = Some(status);
        }
    }
    Ok(found)
}

/// A descriptor of its own for one of the caller's streams. One that the caller had closed is /dev/null by now: Rust's
/// start-up sees to that.
fn standard(stream: i32) -> Result<OwnedFd, ForegroundError> {
    let own = match stream {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        _ => io::stderr().as_fd().try_clone_to_owned(),
    };
    own.map_err(|source| ForegroundError::Stdio { stream, source })
}
