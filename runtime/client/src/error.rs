//! What a call of the runtime can end in, and what its words mean. The texts are runc's, which every runtime with its
//! command line keeps (`runtime/src/compat.rs` has ketch's).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A call of the runtime that failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("start {}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
    #[error("{action}: no answer in {} s", after.as_secs_f32())]
    TimedOut { action: &'static str, after: Duration },
    /// The runtime's own words, or its status where it had none.
    #[error("{action}: {message}")]
    Failed { action: &'static str, message: String },
    #[error("{action}: the answer makes no sense: {answer:?}")]
    Answer { action: &'static str, answer: String, source: serde_json::Error },
    #[error("read the process id from {}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("console socket {}", path.display())]
    Console { path: PathBuf, source: io::Error },
    #[error("a file for the runtime's output")]
    Output { source: io::Error },
}

impl RuntimeError {
    /// What the runtime said, without the name of what it was to do; everything else in full.
    pub fn words(&self) -> String {
        let Self::Failed { message, .. } = self else {
            let source =
                std::error::Error::source(self).map_or_else(String::new, |source| format!(": {source}"));
            return format!("{self}{source}");
        };
        message.clone()
    }

    fn says(&self, text: &str) -> bool {
        matches!(self, Self::Failed { message, .. } if message.to_ascii_lowercase().contains(text))
    }

    /// Whether there is no such container.
    pub fn is_no_container(&self) -> bool {
        self.says("does not exist")
    }

    /// Whether the process that was to get a signal has ended.
    pub fn is_finished(&self) -> bool {
        ["process already finished", "container not running", "no such process"]
            .iter()
            .any(|text| self.says(text))
    }

    /// Whether the runtime was killed because it took too long.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str) -> RuntimeError {
        RuntimeError::Failed { action: "kill", message: message.into() }
    }

    #[test]
    fn the_words_of_a_failure_are_understood() {
        assert!(failed("container does not exist").is_no_container());
        assert!(failed("unable to signal init: No such process").is_finished());
        assert!(failed("container not running").is_finished());
        assert!(!failed("permission denied").is_finished());
        assert!(!RuntimeError::TimedOut { action: "kill", after: Duration::from_secs(1) }.is_finished());
    }
}
