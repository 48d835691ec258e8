//! ttrpc's frames on a socket: what the server and the publisher of events share.

use std::io;

use ketch_shim_api::ttrpc::{HEADER, Header, MAX_MESSAGE};
use tokio::net::UnixStream;

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    /// None if it was longer than anything may be: it has been passed over.
    pub(crate) message: Option<Vec<u8>>,
}

/// The next frame; `None` at the end of the stream.
pub(crate) async fn read(stream: &UnixStream) -> io::Result<Option<Frame>> {
    let mut bytes = [0; HEADER];
    if !fill(stream, &mut bytes).await? {
        return Ok(None);
    }
    let header = Header::decode(bytes);
    if header.length > MAX_MESSAGE {
        skip(stream, header.length).await?;
        return Ok(Some(Frame { header, message: None }));
    }
    let mut message = vec![0; header.length];
    if !fill(stream, &mut message).await? && header.length > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { header, message: Some(message) }))
}

/// Whether `bytes` could be filled: false if the stream ended before the first.
async fn fill(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.try_read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

async fn skip(stream: &UnixStream, mut length: usize) -> io::Result<()> {
    let mut piece = [0; 4096];
    while length > 0 {
        let part = length.min(piece.len());
        if !fill(stream, &mut piece[..part]).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length -= part;
    }
    Ok(())
}

/// Writes a whole frame.
pub(crate) async fn write(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
