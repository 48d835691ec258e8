//! The client's ends of a container's streams: fifos that are written to, or read by a thread up to their end.
//!
//! Called by the `shim_` tests, as containerd's client and CRI do it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::wait::wait_until;

/// A fifo that a thread reads up to its end: until every writer that has been there is gone.
#[derive(Debug)]
pub struct Stream {
    pub path: PathBuf,
    text: Arc<Mutex<Vec<u8>>>,
    has_ended: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Makes a fifo.
///
/// # Panics
/// When it cannot be made.
pub fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap_or_else(|e| panic!("mkfifo {}: {e}", path.display()));
}

/// Opens a fifo for writing; it must have a reader already, or get one by the deadline.
///
/// # Panics
/// When nobody reads it in time.
#[must_use]
pub fn open_writer(path: &Path) -> File {
    wait_until(&format!("a reader of {}", path.display()), || {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file =
            OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|e| e.to_string())?;
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(|e| e.to_string())?;
        Ok(file)
    })
}

impl Stream {
    /// Makes the fifo and starts to read it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        make_fifo(path);
        Self::open(path)
    }

    /// Starts to read a fifo that is there.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        Self::reading(path, false)
    }

    /// Likewise, and holds it for writing too: it never ends, whoever comes and goes.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open_held(path: &Path) -> Self {
        Self::reading(path, true)
    }

    fn reading(path: &Path, is_held: bool) -> Self {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let mut file =
            OpenOptions::new().read(true).write(is_held).custom_flags(flags).open(path).expect("open a fifo");
        let mut stream = Self {
            path: path.to_owned(),
            text: Arc::default(),
            has_ended: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (text, has_ended, stop) =
            (Arc::clone(&stream.text), Arc::clone(&stream.has_ended), Arc::clone(&stream.stop));
        stream.thread = Some(std::thread::spawn(move || {
            let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let mut buffer = vec![0; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(&file, PollFlags::IN)];
                if poll(&mut fds, Some(&tick)).unwrap_or(0) == 0 {
                    continue;
                }
                // Before the first writer a poll waits; at the end it says HUP.
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => text.lock().expect("no panic holds it").extend_from_slice(&buffer[..count]),
                    Err(_) => {}
                }
            }
            has_ended.store(true, Ordering::Release);
        }));
        stream
    }

    /// What has come so far.
    ///
    /// # Panics
    /// When a lock is poisoned.
    #[must_use]
    pub fn now(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no panic holds it")).into_owned()
    }

    /// Whether every writer is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Waits for the end, and gives everything.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    #[must_use]
    pub fn finish(&self) -> String {
        wait_until(&format!("the end of {}", self.path.display()), || {
            if self.has_ended() { Ok(self.now()) } else { Err(self.now()) }
        })
    }

    /// Waits until `text` has come.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} in {}", self.path.display()), || {
            let seen = self.now();
            if seen.contains(text) { Ok(()) } else { Err(seen) }
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever opens the fifo next is to be its only reader.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
