//! `POST /build`: the classic builder, over the engine's own create, start, wait, and images' layers.
//!
//! ```text
//! tar --source--> context --crate::dockerfile--> stages of instructions --run--> step by step:
//!     variables -> cache (done before?) -> a container, or copy (files) -> image::step
//! ```
//! Each step's image is its cache. Intermediate containers are ordinary ones: whoever kills the daemon finds them in
//! `docker ps -a`, as with dockerd. Texts and the settings of images are the classic builder's, letter by letter. Called by
//! the route only; `ignore` is pure.

mod cache;
mod container;
mod copy;
mod ignore;
mod options;
mod output;
mod run;
mod source;
mod steps;
mod sums;
mod tree;
mod untar;

pub use options::{Logins, Options};
pub use run::build;

use crate::error::Error;

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
