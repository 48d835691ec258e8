//! Safe signatures over the kernel. The only crate with `unsafe`.
//!
//! One file per kernel topic; each file's header names the man page and the least kernel.

pub mod error;

pub use error::{Errno, SyscallError};
