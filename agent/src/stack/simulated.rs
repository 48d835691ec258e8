//! What a stack would do, as the daemon answers and the command prints it.

use std::collections::BTreeSet;
use std::fmt;

use ketch_cluster::simulate::Outcome;
use serde::{Deserialize, Serialize};

/// What a stack would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Simulated {
    pub outcome: Outcome,
    /// Requests that would be refused, with the daemon's words.
    pub refused: Vec<(String, String)>,
    /// Services of the stack that are not in the file, and stay.
    pub left: BTreeSet<String>,
    /// It was still changing when it was looked at for long enough.
    pub unfinished: bool,
}

impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refused.iter().try_for_each(|(what, why)| writeln!(f, "{what}: would be refused: {why}"))?;
        write!(f, "{}", self.outcome)?;
        self.left.iter().try_for_each(|name| writeln!(f, "service {name}: is not in the file, and stays"))?;
        if self.unfinished {
            writeln!(f, "it does not come to rest as far as it was followed")?;
        }
        Ok(())
    }
}
