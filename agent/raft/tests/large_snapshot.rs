//! A large snapshot joins a new manager, on real files: what both managers need of memory for it beyond their stores is bounded,
//! whatever its size. `KETCH_SNAPSHOT_MIB` is the size (64; `make soak`: 1024).
//!
//! A process of its own, since it asks the kernel for the peak of its memory.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ketch_cluster::id::{ConfigId, NodeId};
use ketch_cluster::objects::{Config, ConfigSpec, Meta};
use ketch_cluster::store::{Object, StoreAction};
use ketch_raft::{
    Blocking, Call, ClusterLog, DataKeys, Folder, Peer, Retention, Settings, Start, Timing, Transport,
    TransportError, World,
};
use redb::backends::FileBackend;

const LONG: Duration = Duration::from_secs(1200);
/// Of one config; as JSON a byte of it is four.
const DATA: usize = 512 << 10;
/// Frames, the database's cache, one transaction: what does not grow with the snapshot.
const BOUND_MIB: u64 = 96;

#[derive(Default)]
struct Hub {
    logs: Mutex<BTreeMap<u64, Arc<ClusterLog>>>,
    longest: AtomicUsize,
}

struct Wire(Arc<Hub>);

impl Transport for Wire {
    fn call(&self, to: &Peer, call: Call) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (hub, to) = (Arc::clone(&self.0), to.raft_id);
        async move {
            hub.longest.fetch_max(call.request.len(), Ordering::Relaxed);
            let log = hub.logs.lock().unwrap().get(&to).cloned();
            let log = log.ok_or_else(|| TransportError::Unreachable("off".to_owned()))?;
            let answer = log.answer(call.kind, &call.request).await;
            answer.map_err(|error| TransportError::Refused(error.to_string()))
        }
        .boxed()
    }
}

/// A folder that is gone with the test.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn peer(raft_id: u64) -> Peer {
    Peer { raft_id, node: NodeId::of(u128::from(raft_id)), address: format!("10.0.0.{raft_id}:2377") }
}

async fn manager(hub: &Arc<Hub>, id: u64, path: &Path) -> Arc<ClusterLog> {
    let path = path.join(id.to_string());
    fs::DirBuilder::new().recursive(true).create(&path).unwrap();
    let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path.join("log"));
    let settings = Settings {
        me: peer(id),
        timing: Timing { tick: Duration::from_millis(100), heartbeat_ticks: 3, election_ticks: 30 },
        // Only when the test asks for one.
        retention: Retention { snapshot_every: 1_000_000, keep: 0 },
        blocking: Blocking::Threads,
        seed: id,
        start: Start::Resume,
    };
    let drawn = AtomicU64::new(id << 32);
    let world = World {
        log: FileBackend::new(file.unwrap()).unwrap(),
        snapshots: Arc::new(Folder::new(path)),
        transport: Arc::new(Wire(Arc::clone(hub))),
        // Never the same twice, which is all that a test's nonces must be.
        entropy: Arc::new(move |bytes: &mut [u8]| {
            for part in bytes.chunks_mut(8) {
                let next = drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes();
                part.copy_from_slice(&next[..part.len()]);
            }
        }),
        data_keys: DataKeys::one([7; 32]),
    };
    let log = Arc::new(ClusterLog::open(settings, world).await.unwrap());
    hub.logs.lock().unwrap().insert(id, Arc::clone(&log));
    log
}

fn config(number: u64) -> Vec<StoreAction> {
    let byte = u8::try_from(100 + number % 100).unwrap();
    let spec =
        ConfigSpec { name: format!("config-{number}"), data: vec![byte; DATA], ..ConfigSpec::default() };
    vec![StoreAction::Create(Object::from(Config {
        id: ConfigId::of(u128::from(number)),
        meta: Meta::default(),
        spec,
        superseded: false,
    }))]
}

/// Of this process, in MiB: `VmRSS` or `VmHWM` (proc(5)).
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not in {LONG:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[ignore = "takes more than a minute in a debug build: make soak runs it, with 1 GiB"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_gets_a_large_snapshot_in_frames() {
    let wanted = std::env::var("KETCH_SNAPSHOT_MIB").map_or(64, |size| size.parse::<u64>().unwrap());
    let place = Place(std::env::temp_dir().join(format!("ketch-large-snapshot-{}", std::process::id())));
    let hub = Arc::new(Hub::default());
    let first = manager(&hub, 1, &place.0).await;
    first.found(LONG).await.unwrap();
    let count = (wanted << 20).div_ceil(4 * DATA as u64);
    for number in 0..count {
        first.propose(config(number), LONG).await.unwrap();
    }
    first.snapshot_now().await.unwrap();
    until("the log is cut", || first.status().purged.is_some_and(|purged| purged > count)).await;
    let size = fs::metadata(place.0.join("1/snapshot")).unwrap().len() >> 20;
    assert!(size >= wanted, "{size} MiB");

    let second = manager(&hub, 2, &place.0).await;
    hub.longest.store(0, Ordering::Relaxed);
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began) = (memory("VmRSS"), Instant::now());
    first.add_learner(peer(2), LONG).await.unwrap();
    until("the new manager has it", || second.status().applied >= first.status().applied).await;

    let (peak, store) = (memory("VmHWM"), (count * DATA as u64) >> 20);
    let longest = hub.longest.load(Ordering::Relaxed);
    println!(
        "a snapshot of {size} MiB in {:.1} s: {} MiB of memory for a store of {store} MiB, messages of at most {longest} bytes",
        began.elapsed().as_secs_f64(),
        peak.saturating_sub(before),
    );
    assert_eq!(second.read(|store| store.configs().count() as u64), count);
    assert_eq!(
        second.read(|store| store.config(ConfigId::of(1)).cloned()),
        first.read(|store| store.config(ConfigId::of(1)).cloned())
    );
    // A frame is closed when it is long enough; the last object in it may be this long.
    assert!(longest < 4 << 20, "{longest} bytes");
    assert!(
        peak < before + store + BOUND_MIB,
        "{before} MiB before, {peak} MiB at most, {store} MiB of objects"
    );
    first.shutdown().await;
    second.shutdown().await;
}
