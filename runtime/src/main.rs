//! The `ketch` command: a thin door to the library.

// Not the standard library's start-up but a shorter one; the test harness brings its own.
#![cfg_attr(not(test), no_main)]

#[cfg(not(test))]
ketch_sys::program!(run);

#[cfg(not(test))]
fn run() -> u8 {
    #[cfg(feature = "fault-injection")]
    ketch_sys::fault_injection::begin();
    ketch::cli::run(std::env::args_os())
}
