//! A signal as the command line names it.

use std::str::FromStr;

/// A signal's number; 0 asks only whether the process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// SIGTERM: what `kill` sends when it is not told otherwise.
    pub const TERM: Self = Self(ketch_sys::signal::TERMINATE);
    /// SIGKILL.
    pub const KILL: Self = Self(ketch_sys::signal::KILL);

    /// The number that the kernel is given. It may be one that the kernel does not know.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

/// To be done before the process has any child: whether a child's end is told is up to whoever started this process.
///
/// # Errors
/// The kernel's.
pub fn keep_ended_children() -> Result<(), ketch_sys::SyscallError> {
    ketch_sys::signal::keep_ended_children()
}

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {0:?}")]
pub struct UnknownSignal(String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// A number, or a name in any case with or without `SIG` (`TERM`, `sigkill`, `RTMIN+3`).
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        let mut name = text.to_ascii_uppercase();
        if !name.starts_with("SIG") {
            name.insert_str(0, "SIG");
        }
        ketch_sys::signal::number(&name).map(Self).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_in_any_case() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("hup", 1), ("0", 0), ("RTMIN+1", 35)]
        {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_quoted() {
        let error = "SIGFOO".parse::<Signal>().unwrap_err();
        assert_eq!(error.to_string(), "unknown signal \"SIGFOO\"");
        assert!("".parse::<Signal>().is_err());
    }
}
