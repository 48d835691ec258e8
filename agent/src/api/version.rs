//! The API's versions: those that are served, and the one that a request asks for.

use std::fmt;

use crate::error::{Error, Result};

/// A version, as `1.51`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Before the dot.
    pub major: u16,
    /// After it.
    pub minor: u16,
}

/// The newest that is served; a request without a version means it.
pub const CURRENT: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest.
pub const MINIMUM: ApiVersion = ApiVersion { major: 1, minor: 24 };

impl ApiVersion {
    /// Version 1 of this minor.
    #[must_use]
    pub const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }

    /// The version of a path's first segment, `v1.51`; `None` for any other segment.
    #[must_use]
    pub fn of_segment(segment: &str) -> Option<Self> {
        let text = segment
            .strip_prefix('v')
            .filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))?;
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The version that a path begins with.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        path.strip_prefix('/')?.split('/').next().and_then(Self::of_segment)
    }

    /// Itself, when it is served; `text` is how it was asked for.
    ///
    /// # Errors
    /// dockerd's text for one that is too old or too new.
    pub fn served(self, text: &str) -> Result<Self> {
        if self < MINIMUM {
            return Err(Error::invalid(format!(
                "client version {text} is too old. Minimum supported API version is {MINIMUM}, please upgrade your client to a newer version"
            )));
        }
        if self > CURRENT {
            return Err(Error::invalid(format!(
                "client version {text} is too new. Maximum supported API version is {CURRENT}"
            )));
        }
        Ok(self)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        assert_eq!(ApiVersion::of_segment("v1.51"), Some(CURRENT));
        assert_eq!(ApiVersion::of_segment("v9"), Some(ApiVersion { major: 9, minor: 0 }));
        for other in ["1.50", "v1.x", "volumes", "v.1", "v+1.1", "v"] {
            assert_eq!(ApiVersion::of_segment(other), None, "{other}");
        }
    }

    #[test]
    fn only_those_in_between_are_served() {
        assert_eq!(MINIMUM.served("1.24").ok(), Some(MINIMUM));
        assert_eq!(CURRENT.served("1.51").ok(), Some(CURRENT));
        assert!(ApiVersion::v1(23).served("1.23").is_err_and(|error| error.message.contains("too old")));
        assert!(ApiVersion::v1(52).served("1.52").is_err_and(|error| error.message.contains("too new")));
        assert!(ApiVersion::v1(9) < ApiVersion::v1(24));
    }
}
