//! A client at a process's streams: output to it, in frames or raw, its input to the process, until one of them ends or the
//! client types the keys that detach it.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::streams::{Output, Typed};
use crate::api::hijack::Client;
use crate::api::stdcopy::{self, Stream};
use crate::error::{Error, Result};

/// What a client wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// It types.
    pub stdin: bool,
    /// It sees the output.
    pub stdout: bool,
    /// It sees the errors.
    pub stderr: bool,
    /// The process has a terminal.
    pub terminal: bool,
    /// Output is told apart by frames, rather than sent as it is.
    pub framed: bool,
    /// The end of its input is the end of the process's.
    pub ends_input: bool,
    /// What detaches it, with a terminal.
    pub detach_keys: Vec<u8>,
}

/// Why a client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The process has ended.
    Ended,
    /// It has typed the keys.
    Detached,
    /// Its connection broke.
    Gone,
}

/// Control-p, control-q.
const DETACH: [u8; 2] = [16, 17];

/// The bytes of keys as `ctrl-p,ctrl-q` or `a,b`; Docker's own for none.
///
/// # Errors
/// A key that there is not: dockerd's text.
pub fn keys(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(DETACH.to_vec());
    }
    text.split(',')
        .map(|key| {
            let control = key.strip_prefix("ctrl-").map(str::as_bytes);
            match (key.as_bytes(), control) {
                ([byte], _) => Some(*byte),
                (_, Some([byte @ b'a'..=b'z'])) => Some(byte - b'a' + 1),
                (_, Some(b"@")) => Some(0),
                (_, Some([byte @ b'['..=b'_'])) => Some(byte - b'[' + 27),
                _ => None,
            }
            .ok_or_else(|| Error::invalid(format!("Invalid detach keys ({text}) provided")))
        })
        .collect()
}

/// Of a client that has missed nothing, or wants nothing more.
#[must_use]
pub fn nothing() -> mpsc::Receiver<Output> {
    mpsc::channel(1).1
}

/// Serves a client until it leaves or the process ends. `before` is what it has missed.
pub async fn serve(
    client: Client,
    wanted: &Wanted,
    before: mpsc::Receiver<Output>,
    output: mpsc::Receiver<Output>,
    typing: Option<mpsc::Sender<Typed>>,
) -> Left {
    match client {
        Client::Body(sender) => {
            for mut pieces in [before, output] {
                loop {
                    let piece = tokio::select! {
                        piece = pieces.recv() => piece,
                        () = sender.closed() => return Left::Gone,
                    };
                    let Some(piece) = piece else { break };
                    if let Some(bytes) = shown(wanted, piece)
                        && sender.send(bytes).await.is_err()
                    {
                        return Left::Gone;
                    }
                }
            }
            Left::Ended
        }
        Client::Connection(connection) => on_a_stream(*connection, wanted, before, output, typing).await,
        Client::Carried(stream) => on_a_stream(*stream, wanted, before, output, typing).await,
    }
}

/// What a client sees of a piece of output.
fn shown(wanted: &Wanted, (stream, bytes): Output) -> Option<Bytes> {
    let wants = match stream {
        Stream::Stdout => wanted.stdout,
        Stream::Stderr => wanted.stderr,
        Stream::System => true,
    };
    wants.then(|| if wanted.framed { stdcopy::frame(stream, &bytes) } else { bytes })
}

async fn on_a_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    wanted: &Wanted,
    before: mpsc::Receiver<Output>,
    output: mpsc::Receiver<Output>,
    typing: Option<mpsc::Sender<Typed>>,
) -> Left {
    let (reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        for mut pieces in [before, output] {
            while let Some(piece) = pieces.recv().await {
                if let Some(bytes) = shown(wanted, piece)
                    && write(&mut writer, &bytes).await.is_err()
                {
                    return Left::Gone;
                }
            }
        }
        Left::Ended
    };
    let left = tokio::select! {
        left = writing => left,
        left = read(reader, wanted, typing) => left,
    };
    let _gone = writer.shutdown().await;
    left
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Passes input on. Its end is not the client's: that may still listen.
async fn read(
    mut reader: impl AsyncRead + Unpin,
    wanted: &Wanted,
    typing: Option<mpsc::Sender<Typed>>,
) -> Left {
    if let Some(typing) = typing.filter(|_| wanted.stdin) {
        let keys = if wanted.terminal { wanted.detach_keys.as_slice() } else { &[] };
        if copy(&mut reader, keys, &typing, wanted.ends_input).await == Left::Detached {
            return Left::Detached;
        }
    }
    std::future::pending().await
}

async fn copy(
    reader: &mut (impl AsyncRead + Unpin),
    keys: &[u8],
    typing: &mpsc::Sender<Typed>,
    ends_input: bool,
) -> Left {
    let mut detaching = Detaching { keys, held: VecDeque::new() };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = reader.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            let rest = detaching.rest();
            if !rest.is_empty() {
                let _ended = typing.send(Typed::Bytes(rest.into())).await;
            }
            if ends_input {
                let _ended = typing.send(Typed::End).await;
            }
            return Left::Gone;
        }
        let (bytes, detach) = detaching.pass(&buffer[..count]);
        if !bytes.is_empty() && typing.send(Typed::Bytes(bytes.into())).await.is_err() {
            return Left::Ended;
        }
        if detach {
            return Left::Detached;
        }
    }
}

/// Looks for the keys among what is typed; the first of them are held back until it is clear that they are none.
struct Detaching<'a> {
    keys: &'a [u8],
    held: VecDeque<u8>,
}

impl Detaching<'_> {
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.is_empty() {
                passed.push(byte);
                continue;
            }
            self.held.push_back(byte);
            while !self.keys.starts_with(self.held.make_contiguous()) {
                passed.extend(self.held.pop_front());
            }
            if self.held.len() == self.keys.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_and_controls() {
        assert_eq!(keys("").unwrap(), [16, 17]);
        assert_eq!(keys("ctrl-a,x,ctrl-@,ctrl-[,ctrl-_").unwrap(), [1, b'x', 0, 27, 31]);
        assert_eq!(keys("ctrl-aa").unwrap_err().message, "Invalid detach keys (ctrl-aa) provided");
    }

    #[test]
    fn keys_are_found_over_pieces_and_what_is_none_passes() {
        let mut detaching = Detaching { keys: &DETACH, held: VecDeque::new() };
        assert_eq!(detaching.pass(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(detaching.pass(b"b\x10\x10"), (b"\x10b\x10".to_vec(), false));
        assert_eq!(detaching.pass(b"\x11c"), (Vec::new(), true));
        assert_eq!(Detaching { keys: &[], held: VecDeque::new() }.pass(b"\x10\x11").0, b"\x10\x11");
    }
}
