//! What calls carry: one JSON value, bytes, or a stream of messages, each behind its length.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::held::Held;
use super::links::CallError;
use super::refusal::{REFUSED, Refusal};
use super::tunnel::parts;
use crate::calls::StreamMessage;

/// What an answer is made of.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A message of a stream is at most so long, at both ends: what is more is sent in parts.
const MOST_MESSAGE: usize = 64 << 20;

/// What a call is answered.
#[derive(Debug)]
pub enum Answer {
    Bytes(Bytes),
    /// Bytes that are not kept for who does not take them.
    Held(Held),
    /// The messages of a stream, encoded by [`Answer::message`]; it ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
    /// Whatever HTTP can say: of the Engine API.
    Http(Response<Body>),
    /// The far end of a tunnel: of a [`TunnelRequest`](crate::calls::TunnelRequest), and of no other call.
    Tunnel(DuplexStream),
}

impl Answer {
    /// One value as JSON.
    ///
    /// # Errors
    /// It has no JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, Refusal> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Refusal::Failed(format!("writing an answer: {error}")))?;
        Ok(Self::Bytes(bytes.into()))
    }

    /// A message as a stream carries it.
    ///
    /// # Errors
    /// It has no JSON, or more of it than the other end takes.
    pub fn message(value: &impl Serialize) -> Result<Bytes, Refusal> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Refusal::Failed(format!("writing a message: {error}")))?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MOST_MESSAGE);
        let length = length
            .ok_or_else(|| Refusal::Failed(format!("a message of {} bytes is too long", json.len())))?;
        Ok([&length.to_be_bytes()[..], &json].concat().into())
    }

    pub(super) fn response(self) -> Response<Body> {
        match self {
            Self::Bytes(bytes) => Response::new(whole(bytes)),
            Self::Held(held) => Response::new(held.body()),
            Self::Stream(messages) => Response::new(streamed(messages)),
            Self::Http(response) => response,
            Self::Tunnel(far) => Response::new(parts(far).0),
        }
    }
}

impl Refusal {
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(whole(serde_json::to_vec(self).unwrap_or_default().into()));
        *response.status_mut() =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(REFUSED, HeaderValue::from_static("1"));
        response
    }
}

pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(messages: mpsc::Receiver<Bytes>) -> Body {
    let frames = futures_util::stream::unfold(messages, async |mut messages| {
        let bytes = messages.recv().await?;
        Some((Ok(Frame::data(bytes)), messages))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The messages that answer a [`StreamRequest`](crate::calls::StreamRequest). Dropped, it ends the call.
#[derive(Debug)]
pub struct Messages<M> {
    body: Incoming,
    ahead: BytesMut,
    kind: PhantomData<fn() -> M>,
}

impl<M: StreamMessage> Messages<M> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, ahead: BytesMut::new(), kind: PhantomData }
    }

    /// The next one; none when the other end has ended the stream. May be dropped and called again: nothing is lost. Those of a kind
    /// that this version does not know are passed over.
    ///
    /// # Errors
    /// The connection was lost, or what came is no message.
    pub async fn next(&mut self) -> Result<Option<M>, CallError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None if self.ahead.is_empty() => return Ok(None),
                None => return Err(CallError::Lost("the stream ended inside a message".to_owned())),
                Some(Err(error)) => return Err(CallError::Lost(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.ahead.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Result<Option<M>, CallError> {
        while let Some(json) = self.take_json()? {
            match serde_json::from_slice(&json) {
                Ok(message) => return Ok(Some(message)),
                Err(error) => match kind_of(&json).filter(|kind| !M::KINDS.contains(&kind.as_str())) {
                    Some(kind) => {
                        tracing::warn!(kind, "a message of a newer version of ketch is passed over")
                    }
                    None => return Err(CallError::Unreadable(error.to_string())),
                },
            }
        }
        Ok(None)
    }

    /// The next message that has come whole.
    fn take_json(&mut self) -> Result<Option<BytesMut>, CallError> {
        let Some(length) = self.ahead.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize)
        else {
            return Ok(None);
        };
        if length > MOST_MESSAGE {
            return Err(CallError::Unreadable(format!("a message of {length} bytes")));
        }
        if self.ahead.len() < 4 + length {
            return Ok(None);
        }
        self.ahead.advance(4);
        Ok(Some(self.ahead.split_to(length)))
    }
}

/// The kind of a message: its name, or the one field that it has.
fn kind_of(json: &[u8]) -> Option<String> {
    match serde_json::from_slice(json).ok()? {
        serde_json::Value::String(kind) => Some(kind),
        serde_json::Value::Object(fields) if fields.len() == 1 => fields.into_iter().next().map(|it| it.0),
        _ => None,
    }
}
