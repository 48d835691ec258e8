//! A container's health.

use std::sync::{Arc, PoisonError};

use super::container::Container;
use crate::daemon::Daemon;

/// Begins to probe.
pub(super) fn begin(_daemon: &Arc<Daemon>, _container: &Arc<Container>) {}

/// Ends it.
pub(super) fn end(container: &Container) {
    let probes = container.probes.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(probes) = probes {
        probes.abort();
    }
}
