//! The frames that carry a container's two outputs over one connection: a byte that names the stream, three of zero, the
//! length as four bytes in network order, the bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the daemon, which clients print and end on.
    System = 3,
}

/// One frame.
#[must_use]
pub fn frame(stream: Stream, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u8(stream as u8);
    frame.put_bytes(0, 3);
    frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    frame.put_slice(bytes);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_stream_and_length() {
        assert_eq!(frame(Stream::Stderr, b"ab").as_ref(), [2, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
    }
}
