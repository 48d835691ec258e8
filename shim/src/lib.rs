//! containerd's shim for ketch and every runtime with runc's command line. One small process holds a container, or all
//! containers of a pod: it runs the runtime, carries their output, reaps them, and tells containerd what happened.
//!
//! `main` parses flags and acts: [`bootstrap`] starts the serving process, [`service`] is that process. It links no
//! runtime; it executes one (`ketch-runtime-client`).

pub mod arguments;
pub mod bootstrap;
mod cgroup;
mod checkpoint;
mod console;
mod container;
mod copy;
mod delete;
mod error;
mod events;
mod exec;
mod exit;
mod frames;
mod idmap;
mod info;
mod launch;
mod log;
mod logger;
mod namespaces;
mod oom;
pub mod options;
mod pod;
mod process;
mod quiet;
mod reaper;
mod record;
mod rootfs;
mod sandbox;
mod server;
mod service;
mod socket;
mod spec;
mod stats;
mod stdio;
mod takeover;
mod task;
mod users;
mod waiting;

use std::process::ExitCode;

use arguments::{Action, Arguments};

/// Does what the command line says. Everything that fails ends here, in one line on stderr.
pub fn run() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(logger) = logger::asked(&words) {
        return failed(&logger::become_logger(logger));
    }
    if users::asked(&words) {
        return match users::hold() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    let arguments = match Arguments::parse(words.into_iter().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => return failed(&error),
    };
    let done = match arguments.action {
        Action::Version => info::print_version(),
        Action::Info => info::print(),
        Action::Start => bootstrap::start(&arguments),
        Action::Delete => delete::delete(&arguments),
        Action::Serve => service::serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    use std::io::Write;
    let line = format!("{}: {}\n", bootstrap::program_name(), error::chain(error));
    // There is nobody left to tell when stderr is gone.
    let _told = std::io::stderr().write_all(line.as_bytes());
    ExitCode::FAILURE
}
