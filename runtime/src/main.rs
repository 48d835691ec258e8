//! The `ketch` command: a thin door to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ketch::cli::run(std::env::args_os())
}
