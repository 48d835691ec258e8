//! A process's output and input between its fifos and whoever is attached. Output goes to the log and to every client, in
//! the order of each stream; a client that does not read holds the process up, as with a terminal. Input comes from any of
//! the clients.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::warn;

use crate::api::stdcopy::Stream;
use crate::error::{Error, Result};
use crate::locks::locked;
use crate::logs::{self, LogDriver};
use crate::timestamp::Timestamp;

/// What one read takes.
const PIECE: usize = 32 << 10;
/// How many pieces wait for a client.
const WAITING: usize = 32;
/// How long an end waits for clients that are slow to take the last output, as dockerd's does.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long for a log that is: a server that hangs holds no container's end up until those who wait for it give up.
pub(super) const LAST_LINES: Duration = Duration::from_secs(3);

/// A piece of output.
pub type Output = (Stream, Bytes);

/// See the module.
pub struct Streams {
    clients: Mutex<Vec<mpsc::Sender<Output>>>,
    input: Mutex<Input>,
    has_input: bool,
    pumps: Mutex<Vec<JoinHandle<()>>>,
    input_pump: Mutex<Option<AbortHandle>>,
    ended: watch::Sender<bool>,
    /// Clients are waited for no longer.
    cut: watch::Sender<bool>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Streams")
    }
}

/// What a client writes.
#[derive(Debug)]
pub enum Typed {
    /// Bytes for the process.
    Bytes(Bytes),
    /// The end of its input.
    End,
}

#[derive(Debug)]
struct Input {
    sender: mpsc::Sender<Typed>,
    /// Until a process takes it.
    receiver: Option<mpsc::Receiver<Typed>>,
}

impl Default for Input {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Some(receiver) }
    }
}

/// Makes a fifo, in the place of one that may be there.
///
/// # Errors
/// The folder.
pub fn make_fifo(path: &Path) -> Result<()> {
    let _absent = std::fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(|error| Error::internal(format_args!("making the fifo {}", path.display()), &error))
}

impl Streams {
    /// Of a process that is not there yet. Clients may come already.
    #[must_use]
    pub fn new(has_input: bool) -> Self {
        Self {
            clients: Mutex::default(),
            input: Mutex::default(),
            has_input,
            pumps: Mutex::default(),
            input_pump: Mutex::default(),
            ended: watch::Sender::new(false),
            cut: watch::Sender::new(false),
        }
    }

    /// Whether the process reads.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.has_input
    }

    /// All output from here on, until the process has ended.
    pub fn listen(&self) -> mpsc::Receiver<Output> {
        let (sender, receiver) = mpsc::channel(WAITING);
        locked(&self.clients).push(sender);
        receiver
    }

    /// Where a client writes to.
    pub fn typing(&self) -> mpsc::Sender<Typed> {
        locked(&self.input).sender.clone()
    }

    /// Begins to copy from the fifos. They are opened for writing, too: a shim may go and another come without an end.
    ///
    /// # Errors
    /// A fifo can't be opened.
    pub fn begin(
        self: &Arc<Self>,
        stdout: &Path,
        stderr: Option<&Path>,
        log: Option<&Arc<LogDriver>>,
    ) -> Result<()> {
        let _was = self.ended.send_replace(false);
        let _was = self.cut.send_replace(false);
        let sources = [(Stream::Stdout, Some(stdout)), (Stream::Stderr, stderr)];
        for (stream, path) in sources.into_iter().filter_map(|(stream, path)| Some((stream, path?))) {
            let fifo = pipe::OpenOptions::new()
                .read_write(true)
                .open_receiver(path)
                .map_err(|error| Error::internal(format_args!("opening {}", path.display()), &error))?;
            let (streams, log, ended) = (Arc::clone(self), log.cloned(), self.ended.subscribe());
            locked(&self.pumps).push(tokio::spawn(pump(fifo, stream, streams, log, ended)));
        }
        Ok(())
    }

    /// Begins to pass input on; `close` is called at its end.
    ///
    /// # Errors
    /// The fifo can't be opened.
    pub fn begin_input<F>(&self, fifo: &Path, close: impl FnOnce() -> F + Send + 'static) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut to = pipe::OpenOptions::new()
            .read_write(true)
            .open_sender(fifo)
            .map_err(|error| Error::internal(format_args!("opening {}", fifo.display()), &error))?;
        let Some(mut typed) = locked(&self.input).receiver.take() else { return Ok(()) };
        let pump = tokio::spawn(async move {
            while let Some(Typed::Bytes(bytes)) = typed.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(to);
            close().await;
        });
        *locked(&self.input_pump) = Some(pump.abort_handle());
        Ok(())
    }

    /// The process has ended: takes what is still in its fifos, then lets all clients go. What comes next is another
    /// process's.
    pub async fn end(&self) {
        *locked(&self.input) = Input::default();
        if let Some(pump) = locked(&self.input_pump).take() {
            pump.abort();
        }
        let _was = self.ended.send_replace(true);
        let pumps = std::mem::take(&mut *locked(&self.pumps));
        let slow = tokio::time::Instant::now() + LAST_OUTPUT;
        for mut pump in pumps {
            if tokio::time::timeout_at(slow, &mut pump).await.is_err() {
                let _was = self.cut.send_replace(true);
                if tokio::time::timeout_at(slow + LAST_LINES, &mut pump).await.is_err() {
                    pump.abort();
                }
            }
        }
        locked(&self.clients).clear();
    }

    /// Gives a piece to the log and to every client.
    async fn pass_on(&self, stream: Stream, bytes: Bytes, log: Option<&LogDriver>) {
        if let Some(log) = log {
            let of = if stream == Stream::Stderr { logs::Stream::Stderr } else { logs::Stream::Stdout };
            log.write(of, Timestamp::now(), &bytes).await;
        }
        let clients = locked(&self.clients).clone();
        let mut gone = false;
        for client in clients {
            // Most have room.
            if client.try_send((stream, bytes.clone())).is_ok() {
                continue;
            }
            let mut cut = self.cut.subscribe();
            gone |= tokio::select! {
                sent = client.send((stream, bytes.clone())) => sent.is_err(),
                _ = cut.wait_for(|cut| *cut) => false,
            };
        }
        if gone {
            locked(&self.clients).retain(|client| !client.is_closed());
        }
    }
}

async fn pump(
    mut fifo: pipe::Receiver,
    stream: Stream,
    streams: Arc<Streams>,
    log: Option<Arc<LogDriver>>,
    mut ended: watch::Receiver<bool>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let read = tokio::select! {
            biased;
            read = fifo.read_buf(&mut buffer) => read,
            _ = ended.wait_for(|ended| *ended) => break,
        };
        match read {
            Ok(0) => return,
            Ok(_) => {
                let piece = buffer.split().freeze();
                streams.pass_on(stream, piece, log.as_deref()).await;
            }
            Err(error) => {
                warn!("reading a container's output: {error}");
                return;
            }
        }
    }
    // The shim tells of an end after its output: all is here. The fifo itself is asked, as the word of what can be read may
    // be on its way yet.
    let mut bytes = vec![0; PIECE];
    while let Ok(count @ 1..) = rustix::io::read(&fifo, &mut bytes) {
        streams.pass_on(stream, Bytes::copy_from_slice(&bytes[..count]), log.as_deref()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn what_was_written_before_the_end_arrives_before_it() {
        let path = std::env::temp_dir().join(format!("ketchd-streams-{}", std::process::id()));
        make_fifo(&path).unwrap();
        let streams = Arc::new(Streams::new(false));
        let (mut first, second) = (streams.listen(), streams.listen());
        drop(second);
        streams.begin(&path, None, None).unwrap();
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(&[b'x'; 50_000]).unwrap();
        streams.end().await;
        let mut heard = Vec::new();
        while let Some((stream, bytes)) = first.recv().await {
            assert_eq!(stream, Stream::Stdout);
            heard.extend_from_slice(&bytes);
        }
        assert_eq!(heard.len(), 50_000);
        std::fs::remove_file(&path).unwrap();
    }
}
