//! The daemon's one error: what kind it is, which the API turns into a status, and the text that a client prints.
//!
//! Each module has an error type of its own where its callers tell cases apart; it becomes this one at the module's door.
//! Texts that clients match are in [`crate::compat`].

use std::fmt;

/// What the caller may do about it; the API's status (moby's `errdefs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request can't be meant.
    InvalidArgument,
    /// 401: a registry wants other credentials.
    Unauthorized,
    /// 403: not allowed to anyone.
    Forbidden,
    /// 404: no such object.
    NotFound,
    /// 409: not in the object's present state.
    Conflict,
    /// 304: it is so already.
    NotModified,
    /// 503: not now.
    Unavailable,
    /// 501: not in ketch.
    NotImplemented,
    /// 500: the machine's fault, or ours.
    Internal,
}

/// A failed request.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind.
    pub kind: Kind,
    /// The text: names the failed action and its operands.
    pub message: String,
}

/// Of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A request that can't be meant.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// An object that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A request that does not fit the object's state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A failure of the machine: `action`, then each cause.
    pub fn internal(action: impl fmt::Display, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("{action}: {source}");
        let mut cause = source.source();
        while let Some(inner) = cause {
            message.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        Self::new(Kind::Internal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
