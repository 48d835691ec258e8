//! A connection whose first line may hold what Go's server takes and hyper refuses: quotes in a query, as curl sends them of
//! `filters={"name":["web"]}`. Called by [`super::server`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection. Only the first request's line is looked at, where it comes in one piece: who writes such lines makes a
/// connection for each.
#[derive(Debug)]
pub struct Lenient<S> {
    stream: S,
    is_fresh: bool,
    /// Read, and not yet given on.
    rest: Vec<u8>,
}

impl<S> Lenient<S> {
    /// Of a stream that nothing has been read from.
    pub fn new(stream: S) -> Self {
        Self { stream, is_fresh: true, rest: Vec::new() }
    }
}

/// The same with the line's quotes, angle brackets and letters beyond ASCII escaped; `None` where there is nothing to escape.
fn escaped(read: &[u8]) -> Option<Vec<u8>> {
    let is_odd = |byte: u8| matches!(byte, b'"' | b'<' | b'>') || byte >= 0x7f;
    let end = read.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let (line, rest) = read.split_at(end);
    if !line.iter().any(|byte| is_odd(*byte)) {
        return None;
    }
    let mut whole = Vec::with_capacity(read.len() + 64);
    for &byte in line {
        match is_odd(byte) {
            true => whole.extend(format!("%{byte:02X}").bytes()),
            false => whole.push(byte),
        }
    }
    whole.extend(rest);
    Some(whole)
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            if !self.is_fresh || buffer.filled().len() == before {
                return read;
            }
            self.is_fresh = false;
            let Some(whole) = escaped(buffer.filled().get(before..).unwrap_or_default()) else { return read };
            buffer.set_filled(before);
            self.rest = whole;
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        drop(self.rest.drain(..length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
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

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        let mut stream = Lenient::new(text.as_slice());
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

    #[test]
    fn others_are_left_alone() {
        for text in ["GET / HTTP/1.1\r\nX: \"y\"\r\n", "GET /x?\"", ""] {
            assert_eq!(escaped(text.as_bytes()), None, "{text}");
        }
    }
}
