//! ttrpc's frames: a header of ten bytes (length, stream, type, flags), then a message. Pure: the bytes come from
//! somebody's socket. Streaming calls (frames of data) are not in the shim's protocol.

use prost::Message;

use crate::wire::Any;

/// Bytes of a frame's header.
pub const HEADER: usize = 10;
/// The longest message, as in containerd's implementation.
pub const MAX_MESSAGE: usize = 4 << 20;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: usize,
    pub stream: u32,
    pub kind: Kind,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// Data of a stream, or what is not known.
    Other(u8),
}

impl Header {
    /// Reads a header; every ten bytes are one.
    pub fn decode(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, kind, _flags] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        let kind = match kind {
            REQUEST => Kind::Request,
            RESPONSE => Kind::Response,
            other => Kind::Other(other),
        };
        // A length that does not fit is too long in any case.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Self { length, stream: u32::from_be_bytes([e, f, g, h]), kind }
    }
}

/// A frame of its own: header and message in one piece, so that it is written by one call.
fn frame(kind: u8, stream: u32, message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    message.encode_raw(&mut bytes);
    bytes
}

/// A call.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// Nanoseconds; none when 0.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// A pair of a call's metadata, as containerd's namespace.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What a call ends in: a status that is not ok, or a payload.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// google.rpc.Status.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// The codes of google.rpc.Code that the protocol uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Request {
    /// The call as a frame of `stream`.
    pub fn frame(&self, stream: u32) -> Vec<u8> {
        frame(REQUEST, stream, self)
    }
}

impl Response {
    /// A call that ended well.
    pub fn ok(payload: Vec<u8>) -> Self {
        Self { status: None, payload }
    }

    /// A call that failed.
    pub fn failed(code: Code, message: String) -> Self {
        Self { status: Some(Status { code: code as i32, message, details: Vec::new() }), payload: Vec::new() }
    }

    /// The answer as a frame of `stream`.
    pub fn frame(&self, stream: u32) -> Vec<u8> {
        frame(RESPONSE, stream, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_header_and_message() {
        let bytes = Response::failed(Code::NotFound, "no".into()).frame(3);
        let header = Header::decode(bytes[..HEADER].try_into().unwrap());
        assert_eq!(header, Header { length: bytes.len() - HEADER, stream: 3, kind: Kind::Response });
        let response = Response::decode(&bytes[HEADER..]).unwrap();
        assert_eq!(response.status.unwrap().code, 5);
    }

    #[test]
    fn the_bytes_of_a_request_are_those_of_ttrpc() {
        let request = Request { service: "s".into(), method: "m".into(), ..Request::default() };
        assert_eq!(request.frame(1), [0, 0, 0, 6, 0, 0, 0, 1, 1, 0, 0x0a, 1, b's', 0x12, 1, b'm']);
    }

    #[test]
    fn any_header_can_be_read() {
        let header = Header::decode([0xff; HEADER]);
        assert_eq!(header.kind, Kind::Other(0xff));
        assert!(header.length > MAX_MESSAGE);
    }
}
