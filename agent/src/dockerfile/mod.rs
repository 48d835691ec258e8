//! Dockerfiles, read: text to stages of instructions, variables put in, and what an instruction that changes no file does to an
//! image's settings. Texts and quirks are the classic builder's.
//!
//! ```text
//! text --lines, flags, operands, parse--> instructions --words, expand--> the same without variables --dispatch--> settings
//! ```
//! Pure, all of it: neither files nor containers nor images. Called by `build`, and by the routes whose requests have
//! instructions of their own: commit and import.

pub(crate) mod args;
mod changes;
pub(crate) mod dispatch;
mod expand;
mod flags;
mod healthcheck;
mod lines;
mod operands;
pub mod parse;
pub mod words;

pub use changes::changed;
