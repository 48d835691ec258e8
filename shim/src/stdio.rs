//! A process's streams. It writes into fifos of the bundle that its own side holds open for reading, too: when the shim
//! dies they fill, nobody gets SIGPIPE, and the next shim goes on where this one stopped. From there the kernel moves the
//! bytes (splice(2)) to where containerd wants them, without a thread and without a buffer for a stream.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ketch_runtime_client::Stdio;
use ketch_shim_sys::WatchedFd;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, mknodat};
use rustix::io::Errno;
use tokio::task::AbortHandle;

use crate::copy::{self, Sink};
use crate::error::ShimError;
use crate::log;
use crate::logger::{self, Logger};
use crate::process::StreamPaths;
use crate::reaper::Reaper;
use crate::waiting::{Changes, Counted, Tally};

/// What a fifo of a bundle holds. The kernel allocates pages only as they are written.
const FIFO_SIZE: usize = 256 << 10;

/// How long a reader may take to come before a process is started without.
const READER: Duration = Duration::from_secs(10);

/// Whose streams, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) bundle: &'a Path,
    /// What the names of the fifos begin with.
    pub(crate) prefix: &'a str,
    pub(crate) paths: &'a StreamPaths,
    /// Who owns the fifos.
    pub(crate) owner: (u32, u32),
    pub(crate) container: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) reaper: &'a Reaper,
}

/// Streams that are open, and not yet copied.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    outputs: Vec<(OwnedFd, Sink)>,
    input: Option<OpenedInput>,
    made: Made,
}

/// What was made for a process's streams; it goes with this.
#[derive(Debug, Default)]
struct Made {
    fifos: Vec<PathBuf>,
    logger: Option<Logger>,
}

impl Drop for Made {
    fn drop(&mut self) {
        for fifo in &self.fifos {
            let _gone = std::fs::remove_file(fifo);
        }
        if let Some(logger) = self.logger.take() {
            logger.end();
        }
    }
}

#[derive(Debug)]
struct OpenedInput {
    client: ClientInput,
    /// The writing end of the container's fifo.
    to: OwnedFd,
}

/// The fifo that containerd's client writes a process's input to.
#[derive(Debug)]
pub(crate) struct ClientInput {
    pub(crate) from: OwnedFd,
    /// A writer, so that it has no end before CloseIO, whoever comes and goes meanwhile.
    pub(crate) keeper: Option<OwnedFd>,
}

impl ClientInput {
    pub(crate) fn open(path: &str, closed: bool) -> Result<Self, ShimError> {
        let path = Path::new(path);
        let from = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let keeper = if closed { None } else { Some(open(path, OFlags::WRONLY | OFlags::NONBLOCK)?) };
        Ok(Self { from, keeper })
    }
}

/// Where a stream goes, by the URI that containerd gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A fifo, or whatever file is there.
    Path(PathBuf),
    /// A file to append to, made when absent.
    File(PathBuf),
    /// A program that takes the streams itself.
    Logger(logger::Command),
}

impl Target {
    /// Reads a stream's URI.
    ///
    /// # Errors
    /// The scheme is not known.
    pub(crate) fn parse(uri: &str) -> Result<Self, ShimError> {
        let Some((scheme, rest)) = uri.split_once("://") else { return Ok(Self::Path(uri.into())) };
        match scheme {
            "fifo" => Ok(Self::Path(rest.into())),
            "file" => Ok(Self::File(logger::percent_decoded(rest).into())),
            "binary" => Ok(Self::Logger(logger::Command::parse(rest, false))),
            "binary-v2" => Ok(Self::Logger(logger::Command::parse(rest, true))),
            _ => Err(ShimError::Invalid(format!("unknown STDIO scheme {scheme}"))),
        }
    }

    /// [`Target::sink`], once a fifo has its reader. containerd opens its end beside the call, and may come after a process that
    /// ends at once: all that was written would be gone with our end of it, and its opening would never be over.
    pub(crate) async fn read_sink(&self) -> Result<Option<Sink>, ShimError> {
        // The reader would find the fifo at its end if this one went before the sink is there.
        let _held = self.reader().await;
        self.sink()
    }

    /// Our end of a fifo, which there is once somebody has the other; none for everything else, and after a time.
    async fn reader(&self) -> Option<OwnedFd> {
        let Self::Path(path) = self else { return None };
        let kind = rustix::fs::stat(path).ok()?;
        if FileType::from_raw_mode(kind.st_mode) != FileType::Fifo {
            return None;
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let found = async {
            let mut pause = Duration::from_millis(1);
            loop {
                match rustix::fs::open(path, flags, Mode::empty()) {
                    Err(Errno::NXIO) => tokio::time::sleep(pause).await,
                    // What else there is, the sink will say.
                    opened => return opened.ok(),
                }
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        };
        let found = tokio::time::timeout(READER, found).await;
        found.unwrap_or_else(|_| {
            log::warn(&format!("nobody reads {}", path.display()));
            None
        })
    }

    /// Opens what the shim copies to; none for a logger, which is given the stream itself.
    pub(crate) fn sink(&self) -> Result<Option<Sink>, ShimError> {
        let path = match self {
            Self::Logger(_) => return Ok(None),
            Self::File(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::DirBuilder::new()
                        .recursive(true)
                        .create(folder)
                        .map_err(ShimError::file("make", folder))?;
                }
                let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
                return Ok(Some(Sink::File(open(path, flags)?)));
            }
            Self::Path(path) => path,
        };
        let kind = rustix::fs::stat(path).map_err(|error| ShimError::file("look at", path)(error.into()))?;
        if FileType::from_raw_mode(kind.st_mode) == FileType::Fifo {
            // Opened for reading, too, it survives a reader that goes away, as containerd does when it restarts.
            return Ok(Some(Sink::Fifo(open(path, OFlags::RDWR | OFlags::NONBLOCK)?)));
        }
        Ok(Some(Sink::File(open(path, OFlags::WRONLY | OFlags::APPEND)?)))
    }
}

pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, ShimError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o644))
        .map_err(|error| ShimError::file("open", path)(error.into()))
}

/// Opens the streams of a process that has no terminal: its side and ours.
///
/// # Errors
/// A fifo can't be made or opened, or a logger does not start.
pub(crate) async fn open_pipes(place: Place<'_>) -> Result<(Stdio, Opened), ShimError> {
    let mut theirs = Stdio::default();
    let mut ours = Opened::default();
    let paths = place.paths;
    if let Ok(Target::Logger(command)) = Target::parse(&paths.stdout) {
        let (logger, stdout, stderr) = logger::start(&command, place).await?;
        ours.made.logger = Some(logger);
        theirs.stdout = Some(stdout);
        theirs.stderr = Some(stderr);
    } else {
        for (uri, name, slot) in
            [(&paths.stdout, "stdout", &mut theirs.stdout), (&paths.stderr, "stderr", &mut theirs.stderr)]
        {
            if uri.is_empty() {
                continue;
            }
            let Some(sink) = Target::parse(uri)?.read_sink().await? else { continue };
            let fifo = make_fifo(place, name)?;
            ours.made.fifos.push(fifo.clone());
            ours.outputs.push((open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK)?, sink));
            *slot = Some(open(&fifo, OFlags::RDWR)?);
        }
    }
    if !paths.stdin.is_empty() {
        let client = ClientInput::open(&paths.stdin, false)?;
        let fifo = make_fifo(place, "stdin")?;
        ours.made.fifos.push(fifo.clone());
        // Neither end opens, or opens without waiting, before the other is there.
        let both = open(&fifo, OFlags::RDWR)?;
        theirs.stdin = Some(open(&fifo, OFlags::RDONLY)?);
        let to = open(&fifo, OFlags::WRONLY | OFlags::NONBLOCK)?;
        drop(both);
        ours.input = Some(OpenedInput { client, to });
    }
    Ok((theirs, ours))
}

/// Opens our side of the streams of a process that another shim has started.
pub(crate) fn reopen_pipes(place: Place<'_>, stdin_closed: bool) -> Result<Opened, ShimError> {
    let mut ours = Opened::default();
    let paths = place.paths;
    for (uri, name) in [(&paths.stdout, "stdout"), (&paths.stderr, "stderr")] {
        let fifo = fifo_path(place, name);
        if uri.is_empty() || !fifo.exists() {
            continue;
        }
        if let Some(sink) = Target::parse(uri)?.sink()? {
            ours.outputs.push((open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK)?, sink));
            ours.made.fifos.push(fifo);
        }
    }
    let fifo = fifo_path(place, "stdin");
    if !paths.stdin.is_empty() && fifo.exists() {
        // Without a reader the process has closed it: nothing to copy.
        if let Ok(to) = open(&fifo, OFlags::WRONLY | OFlags::NONBLOCK) {
            ours.input = Some(OpenedInput { client: ClientInput::open(&paths.stdin, stdin_closed)?, to });
        }
        ours.made.fifos.push(fifo);
    }
    Ok(ours)
}

fn fifo_path(place: Place<'_>, name: &str) -> PathBuf {
    place.bundle.join(format!("{}.{name}", place.prefix))
}

fn make_fifo(place: Place<'_>, name: &str) -> Result<PathBuf, ShimError> {
    let path = fifo_path(place, name);
    let _absent = std::fs::remove_file(&path);
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(|error| ShimError::file("make the fifo", &path)(error.into()))?;
    if place.owner != (0, 0) {
        let (user, group) = (Uid::from_raw(place.owner.0), Gid::from_raw(place.owner.1));
        rustix::fs::chown(&path, Some(user), Some(group))
            .map_err(|error| ShimError::file("change the owner of", &path)(error.into()))?;
    }
    Ok(path)
}

/// Who must have been emptied before an exit is told.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// The process has ended: what is there now is all that counts.
    asked: Cell<bool>,
    ask: Changes,
    /// Outputs that may still have something.
    left: Rc<Tally>,
}

impl Drain {
    /// Resolves when the end has been asked for; at once if it was.
    pub(crate) async fn asked(&self) {
        self.ask.until(|| self.asked.get().then_some(())).await;
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.get()
    }
}

/// One output's part in a [`Drain`]; when it goes the output has ended.
#[derive(Debug)]
pub(crate) struct Share {
    drain: Rc<Drain>,
    counted: RefCell<Option<Counted>>,
}

impl Share {
    /// Nothing is there now. That is an end if the process has ended.
    pub(crate) fn is_empty_now(&self) {
        if self.drain.is_asked() {
            drop(self.counted.take());
        }
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Whether the end has still to be reported.
    pub(crate) fn counts(&self) -> bool {
        self.counted.borrow().is_some()
    }
}

/// The copies of a process's streams. They end with this.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    drain: Rc<Drain>,
    tasks: Vec<AbortHandle>,
    /// Keeps the client's side of the input open until CloseIO.
    keeper: RefCell<Option<OwnedFd>>,
    made: Made,
    pub(crate) terminal: Option<Rc<WatchedFd>>,
}

impl Streams {
    fn share(&self) -> Share {
        Share { drain: Rc::clone(&self.drain), counted: RefCell::new(Some(self.drain.left.one())) }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(tokio::task::spawn_local(task).abort_handle());
    }

    /// Begins to copy.
    ///
    /// # Errors
    /// A descriptor can't be waited for.
    pub(crate) fn begin(opened: Opened) -> io::Result<Self> {
        let mut streams = Self::default();
        streams.made = opened.made;
        for (from, to) in opened.outputs {
            // Smaller than asked for, or as it was, it is good enough.
            let _kept = rustix::pipe::fcntl_setpipe_size(&from, FIFO_SIZE);
            let (from, to) = (WatchedFd::new(from)?, to.ready()?);
            let share = streams.share();
            streams.spawn(copy::output(from, to, share));
        }
        if let Some(input) = opened.input {
            streams.keeper = RefCell::new(input.client.keeper);
            let (from, to) = (WatchedFd::new(input.client.from)?, WatchedFd::new(input.to)?);
            streams.spawn(copy::input(from, to));
        }
        Ok(streams)
    }

    /// Begins to copy from and to a terminal.
    ///
    /// # Errors
    /// A descriptor can't be waited for.
    pub(crate) fn begin_terminal(
        master: OwnedFd,
        output: Option<Sink>,
        input: Option<ClientInput>,
        logger: Option<Logger>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let master = Rc::new(WatchedFd::new(master)?);
        let mut streams = Self::default();
        (streams.made.logger, streams.terminal) = (logger, Some(Rc::clone(&master)));
        let (to, share) = (output.map(Sink::ready).transpose()?, streams.share());
        streams.spawn(copy::terminal_output(Rc::clone(&master), to, share));
        if let Some(client) = input {
            streams.keeper = RefCell::new(client.keeper);
            streams.spawn(copy::terminal_input(WatchedFd::new(client.from)?, master));
        }
        Ok(streams)
    }

    /// Lets the input end when its writers have gone.
    pub(crate) fn close_input(&self) {
        drop(self.keeper.borrow_mut().take());
    }

    /// What a drain waits for, apart from these streams: nobody may hold a borrow of them meanwhile.
    pub(crate) fn drain(&self) -> Rc<Drain> {
        Rc::clone(&self.drain)
    }
}

impl Drain {
    /// Resolves when all that the process had written has been passed on, or after `limit`; false then.
    pub(crate) async fn finish(&self, limit: Duration) -> bool {
        self.asked.set(true);
        self.ask.tell();
        tokio::time::timeout(limit, self.left.none()).await.is_ok()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// How many bytes can be read from a pipe now.
pub(crate) fn available(fd: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(fd).unwrap_or(0)
}
