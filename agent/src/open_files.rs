//! How many files the daemon may have open: it has several for each container, so that the bound of before, often 1024, would be
//! one of containers. It is raised as far as it goes; containers have what the daemon was started with. Called by `life`, `engine`.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The bounds of before, the soft and the hard one.
static BEFORE: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the daemon's own bound to what it may have at most.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        let number = |bound: Option<u64>| bound.unwrap_or(u64::MAX);
        let _once = BEFORE.set((number(limit.current), number(limit.maximum)));
    }
}

/// What a container gets that asks for nothing else, where it is not the daemon's own.
pub(crate) fn before() -> Option<(u64, u64)> {
    BEFORE.get().copied()
}
