//! A client's connection as hyper has it, which hears that the client hangs up while it is answered: hyper itself does not read then,
//! and each `docker run -d` would leave the daemon a connection that waits for the container's end. Called by [`super::server`].
//!
//! As with Go's server the end of what a client writes is its hang-up, unless the connection was given to it as a stream; but an
//! answer that is whole already is still written, which is all that a script waits for that pipes a request into a socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::Body as _;
use hyper::{StatusCode, Version};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::lenient::escaped;
use super::response::Response;

/// How much is read ahead of hyper, in bytes: whether there is anything is all that matters.
const AHEAD: usize = 512;

/// What goes on at a connection, as its service tells.
#[derive(Clone, Debug, Default)]
pub struct Answering(Arc<AtomicU8>);

/// Nothing that a hang-up ends.
const WHOLE: u8 = 0;
/// An answer without a length: a client that stops to write has gone.
const STREAM: u8 = 1;
/// Output as a stream of bytes, to a client that has not asked for an upgrade: it may have stopped to write, and still read.
const HALF: u8 = 2;

impl Answering {
    /// A request has come: what was sent last is out.
    pub fn begin(&self) {
        self.0.store(WHOLE, Ordering::Relaxed);
    }

    /// This is sent next.
    pub fn with(&self, response: &Response) {
        let state = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            WHOLE
        } else if response.version() == Version::HTTP_10 {
            HALF
        } else if response.body().size_hint().exact().is_none() {
            STREAM
        } else {
            WHOLE
        };
        self.0.store(state, Ordering::Relaxed);
    }
}

/// Whether nobody is at the other end of a connection any more. That can't be told of every kind.
pub trait Peer {
    /// See [`Peer`].
    fn has_gone(&self) -> bool {
        false
    }
}

impl Peer for UnixStream {
    fn has_gone(&self) -> bool {
        // Nothing is sent; the kernel says whether it could be.
        send(self, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::PIPE)
    }
}

impl Peer for tokio::net::TcpStream {}

impl<S> Peer for tokio_rustls::server::TlsStream<S> {}

/// See the module.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    answering: Answering,
    /// Read, and not yet taken by hyper.
    ahead: Bytes,
    has_ended: bool,
    /// Nothing was read yet: the first line may have to be escaped.
    is_fresh: bool,
}

impl<S: AsyncRead + AsyncWrite + Peer + Unpin> Wire<S> {
    /// Of a connection that has just come.
    #[must_use]
    pub fn new(stream: S, answering: Answering) -> Self {
        Self { stream, answering, ahead: Bytes::new(), has_ended: false, is_fresh: true }
    }

    fn has_hung_up(&mut self, context: &mut Context<'_>) -> bool {
        let state = self.answering.0.load(Ordering::Relaxed);
        if state == WHOLE {
            return false;
        }
        if !self.has_ended && self.ahead.is_empty() {
            let mut bytes = [0; AHEAD];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.has_ended = true,
                Poll::Ready(Ok(())) => {
                    self.ahead = Bytes::copy_from_slice(buffer.filled());
                    // hyper may wait for it.
                    context.waker().wake_by_ref();
                }
            }
        }
        self.has_ended && (state == STREAM || self.stream.has_gone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && !self.has_ended {
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            if !self.is_fresh || buffer.filled().len() == before {
                return read;
            }
            self.is_fresh = false;
            let Some(whole) = escaped(buffer.filled().get(before..).unwrap_or_default()) else { return read };
            buffer.set_filled(before);
            self.ahead = whole.into();
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Peer + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper does not read while it answers, but comes by here each time that it is woken.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_hung_up(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn quotes_are_escaped_in_the_first_line_only() {
        let text = b"GET /x?filters={\"a\":[\"b\"]} HTTP/1.1\r\nX: \"y\"\r\n\r\n".to_vec();
        let mut read = String::new();
        let (ahead, answering) = (Bytes::new(), Answering::default());
        let mut stream = Wire { stream: text.as_slice(), answering, ahead, has_ended: false, is_fresh: true };
        // Less room than there is to read.
        let mut buffer = [0; 80];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            read.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        assert_eq!(read, "GET /x?filters={%22a%22:[%22b%22]} HTTP/1.1\r\nX: \"y\"\r\n\r\n");
    }
}
