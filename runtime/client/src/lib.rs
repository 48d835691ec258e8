//! Drives any OCI runtime with runc's command line: [`Runtime`] builds the arguments and understands the answers. The
//! runtime's processes are the caller's children, and it is the caller who waits for them: see [`Children`].

mod command;
mod console;
mod error;
mod log;

pub use command::{Checkpoint, Children, Create, Exec, Outcome, Restore, Runtime, Stdio, read_pid_file};
pub use console::ConsoleSocket;
pub use error::RuntimeError;
