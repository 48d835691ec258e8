//! The daemon's orderly end without live restore: every container is stopped as `docker stop` does it, all at once. Called by
//! [`Daemon::end`].

use std::sync::Arc;
use std::time::Duration;

use super::container::Container;
use super::signal::{self, Stop};
use crate::daemon::Daemon;

/// What a container's own patience gets more, as with dockerd.
const GRACE: i64 = 5;
/// How long a container that removes itself may take to do so.
const REMOVED: Duration = Duration::from_secs(10);

/// How long all of it may take: the daemon's own patience, or that of its most patient container; `None`: for ever.
pub(crate) fn patience(daemon: &Daemon) -> Option<Duration> {
    let containers = daemon.engine.all().into_iter().filter(|container| container.is_running());
    let own = containers.map(|container| {
        let seconds = container.read(|record| record.config.stop_timeout).unwrap_or(signal::PATIENCE);
        if seconds < 0 { -1 } else { seconds.saturating_add(GRACE) }
    });
    longest(daemon.config.live().shutdown_timeout, own)
}

fn longest(daemon: i64, containers: impl Iterator<Item = i64>) -> Option<Duration> {
    let mut longest = u64::try_from(daemon).ok()?;
    for seconds in containers {
        longest = longest.max(u64::try_from(seconds).ok()?);
    }
    Some(Duration::from_secs(longest))
}

/// Stops them.
pub(crate) async fn all(daemon: &Arc<Daemon>) {
    let stops = daemon.engine.all().into_iter().map(|container| {
        let daemon = Arc::clone(daemon);
        tokio::spawn(async move { one(&daemon, &container).await })
    });
    for stop in stops.collect::<Vec<_>>() {
        let _told = stop.await;
    }
}

async fn one(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    // A start that is under way comes to its end first; a takeover may not.
    if container.is_known() {
        drop(container.changing.lock().await);
    }
    if !container.is_running() {
        return;
    }
    if let Err(error) = signal::end(daemon, container, Stop::default()).await {
        tracing::warn!("stopping {}: {error}", container.id);
        return;
    }
    if container.read(|record| record.host_config.auto_remove) {
        let mut life = container.life.subscribe();
        let gone = async { life.wait_for(|life| life.removed).await.is_ok() };
        let _late = tokio::time::timeout(REMOVED, gone).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_patient_decides() {
        let of =
            |daemon, containers: &[i64]| longest(daemon, containers.iter().copied()).map(|it| it.as_secs());
        assert_eq!(of(15, &[]), Some(15));
        assert_eq!(of(15, &[5, 65]), Some(65));
        assert_eq!((of(-1, &[5]), of(15, &[-1])), (None, None));
    }
}
