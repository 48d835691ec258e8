//! ttrpc from the client's side: frames of ten bytes' header over a Unix socket, many calls at once on one connection.
//!
//! Called by `task`, the sandbox tests and the bench; `events` is the server's side. `raw` access is for malformed frames.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::protobuf::{Fields, Message};

pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The error that the shim answered, by gRPC's codes, or that there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u64,
    pub message: String,
}

pub const UNKNOWN: u64 = 2;
pub const INVALID_ARGUMENT: u64 = 3;
pub const DEADLINE_EXCEEDED: u64 = 4;
pub const NOT_FOUND: u64 = 5;
pub const ALREADY_EXISTS: u64 = 6;
pub const FAILED_PRECONDITION: u64 = 9;
pub const UNIMPLEMENTED: u64 = 12;
pub const UNAVAILABLE: u64 = 14;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

type Waiting = Arc<Mutex<Option<HashMap<u32, Sender<Result<Vec<u8>, Failure>>>>>>;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: Mutex<(UnixStream, u32)>,
    /// `None` once the connection has ended.
    waiting: Waiting,
}

/// A call whose answer has not been asked for yet.
#[derive(Debug)]
pub struct Pending {
    name: String,
    answer: Receiver<Result<Vec<u8>, Failure>>,
}

impl Client {
    /// Connects, and reads answers in a thread that ends with the connection.
    ///
    /// # Errors
    /// Those of connect(2).
    ///
    /// # Panics
    /// When a descriptor cannot be duplicated.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut reader = stream.try_clone()?;
        let asked = Arc::clone(&waiting);
        std::thread::spawn(move || {
            while let Ok((id, kind, payload)) = read_frame(&mut reader) {
                let sender =
                    asked.lock().expect("no panic holds it").as_mut().and_then(|all| all.remove(&id));
                if let (Some(sender), RESPONSE) = (sender, kind) {
                    let _ = sender.send(read_response(&payload));
                }
            }
            // The senders go with the map: whoever waits is told.
            *asked.lock().expect("no panic holds it") = None;
        });
        Ok(Self { stream: Mutex::new((stream, 1)), waiting })
    }

    /// Sends a request and does not wait.
    ///
    /// # Panics
    /// When a lock is poisoned.
    pub fn send(&self, service: &str, method: &str, message: &Message) -> Pending {
        self.send_within(service, method, message, Duration::ZERO)
    }

    /// The same, to be answered within `limit`; zero is for ever.
    ///
    /// # Panics
    /// When a lock is poisoned.
    pub fn send_within(&self, service: &str, method: &str, message: &Message, limit: Duration) -> Pending {
        let (sender, answer) = channel();
        let nanoseconds = u64::try_from(limit.as_nanos()).expect("some seconds");
        let request = Message::new().text(1, service).text(2, method).bytes(3, message.encode());
        let request = if nanoseconds == 0 { request } else { request.number(4, nanoseconds) };
        let mut stream = self.stream.lock().expect("no panic holds it");
        let id = stream.1;
        stream.1 += 2;
        if let Some(all) = self.waiting.lock().expect("no panic holds it").as_mut() {
            all.insert(id, sender);
        }
        // A connection that ended is what the waiting then says.
        let _ = stream.0.write_all(&frame(id, REQUEST, request.encode()));
        Pending { name: format!("{service}/{method}"), answer }
    }

    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// What the shim answered, or UNAVAILABLE when the connection ended.
    ///
    /// # Panics
    /// When no answer comes in time.
    pub fn call(&self, service: &str, method: &str, message: &Message) -> Result<Fields, Failure> {
        self.send(service, method, message).wait()
    }

    /// Says that there are no more calls.
    ///
    /// # Panics
    /// When a lock is poisoned.
    pub fn hang_up(&self) {
        let stream = self.stream.lock().expect("no panic holds it");
        // The other side may have gone first.
        let _ = stream.0.shutdown(Shutdown::Write);
    }

    /// Whether the other side has closed the connection.
    ///
    /// # Panics
    /// When a lock is poisoned.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().expect("no panic holds it").is_none()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The reader's copy of the socket would keep it open.
        if let Ok(stream) = self.stream.lock() {
            let _ = stream.0.shutdown(Shutdown::Both);
        }
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    ///
    /// # Panics
    /// When none comes in time.
    pub fn wait(self) -> Result<Fields, Failure> {
        match self.answer.recv_timeout(TIMEOUT) {
            Ok(answer) => answer.map(|bytes| {
                Fields::decode(&bytes).unwrap_or_else(|e| panic!("{}: the answer: {e}", self.name))
            }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure { code: UNAVAILABLE, message: format!("{}: the connection ended", self.name) })
            }
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: no answer within {} s", self.name, TIMEOUT.as_secs())
            }
        }
    }

    /// Whether there is no answer yet.
    #[must_use]
    pub fn is_waiting(&mut self) -> bool {
        match self.answer.try_recv() {
            Err(std::sync::mpsc::TryRecvError::Empty) => true,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => false,
            Ok(answer) => {
                // Put back for `wait`.
                let (sender, receiver) = channel();
                let _ = sender.send(answer);
                self.answer = receiver;
                false
            }
        }
    }
}

/// A frame: length of the payload, stream, kind, no flags, payload.
#[must_use]
pub fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(id.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads one frame: stream, kind, payload.
///
/// # Errors
/// Those of read(2), and the end of the stream.
pub fn read_frame(stream: &mut UnixStream) -> io::Result<(u32, u8, Vec<u8>)> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let mut payload = vec![0; usize::try_from(word(0)).unwrap_or(0)];
    stream.read_exact(&mut payload)?;
    Ok((word(4), header[8], payload))
}

fn read_response(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let fields = Fields::decode(payload).map_err(|message| Failure { code: UNKNOWN, message })?;
    let status = fields.message(1);
    match status.number(1) {
        0 => Ok(fields.bytes(2).to_vec()),
        code => Err(Failure { code, message: status.text(2) }),
    }
}
