//! The serving process: what it holds, how it begins and ends. One thread; everything that waits is a task on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::bootstrap::{self, TTRPC_ADDRESS};
use crate::container::Container;
use crate::error::ShimError;
use crate::events::Events;
use crate::oom::OomWatch;
use crate::quiet::Quiet;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::waiting::{Changes, Tally};
use crate::{log, server, takeover};

/// How long events may hold up the end.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// How long answers may, that to Shutdown itself among them.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long who has his answer may take to hang up. A client in Go that reads an answer and the end of the connection in
/// one go takes either, and containerd takes the end for a failure of ShutdownSandbox.
const HANG_UP: Duration = Duration::from_secs(2);

/// Everything the shim has.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    /// The runtime that it executes unless a container's options name one.
    pub(crate) default_runtime: String,
    /// Its own socket.
    pub(crate) socket: PathBuf,
    pub(crate) reaper: Rc<Reaper>,
    pub(crate) events: Rc<Events>,
    pub(crate) oom: Rc<OomWatch>,
    pub(crate) containers: RefCell<BTreeMap<String, Rc<Container>>>,
    /// Ids of containers that are being created.
    pub(crate) creating: RefCell<BTreeSet<String>>,
    pub(crate) sandbox: RefCell<Option<Rc<Sandbox>>>,
    leaving: Cell<bool>,
    leave: Changes,
    /// Calls without their answer, those that wait for a process apart.
    pub(crate) unanswered: Rc<Tally>,
    pub(crate) connections: Rc<Tally>,
    pub(crate) quiet: Rc<Quiet>,
    numbers: Cell<u64>,
}

impl Shim {
    /// The container of that id.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn container(&self, id: &str) -> Result<Rc<Container>, ShimError> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| ShimError::NotFound("container not created".into()))
    }

    /// Has the shim end. From here on it makes nothing.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
        self.leave.tell();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether it holds a container, or is about to.
    pub(crate) fn has_containers(&self) -> bool {
        !self.containers.borrow().is_empty() || !self.creating.borrow().is_empty()
    }

    /// A number that was not given out before.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }
}

/// Serves on the socket that is standard input, until it is told to end.
///
/// # Errors
/// Standard input is no listening socket, or the kernel refuses what a shim needs.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), ShimError> {
    let listener = take_listener()?;
    open_log();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(ShimError::system("become the reaper of the containers' processes"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShimError::system("start the event loop"))?;
    let tasks = tokio::task::LocalSet::new();
    let served = tasks.block_on(&runtime, run(arguments, listener));
    if let Err(error) = &served {
        log::error(&crate::error::chain(error));
    }
    // Without destructors: what still runs keeps its fifos, and another shim may take it over.
    std::process::exit(i32::from(served.is_err()));
}

/// Standard input is for this only: everything that is started would have it, too.
fn take_listener() -> Result<std::os::unix::net::UnixListener, ShimError> {
    let no_socket = "take the socket from standard input";
    let copy = std::io::stdin().as_fd().try_clone_to_owned().map_err(ShimError::system(no_socket))?;
    let listens = rustix::net::sockopt::socket_acceptconn(&copy).map_err(ShimError::system(no_socket))?;
    if !listens {
        return Err(ShimError::Invalid(
            "standard input is no listening socket: `start` starts this process".into(),
        ));
    }
    let listener = std::os::unix::net::UnixListener::from(copy);
    listener.set_nonblocking(true).map_err(ShimError::system(no_socket))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(ShimError::system("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(ShimError::system(no_socket))?;
    Ok(listener)
}

/// The fifo that containerd has made in the bundle becomes standard error; without one there is no log.
fn open_log() {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(fifo) = rustix::fs::open("log", flags, Mode::empty()) {
        let _unlogged = rustix::stdio::dup2_stderr(&fifo);
    }
}

async fn run(arguments: &Arguments, listener: std::os::unix::net::UnixListener) -> Result<(), ShimError> {
    let address = listener.local_addr().map_err(ShimError::system("look at the socket"))?;
    let socket = address.as_pathname().unwrap_or(Path::new("")).to_owned();
    let containerd = std::env::var(TTRPC_ADDRESS).ok();
    let events = Rc::new(Events::new(&arguments.namespace, containerd.as_deref()));
    let shim = Rc::new(Shim {
        namespace: arguments.namespace.clone(),
        default_runtime: bootstrap::default_runtime(),
        socket: socket.clone(),
        reaper: Rc::default(),
        oom: Rc::new(OomWatch::new(Rc::clone(&events))),
        events,
        containers: RefCell::default(),
        creating: RefCell::default(),
        sandbox: RefCell::default(),
        leaving: Cell::new(false),
        leave: Changes::default(),
        unanswered: Rc::default(),
        connections: Rc::default(),
        quiet: Rc::default(),
        numbers: Cell::new(0),
    });
    let listener = UnixListener::from_std(listener).map_err(ShimError::system("serve the socket"))?;
    let failed = ShimError::system("wait for signals");
    let (mut term, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(interrupt)) => (term, interrupt),
        (Err(error), _) | (_, Err(error)) => return Err(failed(error)),
    };
    let reaping = tokio::task::spawn_local({
        let reaper = Rc::clone(&shim.reaper);
        async move { reaper.run().await }
    });
    drop(tokio::task::spawn_local({
        let events = Rc::clone(&shim.events);
        async move { events.run().await }
    }));
    drop(tokio::task::spawn_local({
        let quiet = Rc::clone(&shim.quiet);
        async move { quiet.run().await }
    }));
    if arguments.takeover {
        takeover::take_over(&shim).await;
    }
    tokio::select! {
        () = server::run(listener, Rc::clone(&shim)) => {}
        () = shim.leave.until(|| shim.is_leaving().then_some(())) => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        reaped = reaping => {
            if let Ok(Err(error)) = reaped {
                return Err(ShimError::System { action: "wait for the end of processes", source: error });
            }
        }
    }
    // Connections that are open already stay so for a while.
    shim.leave();
    let _gone = std::fs::remove_file(&socket);
    if tokio::time::timeout(LAST_ANSWERS, shim.unanswered.none()).await.is_err() {
        log::warn("not every answer has been taken");
    }
    if tokio::time::timeout(LAST_EVENTS, shim.events.sent()).await.is_err() {
        log::error("containerd has not taken the last events");
    }
    let _hung_up = tokio::time::timeout(HANG_UP, shim.connections.none()).await;
    Ok(())
}
