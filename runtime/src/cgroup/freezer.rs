//! Stopping and continuing all processes of a container: `freezer.state` (v1), `cgroup.freeze` (v2).

use std::time::{Duration, Instant};

use ketch_sys::cgroupfs;

use super::{Cgroup, CgroupError, Group};
use crate::plan::cgroup::CgroupMode;

/// Whether a container's processes stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// There is no freezer to ask.
    Unknown,
    Frozen,
    Thawed,
}

/// How long a v2 cgroup gets to freeze; a process in an uninterruptible sleep can't before that ends.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process, and returns once they stand still. On failure they run on.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let group = self.group("freezer").ok_or(CgroupError::NoFreezer)?;
        let result = match self.mode {
            CgroupMode::Unified => group.freeze_v2(),
            CgroupMode::Legacy | CgroupMode::Hybrid => group.freeze_v1(),
        };
        if result.is_err() {
            let _ = self.thaw();
        }
        result
    }

    /// Lets every process run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let group = self.group("freezer").ok_or(CgroupError::NoFreezer)?;
        match self.mode {
            // Without cgroup.freeze nothing was frozen.
            CgroupMode::Unified => match group.write("cgroup.freeze", "0") {
                Err(error) if error.is_absence() => Ok(()),
                other => other,
            },
            CgroupMode::Legacy | CgroupMode::Hybrid => group.write("freezer.state", "THAWED"),
        }
    }

    /// The state of this very cgroup; one that is frozen only through an ancestor counts as thawed.
    pub fn freezer_state(&self) -> Result<FreezerState, CgroupError> {
        let Some(group) = self.group("freezer") else {
            return Ok(FreezerState::Unknown);
        };
        match self.mode {
            CgroupMode::Unified => group.state_v2(),
            CgroupMode::Legacy | CgroupMode::Hybrid => group.state_v1(),
        }
    }

    /// Whether the container is paused.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(self.freezer_state()? == FreezerState::Frozen)
    }
}

impl Group {
    /// v1 can't reliably freeze while processes keep appearing, so this asks up to a thousand times, lets everything
    /// run for a moment after every fifty, and gives a slow machine time to settle in between; the numbers are those
    /// that runc found by experiment.
    fn freeze_v1(&self) -> Result<(), CgroupError> {
        const STATE: &str = "freezer.state";
        for attempt in 1..=1000 {
            if attempt % 50 == 0 {
                self.write(STATE, "THAWED")?;
                std::thread::sleep(Duration::from_millis(10));
            }
            self.write(STATE, "FROZEN")?;
            if attempt % 25 == 0 {
                std::thread::sleep(Duration::from_micros(10));
            }
            let content = self.read(STATE)?;
            match content.trim() {
                "FROZEN" => return Ok(()),
                "FREEZING" => {}
                _ => return Err(CgroupError::Unexpected { path: self.path.join(STATE), content }),
            }
        }
        Err(CgroupError::Freeze)
    }

    /// A task in an uninterruptible sleep keeps a cgroup FREEZING; it is taken for frozen after a while, as it was asked to be.
    fn state_v1(&self) -> Result<FreezerState, CgroupError> {
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        loop {
            let Some(content) = self.read_if_present("freezer.state")? else {
                return Ok(FreezerState::Unknown);
            };
            match content.trim() {
                "THAWED" => return Ok(FreezerState::Thawed),
                "FROZEN" => {
                    let own = self.read_if_present("freezer.self_freezing")?;
                    let own = own.is_none_or(|own| own.trim() == "1");
                    return Ok(if own { FreezerState::Frozen } else { FreezerState::Thawed });
                }
                "FREEZING" if Instant::now() >= deadline => return Ok(FreezerState::Frozen),
                "FREEZING" => std::thread::sleep(Duration::from_millis(1)),
                _ => return Err(CgroupError::Unexpected { path: self.path.join("freezer.state"), content }),
            }
        }
    }

    fn freeze_v2(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1").map_err(|error| match error {
            error if error.is_absence() => CgroupError::FreezerUnsupported { source: Box::new(error) },
            error => error,
        })?;
        self.wait_frozen()
    }

    fn state_v2(&self) -> Result<FreezerState, CgroupError> {
        match self.read_if_present("cgroup.freeze")?.as_deref().map(str::trim) {
            None => Ok(FreezerState::Unknown),
            Some("0") => Ok(FreezerState::Thawed),
            Some("1") => match self.wait_frozen() {
                Ok(()) => Ok(FreezerState::Frozen),
                Err(error) if error.is_absence() => Ok(FreezerState::Unknown),
                Err(error) => Err(error),
            },
            Some(content) => {
                let content = content.to_owned();
                Err(CgroupError::Unexpected { path: self.path.join("cgroup.freeze"), content })
            }
        }
    }

    /// Waits for "frozen 1" in `cgroup.events`.
    fn wait_frozen(&self) -> Result<(), CgroupError> {
        if self.wait_event("frozen 1", FREEZE_TIMEOUT)? {
            return Ok(());
        }
        Err(CgroupError::FreezeTimeout { seconds: FREEZE_TIMEOUT.as_secs() })
    }

    /// Waits until `cgroup.events` has a line; false when the time is over first.
    pub(super) fn wait_event(&self, line: &str, timeout: Duration) -> Result<bool, CgroupError> {
        const EVENTS: &str = "cgroup.events";
        let read_failed = |source| CgroupError::Read { path: self.path.join(EVENTS), source };
        let file = cgroupfs::open_to_read(self.dir()?, EVENTS).map_err(read_failed)?;
        let deadline = Instant::now() + timeout;
        loop {
            // Reading also marks the point from which a change wakes the poll.
            if cgroupfs::read(&file).map_err(read_failed)?.lines().any(|event| event == line) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = cgroupfs::wait_for_change(&file, left)
                .map_err(|source| CgroupError::Wait { path: self.path.join(EVENTS), source })?;
            if !changed {
                return Ok(false);
            }
        }
    }
}
