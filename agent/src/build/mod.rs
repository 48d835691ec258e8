//! `POST /build`: the classic builder, over the engine's own create, start, wait, and images' layers.
//!
//! ```text
//! tar --source--> context --lines, parse--> stages of instructions --run--> step by step:
//!     words, args (variables) -> cache (done before?) -> a container, or copy (files) -> image::step
//! ```
//! Each step's image is its cache. Intermediate containers are ordinary ones: whoever kills the daemon finds them in
//! `docker ps -a`, as with dockerd. Texts and the settings of images are the classic builder's, letter by letter. Called by
//! the route only; `lines`, `words`, `parse`, `flags`, `operands`, `healthcheck`, `args` and `ignore` are pure.

mod args;
mod cache;
mod container;
mod copy;
mod dispatch;
mod expand;
mod flags;
mod healthcheck;
mod ignore;
mod lines;
mod operands;
mod options;
mod output;
pub mod parse;
mod run;
mod source;
mod steps;
mod sums;
mod tree;
mod untar;
pub mod words;

pub use options::{Logins, Options};
pub use run::build;

use crate::error::Error;
use crate::paths;

/// A build that failed; `code` is that of the command that did, or 0.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// With which code.
    pub code: i64,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, code: 0 }
    }
}

/// A path from the root on, without what means nothing.
fn absolute(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    paths::clean(&whole)
}
