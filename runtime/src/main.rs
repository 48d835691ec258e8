//! The `ketch` command: a thin door to the library.

// Not the standard library's start-up but a shorter one; the test harness brings its own.
#![cfg_attr(not(test), no_main)]

#[cfg(not(test))]
ketch_sys::program!(run);

#[cfg(not(test))]
fn run() -> u8 {
    ketch::cli::run(std::env::args_os())
}
