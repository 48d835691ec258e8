//! What is kept on the disk changes its data key while raft goes on: [`ClusterLog::reseal`](crate::ClusterLog::reseal).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::Blocking;
use crate::answers::Answers;
use crate::cluster_log::OpenError;
use crate::disk::Disk;
use crate::seal::Seal;
use crate::snapshot::Snapshots;

/// How often it is looked whether a snapshot is still being written that was begun with the old key.
const LOOK: Duration = Duration::from_millis(50);

/// All that is sealed by one manager's data key.
pub(crate) struct Sealed {
    pub(crate) seal: Arc<Seal>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) blocking: Blocking,
}

impl Sealed {
    /// To this key. One that was changed to before, and not to the end, must be the same.
    pub(crate) async fn change_to(&self, next: &[u8; 32], answers: &Answers) -> Result<(), OpenError> {
        if !self.seal.has_before() {
            self.seal.rotate(next);
        }
        // First what is always written: it waits for whoever has sealed by the old key and has not committed yet, also where the log has
        // no entry so far.
        let disk = Arc::clone(&self.disk);
        self.blocking.run(move || Ok(disk.reseal_state())).await??;
        let mut from = Some(0);
        while let Some(index) = from {
            let disk = Arc::clone(&self.disk);
            from = self.blocking.run(move || Ok(disk.reseal_entries(index))).await??;
        }
        while !self.seal.is_written_out() {
            // One that comes from a manager which has ended in the middle of it would be waited for for ever.
            answers.give_up_abandoned().await?;
            sleep(LOOK).await;
        }
        let snapshots = Arc::clone(&self.snapshots);
        self.blocking.run(move || Ok(snapshots.reseal())).await??;
        self.seal.forget();
        Ok(())
    }
}
