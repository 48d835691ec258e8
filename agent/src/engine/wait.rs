//! Waiting for a container: until it does not run, until its next end, until it is removed.

use std::sync::Arc;

use super::container::{Container, Life};
use crate::error::{Error, Result};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not run; at once if so.
    NotRunning,
    /// Its next end.
    NextExit,
    /// It is no more.
    Removed,
}

impl Condition {
    /// Of a request's word.
    ///
    /// # Errors
    /// Another word: dockerd's text.
    pub fn of(word: &str) -> Result<Self> {
        match word {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(Error::invalid(format!("invalid condition: {word:?}"))),
        }
    }
}

/// Resolves when it is so; from the call on, not from the first poll, does it count ends.
pub fn wait(container: &Arc<Container>, condition: Condition) -> impl Future<Output = Life> + use<> {
    let mut life = container.life.subscribe();
    let before = life.borrow().ends;
    async move {
        let so = |life: &Life| match condition {
            Condition::NotRunning => !life.running || life.ends > before || life.removed,
            Condition::NextExit => life.ends > before || life.removed,
            Condition::Removed => life.removed,
        };
        match life.wait_for(so).await {
            Ok(life) => life.clone(),
            Err(_) => Life { removed: true, ..Life::default() },
        }
    }
}
