//! The `ketch` command: a thin door to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "fault-injection")]
    ketch_sys::fault_injection::begin();
    ketch::cli::run(std::env::args_os())
}
