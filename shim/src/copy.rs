//! The copying of streams: between pipes by splice(2), and through a buffer where one side is a file or a terminal.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ketch_shim_sys::WatchedFd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use crate::log;
use crate::stdio::{Share, available};

/// More than any pipe holds.
const MUCH: usize = 1 << 20;
/// Where bytes must pass through us; there only while some do.
const BUFFER: usize = 16 << 10;
/// Rounds without a pause: everything else has its turn then.
const ROUNDS: u32 = 16;

/// What output is copied to.
#[derive(Debug)]
pub(crate) enum Sink {
    Fifo(OwnedFd),
    File(OwnedFd),
}

/// The same, to wait for.
#[derive(Debug)]
pub(crate) enum ReadySink {
    Fifo(WatchedFd),
    File(OwnedFd),
}

impl Sink {
    pub(crate) fn ready(self) -> io::Result<ReadySink> {
        Ok(match self {
            Self::Fifo(fifo) => ReadySink::Fifo(WatchedFd::new(fifo)?),
            Self::File(file) => ReadySink::File(file),
        })
    }
}

/// Copies a process's output to its end.
pub(crate) async fn output(from: WatchedFd, to: ReadySink, share: Share) {
    let copied = match &to {
        ReadySink::Fifo(to) => pipe_to_pipe(&from, to, Some(&share)).await,
        ReadySink::File(_) => through_buffer(&from, Some(&to), &share).await,
    };
    if let Err(error) = copied {
        log::warn(&format!("copy output: {error}"));
    }
}

/// Copies input to a process, whose input ends with it.
pub(crate) async fn input(from: WatchedFd, to: WatchedFd) {
    // A process that has closed its input, or is gone, does not want more.
    let _copied = pipe_to_pipe(&from, &to, None).await;
}

async fn pipe_to_pipe(from: &WatchedFd, to: &WatchedFd, share: Option<&Share>) -> io::Result<()> {
    let mut round = 0;
    loop {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(from.get_ref(), None, to.get_ref(), None, MUCH, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                round += 1;
                if round % ROUNDS == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::INTR) => {}
            // One errno for two causes: nothing to read, or no room to write.
            Err(Errno::AGAIN) if available(from.get_ref()) > 0 => to.writable().await?.clear_ready(),
            // With no room to write, splice does not look whether there will be more to read.
            Err(Errno::AGAIN) if has_ended(from.get_ref()) => return Ok(()),
            Err(Errno::AGAIN) => match share {
                Some(share) => wait_for_more(from, share).await?,
                None => from.readable().await?.clear_ready(),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a pipe is empty and nobody can write to it any more. In this order: what was written before the last writer went
/// is seen.
fn has_ended(from: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(from, PollFlags::empty())];
    let asked = rustix::event::poll(&mut poll, Some(&Timespec::default()));
    asked.is_ok() && poll[0].revents().contains(PollFlags::HUP) && available(from) == 0
}

/// There is nothing to read: waits for more, and says so if the process has ended.
async fn wait_for_more(from: &WatchedFd, share: &Share) -> io::Result<()> {
    share.is_empty_now();
    tokio::select! {
        ready = from.readable() => ready?.clear_ready(),
        // One more look, then it is empty.
        () = share.drain().asked(), if share.counts() => {}
    }
    Ok(())
}

/// Copies a terminal's output until nobody has it open any more.
pub(crate) async fn terminal_output(master: Rc<WatchedFd>, to: Option<ReadySink>, share: Share) {
    if let Err(error) = through_buffer(&master, to.as_ref(), &share).await {
        log::warn(&format!("copy a terminal's output: {error}"));
    }
}

async fn through_buffer(from: &WatchedFd, to: Option<&ReadySink>, share: &Share) -> io::Result<()> {
    loop {
        {
            let mut buffer = vec![0; BUFFER];
            loop {
                match rustix::io::read(from.get_ref(), &mut buffer) {
                    // EIO: the last process that had the terminal is gone.
                    Ok(0) | Err(Errno::IO) => return Ok(()),
                    Ok(count) => pass(&buffer[..count], to).await?,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        wait_for_more(from, share).await?;
    }
}

async fn pass(mut bytes: &[u8], to: Option<&ReadySink>) -> io::Result<()> {
    while let (Some(to), false) = (to, bytes.is_empty()) {
        match to {
            ReadySink::File(file) => bytes = &bytes[rustix::io::write(file, bytes)?..],
            ReadySink::Fifo(fifo) => bytes = &bytes[write(fifo, bytes).await?..],
        }
    }
    Ok(())
}

async fn write(to: &WatchedFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(to.get_ref(), bytes) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => to.writable().await?.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies what is typed to a terminal.
pub(crate) async fn terminal_input(from: WatchedFd, master: Rc<WatchedFd>) {
    let mut buffer = [0; 512];
    loop {
        match rustix::io::read(from.get_ref(), &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut bytes = &buffer[..count];
                while !bytes.is_empty() {
                    let Ok(written) = write(&master, bytes).await else { return };
                    bytes = &bytes[written..];
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match from.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}
