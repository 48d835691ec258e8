//! Container ids: the one place that says which are allowed, as they become file and cgroup names.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An id by runc's rules: letters, digits, `_`, `+`, `-` and `.`, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a text is no container id. The texts are runc's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContainerIdError {
    /// Nothing at all.
    #[error("container id cannot be empty")]
    Empty,
    /// A character that is not allowed, a name that means a directory, or more than a file name can hold.
    #[error("invalid container ID format")]
    Format,
}

impl ContainerId {
    /// Linux's `NAME_MAX`: the id names a directory. In bytes.
    pub const MAX_LEN: usize = 255;

    /// Takes an id.
    ///
    /// # Errors
    /// [`ContainerIdError`], with runc's texts.
    pub fn new(id: impl Into<String>) -> Result<Self, ContainerIdError> {
        let id = id.into();
        if id.is_empty() {
            return Err(ContainerIdError::Empty);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
        if id == "." || id == ".." || id.len() > Self::MAX_LEN || !id.bytes().all(allowed) {
            return Err(ContainerIdError::Format);
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerId {
    type Error = ContainerIdError;
    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl std::str::FromStr for ContainerId {
    type Err = ContainerIdError;
    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_runc_takes_are_taken() {
        for id in ["a", "test_busybox", "A-1+2.3", "...", ".hidden", "-", &"x".repeat(255)] {
            assert_eq!(ContainerId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn names_that_could_leave_the_state_directory_are_refused() {
        assert_eq!(ContainerId::new("").unwrap_err().to_string(), "container id cannot be empty");
        for id in [".", "..", "a/b", "/", "a b", "a\0", "ü", "a:b", "*", &"x".repeat(256)] {
            assert_eq!(
                ContainerId::new(id).unwrap_err().to_string(),
                "invalid container ID format",
                "{id:?}"
            );
        }
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
    }
}
