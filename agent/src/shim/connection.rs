//! A connection to a shim: calls go out as they come, answers find their calls by the number of their stream.
//!
//! A live shim answers every call but those that wait for a process: it bounds what it does itself. One that does not is asked
//! whether it is there, and killed when it is not: the next one takes its container over, as after any death of a shim.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_shim_api::ttrpc::{Code, HEADER, Header, Kind, MAX_MESSAGE, Request, Response};
use ketch_shim_api::wire::Empty;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::strays::Strays;
use crate::locks::locked;

/// How long a call may take until the shim is asked whether it is there; as long as containerd gives a state.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long that answer may take: nothing is to be done for it. Twice what containerd gives a shim that it finds at its start.
const ALIVE: Duration = Duration::from_secs(10);
/// How long the death of a killed one may take; one that waits for a disk does not die before that.
const DEAD: Duration = Duration::from_secs(2);
/// A service that no shim has: the refusal comes from its loop of requests.
const NOBODYS: &str = "ketchd.Alive";

/// A call without a result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The shim is gone, or was never there.
    #[error("the shim is gone")]
    Gone,
    /// The shim has refused; its own words.
    #[error("{message}")]
    Refused {
        /// google.rpc.Code.
        code: i32,
        /// The shim's words.
        message: String,
    },
    /// An answer that is no message of this call.
    #[error("the shim's answer to {0} makes no sense")]
    Answer(&'static str),
}

impl CallError {
    /// Whether the shim says that there is no such process, or that it has ended.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == Code::NotFound as i32)
    }

    /// Whether nobody is there to answer.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }
}

/// An open connection; it closes with its last clone, or when the shim goes.
#[derive(Clone, Debug)]
pub struct Connection {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    calls: Arc<Mutex<Calls>>,
    /// Who is at the other end.
    shim: Arc<Strays>,
}

#[derive(Debug, Default)]
struct Calls {
    closed: bool,
    /// Calls so far; clients have odd streams.
    count: u32,
    waiting: HashMap<u32, oneshot::Sender<Response>>,
}

impl Connection {
    /// Connects; `shim` is who should be there.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(socket: &Path, shim: Strays) -> io::Result<Self> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let calls = Arc::new(Mutex::new(Calls::default()));
        // A call that is dropped half way must not leave half a frame: whole ones go through a task of their own.
        drop(tokio::spawn(write(writer, outgoing)));
        drop(tokio::spawn({
            let calls = Arc::clone(&calls);
            async move {
                let _end = read(reader, &calls).await;
                locked(&calls).close();
            }
        }));
        Ok(Self { frames, calls, shim: Arc::new(shim) })
    }

    /// Whether the shim has closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        locked(&self.calls).closed
    }

    /// Calls a method and waits for its answer, for as long as the shim is there to give one.
    ///
    /// # Errors
    /// The shim is gone, or hangs and is killed; it refuses, or answers something else.
    pub async fn call<A: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        let mut answered = self.send(service, method, message)?;
        loop {
            match tokio::time::timeout(PATIENCE, &mut answered).await {
                Ok(response) => return read_answer(method, response),
                Err(_) if self.is_alive().await => {}
                Err(_) => return Err(CallError::Gone),
            }
        }
    }

    /// Calls a method whose answer takes as long as a process does.
    ///
    /// # Errors
    /// As [`Self::call`]; a shim that hangs is found by other calls.
    pub async fn wait<A: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        read_answer(method, self.send(service, method, message)?.await)
    }

    /// Whether the shim answers at all. One that does not is killed, and everything that waits for it hears that it is gone.
    pub async fn is_alive(&self) -> bool {
        let Ok(answered) = self.send(NOBODYS, "Alive", &Empty {}) else { return false };
        match tokio::time::timeout(ALIVE, answered).await {
            Ok(answered) => answered.is_ok(),
            Err(_) => {
                warn!("the shim in {} hangs: it is killed", self.shim.bundle.display());
                let shim = Arc::clone(&self.shim);
                let _ended = tokio::task::spawn_blocking(move || shim.end(DEAD)).await;
                locked(&self.calls).close();
                false
            }
        }
    }

    fn send(
        &self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<oneshot::Receiver<Response>, CallError> {
        let (answer, answered) = oneshot::channel();
        let stream = {
            let mut calls = locked(&self.calls);
            if calls.closed {
                return Err(CallError::Gone);
            }
            let stream = calls.count.wrapping_mul(2).wrapping_add(1);
            calls.count = calls.count.wrapping_add(1);
            let _none = calls.waiting.insert(stream, answer);
            stream
        };
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            ..Request::default()
        };
        self.frames.send(request.frame(stream)).map_err(|_| CallError::Gone)?;
        Ok(answered)
    }
}

impl Calls {
    fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }
}

fn read_answer<A: Message + Default>(
    method: &'static str,
    response: Result<Response, oneshot::error::RecvError>,
) -> Result<A, CallError> {
    let response = response.map_err(|_| CallError::Gone)?;
    match response.status.filter(|status| status.code != 0) {
        Some(status) => Err(CallError::Refused { code: status.code, message: status.message }),
        None => A::decode(response.payload.as_slice()).map_err(|_| CallError::Answer(method)),
    }
}

async fn write(mut writer: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn read(mut reader: OwnedReadHalf, calls: &Mutex<Calls>) -> io::Result<()> {
    loop {
        let (header, message) = read_frame(&mut reader).await?;
        if header.kind != Kind::Response {
            continue;
        }
        let response = Response::decode(message.as_slice()).map_err(io::Error::other)?;
        let waiting = locked(calls).waiting.remove(&header.stream);
        if let Some(waiting) = waiting {
            let _nobody_waits = waiting.send(response);
        }
    }
}

/// The next frame.
///
/// # Errors
/// The end of the stream, or a message that is longer than any may be.
pub(super) async fn read_frame(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER];
    let _filled = reader.read_exact(&mut bytes).await?;
    let header = Header::decode(bytes);
    if header.length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; header.length];
    let _filled = reader.read_exact(&mut message).await?;
    Ok((header, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_shim_api::wire::Timestamp;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order_and_a_shim_that_goes_ends_the_rest() {
        let path = std::env::temp_dir().join(format!("ketchd-connection-{}", std::process::id()));
        let _absent = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut streams = Vec::new();
            for _ in 0..3 {
                let (header, message) = read_frame(&mut stream).await.unwrap();
                let request = Request::decode(message.as_slice()).unwrap();
                streams.push((header.stream, request.payload));
            }
            streams.sort();
            for (number, payload) in streams.into_iter().skip(1).rev() {
                stream.write_all(&Response::ok(payload).frame(number)).await.unwrap();
            }
        });
        let connection = Connection::open(&path, Strays::default()).await.unwrap();
        let call = |seconds| {
            let connection = connection.clone();
            async move {
                let message = Timestamp { seconds, nanos: 0 };
                connection.call::<Timestamp>("s", "m", &message).await.map(|answer| answer.seconds)
            }
        };
        let (first, second, third) = tokio::join!(call(1), call(2), call(3));
        assert!(first.unwrap_err().is_gone());
        assert_eq!((second.unwrap(), third.unwrap()), (2, 3));
        server.await.unwrap();
        assert!(connection.is_closed() && call(4).await.unwrap_err().is_gone());
        std::fs::remove_file(&path).unwrap();
    }
}
