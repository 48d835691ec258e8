//! WebSockets (RFC 6455), as far as attach has them: a handshake, and a stream of bytes that goes in frames.
//!
//! Frames of a client may be in pieces and of any size; its pings are answered. No extension is spoken.

use std::pin::pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::hijack::Client;
use super::request::Request;
use super::response::{self, Response};
use crate::error::{Error, Kind, Result};

/// What RFC 6455 has every server add to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What is passed on at once.
const PIECE: usize = 16 << 10;
/// The most that a ping may carry.
const CONTROL: u64 = 125;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The frames that output goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Before version 1.28.
    Text,
    /// Since then.
    Binary,
}

/// The response that begins a WebSocket; `serve` is called with the client once the headers are out.
///
/// # Errors
/// The request asks for none.
pub fn begin<F>(
    request: &mut Request,
    frames: Frames,
    serve: impl FnOnce(Client) -> F + Send + 'static,
) -> Result<Response>
where
    F: Future<Output = ()> + Send + 'static,
{
    let is = |name: &str, wanted: &str| {
        let value = request.header(name).unwrap_or_default();
        value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = is(UPGRADE.as_str(), "websocket")
        && is(CONNECTION.as_str(), "upgrade")
        && is(SEC_WEBSOCKET_VERSION.as_str(), "13");
    let key = request.header(SEC_WEBSOCKET_KEY.as_str()).unwrap_or_default();
    let is_key = STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16);
    if !asks || !is_key {
        return Err(Error::invalid("not a WebSocket's handshake"));
    }
    let accept = STANDARD.encode(sha1(format!("{key}{GUID}").as_bytes()));
    let accept = HeaderValue::from_str(&accept)
        .map_err(|error| Error::internal("answering a WebSocket's handshake", &error))?;
    let upgrade = super::hijack::take(request)
        .ok_or_else(|| Error::new(Kind::Internal, "the connection can't be handed over"))?;
    drop(tokio::spawn(async move {
        match upgrade.connection.await {
            Ok(connection) => {
                let (own, theirs) = tokio::io::duplex(4 * PIECE);
                let stream = hyper_util::rt::TokioIo::new(connection);
                let mut serving = pin!(serve(Client::Carried(Box::new(theirs))));
                let mut passing = pin!(pass(stream, own, frames));
                // What was said last still goes out; a client that has gone is served no longer.
                tokio::select! {
                    () = serving.as_mut() => passing.await,
                    () = passing.as_mut() => {}
                }
            }
            Err(error) => tracing::debug!("a client left before its WebSocket began: {error}"),
        }
    }));
    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    let _none = headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let _none = headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let _none = headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Passes bytes on in both directions until either side ends.
async fn pass(stream: impl AsyncRead + AsyncWrite + Unpin, own: DuplexStream, frames: Frames) {
    let (reader, writer) = tokio::io::split(stream);
    let (output, input) = tokio::io::split(own);
    // Answers to pings go out between the frames of the output.
    let (answers, asked) = tokio::sync::mpsc::channel(4);
    let reading = pin!(read(reader, input, answers));
    let mut writing = pin!(write(writer, output, asked, frames));
    // The output's end ends both; the input's does not, as a client that has said its last word may listen still.
    tokio::select! {
        () = writing.as_mut() => {}
        closed = reading => if !closed { writing.await },
    }
}

/// Frames of a client; whether it has closed the connection.
async fn read<S: AsyncRead + Unpin>(
    mut reader: S,
    mut input: WriteHalf<DuplexStream>,
    answers: tokio::sync::mpsc::Sender<Vec<u8>>,
) -> bool {
    loop {
        let Ok(frame) = Head::read(&mut reader).await else { return true };
        match frame.kind {
            CLOSE => return true,
            PING | PONG => {
                let mut bytes = vec![0; usize::try_from(frame.length.min(CONTROL)).unwrap_or_default()];
                if frame.length > CONTROL || reader.read_exact(&mut bytes).await.is_err() {
                    return true;
                }
                frame.unmask(&mut bytes, 0);
                // One that can't be answered in time is answered by the next.
                if frame.kind == PING {
                    let _full = answers.try_send(bytes);
                }
            }
            _ => {
                let mut buffer = vec![0; PIECE];
                let mut done = 0;
                while done < frame.length {
                    let most = usize::try_from(frame.length - done).unwrap_or(PIECE).min(PIECE);
                    let count = match reader.read(&mut buffer[..most]).await {
                        Ok(count) if count > 0 => count,
                        _ => return true,
                    };
                    frame.unmask(&mut buffer[..count], done);
                    if input.write_all(&buffer[..count]).await.is_err() {
                        return false;
                    }
                    done += count as u64;
                }
            }
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(
    mut writer: S,
    mut output: ReadHalf<DuplexStream>,
    mut asked: tokio::sync::mpsc::Receiver<Vec<u8>>,
    frames: Frames,
) {
    let kind = if frames == Frames::Binary { BINARY } else { TEXT };
    let mut buffer = vec![0; PIECE];
    loop {
        let (kind, bytes) = tokio::select! {
            count = output.read(&mut buffer) => match count {
                Ok(count) if count > 0 => (kind, &buffer[..count]),
                _ => break,
            },
            Some(ping) = asked.recv() => {
                if send(&mut writer, PONG, &ping).await.is_err() {
                    return;
                }
                continue;
            }
        };
        if send(&mut writer, kind, bytes).await.is_err() {
            return;
        }
    }
    // 1000: it has come to its end.
    let _gone = send(&mut writer, CLOSE, &1000_u16.to_be_bytes()).await;
    let _gone = writer.shutdown().await;
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![LAST | kind];
    match u8::try_from(bytes.len()) {
        Ok(short @ 0..=125) => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(bytes);
    writer.write_all(&frame).await?;
    writer.flush().await
}

/// What is in front of a client's bytes.
#[derive(Debug)]
struct Head {
    kind: u8,
    length: u64,
    mask: [u8; 4],
}

impl Head {
    /// # Errors
    /// The stream's; a frame without a mask, which no client may send.
    async fn read(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let kind = reader.read_u8().await? & 0x0f;
        let length = reader.read_u8().await?;
        if length & MASKED == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let length = match length & !MASKED {
            126 => reader.read_u16().await?.into(),
            127 => reader.read_u64().await?,
            short => short.into(),
        };
        let mut mask = [0; 4];
        let _count = reader.read_exact(&mut mask).await?;
        Ok(Self { kind, length, mask })
    }

    /// Bytes that are `done` behind the frame's beginning.
    fn unmask(&self, bytes: &mut [u8], done: u64) {
        let first = usize::try_from(done % 4).unwrap_or_default();
        for (byte, mask) in bytes.iter_mut().zip(self.mask.iter().cycle().skip(first)) {
            *byte ^= mask;
        }
    }
}

/// SHA-1 (FIPS 180-4), which the handshake wants as a checksum; nothing is secured by it.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((bytes.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (old, new) in state.iter_mut().zip([a, b, c, d, e]) {
            *old = old.wrapping_add(new);
        }
    }
    let mut sum = [0; 20];
    for (bytes, word) in sum.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_standards() {
        // The example of RFC 6455, section 1.3.
        let accept = STANDARD.encode(sha1(format!("dGhlIHNhbXBsZSBub25jZQ=={GUID}").as_bytes()));
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let hex = |bytes: &[u8]| sha1(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&[b'a'; 119]), "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56");
    }

    fn masked(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let length = match bytes.len() {
            short @ 0..=125 => vec![MASKED | u8::try_from(short).unwrap()],
            long => [vec![MASKED | 127], (long as u64).to_be_bytes().to_vec()].concat(),
        };
        let hidden = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        [vec![LAST | kind], length, mask.to_vec(), hidden].concat()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_pings_are_answered() {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (own, mut process) = tokio::io::duplex(1 << 20);
        let passing = tokio::spawn(pass(server, own, Frames::Binary));
        let (mut from, mut to) = tokio::io::split(client);
        let long = vec![7; 70_000];
        to.write_all(&masked(TEXT, b"typed")).await.unwrap();
        to.write_all(&masked(PING, b"ping")).await.unwrap();
        to.write_all(&masked(0, &long)).await.unwrap();
        let mut seen = vec![0; 5 + long.len()];
        let _count = process.read_exact(&mut seen).await.unwrap();
        assert!(seen.starts_with(b"typed") && seen.ends_with(&long));
        let mut answer = [0; 6];
        let _count = from.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x8a\x04ping");
        process.write_all(b"said").await.unwrap();
        let _count = from.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x82\x04said");
        drop(process);
        let mut rest = Vec::new();
        let _count = from.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [LAST | CLOSE, 2, 0x03, 0xe8]);
        passing.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_it() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let (own, _process) = tokio::io::duplex(1 << 10);
        let passing = tokio::spawn(pass(server, own, Frames::Text));
        client.write_all(&[LAST | TEXT, 3, b'a', b'b', b'c']).await.unwrap();
        passing.await.unwrap();
    }
}
