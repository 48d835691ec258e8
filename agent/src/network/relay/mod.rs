//! Published ports of the routing mesh whose tasks are told the client's address (the label `ketch.publish.proxy`): connections to
//! them are carried by one small process on each node, and by nothing else of the mesh.
//!
//! ```text
//! client --> the port's sockets --> relay, in the namespace of the mesh's network --header, then splice(2)--> a task, anywhere
//!                the daemon's, given by [channel] with where they lead
//! ```
//! The daemon keeps the sockets: the port stays its own when the process is killed, and what waits there is taken by the next one.
//! This file starts the process, tells it what it has not been told, and starts it again. [`process`] is its life there, [`jail`] what
//! it gives up before, [`server`] its loop, [`listening`], [`connection`] and [`flow`] what that holds, [`header`] what backends read.
//!
//! When the daemon ends, the process takes nothing new, and carries what it has to its end: the next daemon starts another.

mod channel;
mod connection;
mod flow;
mod header;
mod jail;
mod listening;
pub mod process;
mod say;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tracing::{info, warn};

use self::channel::{Word, tell};
use super::{namespace, set};
use crate::error::{Error, Result};
use crate::locks::locked;

/// A relay that does not read for so long is none.
const READS_WITHIN: Duration = Duration::from_secs(2);
/// Before one that has ended is started again: the first time, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that has served for so long ended by something new.
const WELL: Duration = Duration::from_secs(10);

/// Where a port's connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leads {
    /// In turn.
    pub(super) backends: Vec<SocketAddr>,
    /// Connections that are there go on with these too.
    pub(super) stay: BTreeSet<SocketAddr>,
}

/// The ports that are carried on this node, and the process that carries them while there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Relay(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ports: BTreeMap<u16, Port>,
    /// The namespace that the process is to be in.
    space: Option<Space>,
    running: Option<Running>,
    started: u64,
    /// Before the last one was started again.
    pause: Duration,
}

#[derive(Debug)]
struct Port {
    /// As the daemon's [`super::ports`] has them.
    listeners: Vec<OwnedFd>,
    leads: Leads,
}

/// A namespace, by its file and what is bound there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Space {
    file: PathBuf,
    bound: (u64, u64),
}

/// A process, as long as it is told ports; dropped, it carries what it has to its end.
#[derive(Debug)]
struct Running {
    number: u64,
    channel: UnixStream,
    process: OwnedFd,
    since: Instant,
    /// What it knows.
    told: BTreeMap<u16, Leads>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.channel.shutdown(Shutdown::Write);
    }
}

impl Relay {
    /// Carries these ports and no others, from the namespace of this file. `listeners` gives the sockets of a port that is new.
    ///
    /// # Errors
    /// The process can't be started: it is tried again, as long as there is anything to carry.
    pub(super) fn set(
        &self,
        space: &Path,
        ports: &BTreeMap<u16, Leads>,
        listeners: impl Fn(u16) -> io::Result<Vec<OwnedFd>>,
    ) -> Result<()> {
        let mut state = locked(&self.0);
        state.ports.retain(|port, _| ports.contains_key(port));
        for (port, leads) in ports {
            match state.ports.get_mut(port) {
                Some(known) => known.leads.clone_from(leads),
                None => {
                    let listeners = listeners(*port).map_err(|error| {
                        Error::internal(format_args!("the sockets of the port {port}"), &error)
                    })?;
                    let _none = state.ports.insert(*port, Port { listeners, leads: leads.clone() });
                }
            }
        }
        if state.ports.is_empty() {
            (state.running, state.space) = (None, None);
            return Ok(());
        }
        let now = Space::of(space)?;
        if state.space.as_ref() != Some(&now) {
            (state.running, state.space) = (None, Some(now));
        }
        self.renew(&mut state)
    }

    /// Its sockets are closed.
    pub(super) fn forget(&self, port: u16) {
        let mut state = locked(&self.0);
        if state.ports.remove(&port).is_some() {
            state.tell_changes();
        }
    }

    /// Carries nothing any more.
    pub(super) fn end(&self) {
        let mut state = locked(&self.0);
        (state.running, state.space) = (None, None);
        state.ports.clear();
    }

    /// How many ports are carried, and how often a process was started for any.
    pub(super) fn figures(&self) -> (usize, u64) {
        let state = locked(&self.0);
        (state.ports.len(), state.started)
    }

    /// Has the process know what it is to, and be there.
    fn renew(&self, state: &mut State) -> Result<()> {
        if state.running.is_none() {
            self.start(state)?;
        }
        state.tell_changes();
        Ok(())
    }

    fn start(&self, state: &mut State) -> Result<()> {
        let Some(space) = state.space.clone() else { return Ok(()) };
        let failed = |error: io::Error| Error::internal("starting the relay of published ports", &error);
        let (own, its) = UnixStream::pair().map_err(failed)?;
        own.set_write_timeout(Some(READS_WITHIN)).map_err(failed)?;
        let said = own.try_clone().map_err(failed)?;
        let child = namespace::enter(&space.file, || {
            // All connections to a backend come from one address: those that have ended are no reason not to begin another.
            set("/proc/sys/net/ipv4/tcp_tw_reuse", "1")?;
            set("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
            command().stdin(Stdio::from(OwnedFd::from(its))).spawn().map_err(failed)
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let process = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        let process = process.map_err(|error| failed(error.into()))?;
        state.started += 1;
        let number = state.started;
        info!("published ports with the label ketch.publish.proxy are carried by the process {}", child.id());
        let relay = Arc::downgrade(&self.0);
        let watch = move || watch(&relay, number, (child, said));
        let watching = thread::Builder::new().name("relay".to_owned()).stack_size(256 << 10).spawn(watch);
        if let Err(error) = watching {
            // Nobody would know of its end.
            let _gone = rustix::process::pidfd_send_signal(&process, Signal::KILL);
            let _ended = rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
            return Err(failed(error));
        }
        // He who watches waits for the lock.
        state.running =
            Some(Running { number, channel: own, process, since: Instant::now(), told: BTreeMap::new() });
        Ok(())
    }

    /// Starts another after one that has ended but was not to.
    fn start_again(&self, number: u64, ended: io::Result<ExitStatus>) {
        let mut pause = {
            let mut state = locked(&self.0);
            let Some(running) = state.running.take_if(|it| it.number == number) else { return };
            match ended {
                Ok(status) => warn!("the relay of published ports has ended ({status}): another is started"),
                Err(error) => warn!("the relay of published ports is lost ({error}): another is started"),
            }
            state.pause = pause(state.pause, running.since.elapsed());
            state.pause
        };
        loop {
            thread::sleep(pause);
            let mut state = locked(&self.0);
            if state.running.is_some() || state.ports.is_empty() {
                return;
            }
            match self.renew(&mut state) {
                Ok(()) => return,
                Err(error) => warn!("{error}"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Before another is started after one that has served for so long: what keeps it from living keeps the next one too.
fn pause(before: Duration, served: Duration) -> Duration {
    if served < WELL { (before * 2).clamp(LONGEST_PAUSE / 10, LONGEST_PAUSE) } else { PAUSE }
}

/// Logs what a process says, and has another started when it ends, if there is a daemon still.
fn watch(relay: &Weak<Mutex<State>>, number: u64, (mut child, said): (Child, UnixStream)) {
    for line in BufReader::new(said).lines().map_while(io::Result::ok) {
        warn!("published ports: {line}");
    }
    let ended = child.wait();
    if let Some(relay) = relay.upgrade() {
        Relay(relay).start_again(number, ended);
    }
}

impl State {
    /// Tells the process what it does not know yet. One that does not listen is ended, and with that started again.
    fn tell_changes(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Err(error) = running.tell(&self.ports) {
            warn!("the relay of published ports does not listen: {error}");
            let _gone = rustix::process::pidfd_send_signal(&running.process, Signal::KILL);
        }
    }
}

impl Running {
    fn tell(&mut self, ports: &BTreeMap<u16, Port>) -> io::Result<()> {
        let gone: Vec<u16> = self.told.keys().filter(|port| !ports.contains_key(port)).copied().collect();
        for port in gone {
            tell(&self.channel, &Word::Closed { port }, &[])?;
            drop(self.told.remove(&port));
        }
        for (port, Port { listeners, leads }) in ports {
            let before = self.told.get(port);
            if before == Some(leads) {
                continue;
            }
            let is_new = before.is_none();
            let (backends, stay) = (leads.backends.clone(), leads.stay.iter().copied().collect());
            // Where it leads is known before anything comes.
            tell(&self.channel, &Word::Leads { port: *port, backends, stay }, &[])?;
            if is_new {
                tell(&self.channel, &Word::Opened { port: *port, listeners: listeners.len() }, listeners)?;
            }
            let _before = self.told.insert(*port, leads.clone());
        }
        Ok(())
    }
}

impl Space {
    fn of(file: &Path) -> Result<Self> {
        let failed = |error| Error::internal(format_args!("looking at {}", file.display()), &error);
        let metadata = std::fs::metadata(file).map_err(failed)?;
        Ok(Self { file: file.to_owned(), bound: (metadata.dev(), metadata.ino()) })
    }
}

/// This very program, by its open file: an update takes what is at the path away. What ends the daemon is not for it too, and whoever
/// waits for the end of the daemon's output does not wait for it.
fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    let _command = command.arg0(process::NAME).env_clear().process_group(0);
    let _command = command.stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(test)]
    tests::make_relay_of(&mut command);
    command
}
