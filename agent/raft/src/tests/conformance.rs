//! openraft's own suite for storages.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::entropy;
use crate::consensus::Types;
use crate::disk::Disk;
use crate::log_store::LogStore;
use crate::machine::{Machine, MachineParts, Replica};
use crate::memory::{MemoryDisk, MemoryFiles};
use crate::seal::Seal;
use crate::snapshot::Snapshots;
use crate::{Blocking, DataKeys};

struct Builder;

impl StoreBuilder<Types, LogStore, Machine> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Types>> {
        let seal = Arc::new(Seal::new(&DataKeys::one([3; 32]), entropy(1)));
        let disk = Arc::new(Disk::open(MemoryDisk::default().handle(), Arc::clone(&seal)).unwrap());
        let (snapshots, _) = Snapshots::open(Arc::new(MemoryFiles::default()), seal).unwrap();
        let parts = MachineParts {
            replica: Arc::new(Replica::new(Default::default(), 1)),
            snapshots: Arc::new(snapshots),
            blocking: Blocking::Inline,
        };
        let machine = Machine::new(parts, None).unwrap();
        Ok(((), LogStore { disk, blocking: Blocking::Inline }, machine))
    }
}

#[tokio::test]
async fn the_storage_passes_openrafts_suite() {
    Suite::test_all(Builder).await.unwrap();
}
