//! What a call can end in, and the status that containerd is told; the texts that it matches are here.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use ketch_runtime_client::RuntimeError;
use ketch_shim_api::ttrpc::Code;

use crate::arguments::ArgumentsError;
use crate::options::OptionsError;
use crate::process::Refusal;

/// A call, or a whole action, that failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is not implemented")]
    Unimplemented(String),
    #[error("{0}")]
    Deadline(String),
    #[error("the shim is shutting down")]
    Leaving,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("decode {what}")]
    Decode { what: &'static str, source: prost::DecodeError },
    #[error("{what}: {}", source.words())]
    Runtime { what: &'static str, source: RuntimeError },
    #[error("{action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("mount {kind} at {}", target.display())]
    Mount { kind: String, target: PathBuf, source: Box<ShimError> },
    #[error("{action}")]
    System { action: &'static str, source: io::Error },
    #[error("read {}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

impl ShimError {
    /// For `map_err` on a file's operation.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }

    /// For `map_err` on what has no path.
    pub fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { action, source: source.into() }
    }

    /// For `map_err` on a call of the runtime.
    pub fn runtime(what: &'static str) -> impl FnOnce(RuntimeError) -> Self {
        move |source| Self::Runtime { what, source }
    }

    /// The status of a call that ends in this.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::Precondition(_) | Self::Refused(_) => Code::FailedPrecondition,
            Self::Invalid(_) | Self::Decode { .. } | Self::Options(_) => Code::InvalidArgument,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Deadline(_) => Code::DeadlineExceeded,
            Self::Leaving => Code::Unavailable,
            Self::Runtime { source, .. } if source.is_timed_out() => Code::DeadlineExceeded,
            Self::Mount { source, .. } => source.code(),
            _ => Code::Unknown,
        }
    }
}

/// A failure with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    // The runtime's words are already in the text.
    let mut source = match (error as &dyn Error).source() {
        Some(source) if source.is::<RuntimeError>() => None,
        source => source,
    };
    while let Some(cause) = source {
        let _infallible = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// What a signal that reached nobody ends in: containerd and Docker know these texts.
pub(crate) fn from_kill(error: RuntimeError) -> ShimError {
    if error.is_finished() {
        ShimError::NotFound("process already finished".into())
    } else if error.is_no_container() {
        ShimError::NotFound("no such container".into())
    } else {
        ShimError::Runtime { what: "unknown error after kill", source: error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str) -> RuntimeError {
        RuntimeError::Failed { action: "create", message: message.into() }
    }

    #[test]
    fn the_runtimes_words_are_said_once() {
        let error = ShimError::runtime("OCI runtime create failed")(failed("no such file"));
        assert_eq!(chain(&error), "OCI runtime create failed: no such file");
        assert_eq!(error.code(), Code::Unknown);
    }

    #[test]
    fn causes_follow() {
        let error = ShimError::file("open", Path::new("/x"))(io::ErrorKind::NotFound.into());
        assert_eq!(chain(&error), "open /x: entity not found");
    }

    #[test]
    fn a_signal_to_nobody_is_not_found() {
        assert_eq!(from_kill(failed("container not running")).code(), Code::NotFound);
        assert_eq!(from_kill(failed("container does not exist")).to_string(), "no such container");
        assert_eq!(from_kill(failed("permission denied")).code(), Code::Unknown);
    }
}
