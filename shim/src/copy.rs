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
            Err(Errno::AGAIN) if available(from.get_ref()) > 0 => room(to).await?,
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

/// Waits until a pipe has room. What came to the other one just after the look at it seems to be a want of room here; the kernel
/// tells of room where there was none, and of no other.
async fn room(to: &WatchedFd) -> io::Result<()> {
    let mut poll = [PollFd::new(to.get_ref(), PollFlags::OUT)];
    let asked = rustix::event::poll(&mut poll, Some(&Timespec::default()));
    if asked.is_err() || !poll[0].revents().contains(PollFlags::OUT) {
        to.writable().await?.clear_ready();
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn room_that_the_kernel_has_told_of_before_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (from, to) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
            let to = WatchedFd::new(to).unwrap();
            // Its one word is taken.
            to.writable().await.unwrap().clear_ready();
            let waited = tokio::time::timeout(Duration::from_secs(5), room(&to)).await;
            waited.expect("there is room").unwrap();
            while rustix::io::write(to.get_ref(), &[0; 4096]).is_ok() {}
            assert!(tokio::time::timeout(Duration::from_millis(50), room(&to)).await.is_err());
            let emptied =
                async { while rustix::io::read(&from, &mut [0; 4096]).is_ok_and(|count| count > 0) {} };
            let (there, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), room(&to)), emptied);
            there.expect("there is room again").unwrap();
        });
    }
}
