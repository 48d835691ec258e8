//! OOM kills: told by the kernel through an eventfd for each memory cgroup (v1), or through inotify on memory.events (v2).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ketch_shim_api::events::TaskOom;
use ketch_shim_sys::WatchedFd;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::task::AbortHandle;

use crate::cgroup::Cgroup;
use crate::error::ShimError;
use crate::events::Events;
use crate::stdio;

/// How long after the kernel has told of it a kill may be counted.
const AFTER: Duration = Duration::from_millis(500);

/// The watches of all containers.
#[derive(Debug)]
pub(crate) struct OomWatch {
    events: Rc<Events>,
    watches: RefCell<BTreeMap<String, Watch>>,
}

/// Ends with this.
#[derive(Debug)]
struct Watch {
    task: AbortHandle,
    count: Rc<Count>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The kernel's count of a container's OOM kills, and how much of it has been told.
#[derive(Debug)]
struct Count {
    id: String,
    events: Rc<Events>,
    file: CountFile,
    told: Cell<u64>,
}

#[derive(Debug)]
enum CountFile {
    /// v1's `memory.oom_control`, open: it can't be read any more once the cgroup has gone.
    Control(OwnedFd),
    /// v2's `memory.events`.
    Events(PathBuf),
}

impl OomWatch {
    pub(crate) fn new(events: Rc<Events>) -> Self {
        Self { events, watches: RefCell::default() }
    }

    /// Watches a container's memory cgroup; a container without one has no OOM kills of its own.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn add(&self, id: &str, cgroup: &Cgroup) -> Result<(), ShimError> {
        let count = |file, told| {
            let (id, events) = (id.to_owned(), Rc::clone(&self.events));
            Rc::new(Count { id, events, file, told: Cell::new(told) })
        };
        let (count, task) = match cgroup {
            Cgroup::Unified(folder) => {
                let file = folder.join("memory.events");
                if !file.exists() {
                    return Ok(());
                }
                let notify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
                    .map_err(ShimError::system("watch memory.events"))?;
                inotify::add_watch(&notify, &file, WatchFlags::MODIFY)
                    .map_err(|error| ShimError::file("watch", &file)(error.into()))?;
                let notify = WatchedFd::new(notify).map_err(ShimError::system("watch memory.events"))?;
                let told = kills(&std::fs::read_to_string(&file).map_err(ShimError::file("read", &file))?);
                let count = count(CountFile::Events(file), told);
                let task = unified(notify, Rc::clone(&count));
                (count, tokio::task::spawn_local(async move { drop(task.await) }))
            }
            Cgroup::Legacy(folders) => {
                let Some(folder) = folders.get("memory") else { return Ok(()) };
                let (event, control) = ask_for_event(folder)?;
                let event = WatchedFd::new(event).map_err(ShimError::system("watch memory.oom_control"))?;
                let count = count(CountFile::Control(control), 0);
                let task = legacy(event, Rc::clone(&count));
                (count, tokio::task::spawn_local(async move { drop(task.await) }))
            }
        };
        self.watches.borrow_mut().insert(id.to_owned(), Watch { task: task.abort_handle(), count });
        Ok(())
    }

    /// Tells of a kill that has been counted and not yet told, before the end of a process is: whoever hears of that end
    /// deletes the container, and its watch with it.
    pub(crate) fn settle(&self, id: &str) {
        let count = self.watches.borrow().get(id).map(|watch| Rc::clone(&watch.count));
        // What can't be read has gone with its cgroup.
        let _told = count.map(|count| count.read().map(|text| count.tell_of(kills(&text))));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.watches.borrow_mut().remove(id);
    }
}

impl Count {
    fn read(&self) -> io::Result<String> {
        match &self.file {
            CountFile::Control(control) => {
                let mut text = [0; 256];
                let length = rustix::io::pread(control, &mut text, 0)?;
                Ok(String::from_utf8_lossy(&text[..length]).into_owned())
            }
            CountFile::Events(file) => std::fs::read_to_string(file),
        }
    }

    /// Whether there is more than was told; then it is told.
    fn tell_of(&self, kills: u64) -> bool {
        let more = kills > self.told.replace(kills);
        if more {
            self.tell();
        }
        more
    }

    fn tell(&self) {
        self.events.publish("/tasks/oom", &TaskOom { container_id: self.id.clone() });
    }
}

/// v1: the kernel writes to the eventfd at every OOM, and once more when the cgroup goes.
fn ask_for_event(folder: &Path) -> Result<(OwnedFd, OwnedFd), ShimError> {
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
        .map_err(ShimError::system("watch memory.oom_control"))?;
    let control = stdio::open(&folder.join("memory.oom_control"), OFlags::RDONLY)?;
    let file = folder.join("cgroup.event_control");
    std::fs::write(&file, format!("{} {}", event.as_raw_fd(), control.as_raw_fd()))
        .map_err(ShimError::file("write", &file))?;
    Ok((event, control))
}

async fn legacy(event: WatchedFd, count: Rc<Count>) -> io::Result<()> {
    loop {
        match rustix::io::read(event.get_ref(), &mut [0; 8]) {
            Ok(_) => {
                // The kernel tells of every try to find memory, and before it kills: what counts is the kill.
                let until = Instant::now() + AFTER;
                loop {
                    // The cgroup itself has gone when its file can't be read any more.
                    let text = count.read()?;
                    if text.contains("oom_kill_disable 1") || !text.contains("oom_kill ") {
                        count.tell();
                        break;
                    }
                    if count.tell_of(kills(&text)) || Instant::now() >= until {
                        break;
                    }
                    tokio::time::sleep(AFTER / 50).await;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => event.readable().await?.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn unified(notify: WatchedFd, count: Rc<Count>) -> io::Result<()> {
    loop {
        let mut buffer = [MaybeUninit::uninit(); 256];
        match Reader::new(notify.get_ref(), &mut buffer).next() {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                notify.readable().await?.clear_ready();
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        // Not `oom`: that counts in every cgroup that shares a limit, whoever was killed. Gone with the container.
        count.tell_of(kills(&count.read()?));
    }
}

fn kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_nothing_else() {
        assert_eq!(kills("low 0\nhigh 0\nmax 8\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(kills("oom 3\n"), 0);
    }
}
