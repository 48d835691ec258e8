//! The first process of a container that wants one (`--init`): it starts the container's own, passes signals on to it, and
//! reaps whatever is left to it. It is this very program, bound into the container.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use rustix_libc_wrappers::process::SignalExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Where it is in a container, as Docker's is.
pub const PATH: &str = "/sbin/docker-init";

/// What is not passed on: its own children's, what no process can take, what a fault of its own raises, and what a terminal says
/// to this process alone.
const OWN: [Signal; 12] = [
    Signal::CHILD,
    Signal::KILL,
    Signal::STOP,
    Signal::ILL,
    Signal::TRAP,
    Signal::ABORT,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::SYS,
    Signal::TTIN,
    Signal::TTOU,
];
/// The last real-time one; those between them and the named ones are the C library's own (signal(7)).
const LAST: i32 = 64;

/// Runs the command behind `--`, and ends as it does.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut words = arguments.skip_while(|word| word == "--");
    let Some(program) = words.next() else {
        eprintln!("docker-init: no command");
        return ExitCode::from(1);
    };
    match serve(&program, words.collect()) {
        Ok(status) => {
            let status = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
            ExitCode::from(u8::try_from(status).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("[FATAL docker-init ({})] exec {program} failed: {error}", std::process::id());
            ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(program: &str, words: Vec<String>) -> std::io::Result<ExitStatus> {
    let (sender, mut passed) = mpsc::unbounded_channel();
    for one in (1..=LAST).filter_map(Signal::from_raw).filter(|one| !OWN.contains(one)) {
        let (mut signals, sender) = (signal(SignalKind::from_raw(one.as_raw()))?, sender.clone());
        drop(tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ended = sender.send(one);
            }
        }));
    }
    let mut children = signal(SignalKind::child())?;
    // A group of its own, so that a terminal's signals reach it once.
    let child = Command::new(program).args(words).process_group(0).spawn()?;
    let Some(own) = Pid::from_raw(child.id().cast_signed()) else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    // Without a terminal there is nothing to give.
    let _none = rustix::termios::tcsetpgrp(std::io::stdin(), own);
    // It may have asked for the terminal before it was its own, and have been stopped for that.
    let _ended = kill_process_group(own, Signal::CONT);
    loop {
        tokio::select! {
            Some(one) = passed.recv() => {
                let _ended = kill_process(own, one);
            }
            _ = children.recv() => {}
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == own && (status.exited() || status.signaled()) {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }
}
