//! The surroundings of a node of the bench: the system's clock, files in a folder of its own, and sockets of that machine in
//! place of TCP and TLS. Who calls says so in a greeting, behind its length, and is believed: what TLS costs is not measured here.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_ca::folder::Folder as Keys;
use ketch_ca::identity::Identity;
use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::node::{CaKeyId, NodeRole};
use ketch_cluster::time::Timestamp;
use ketch_node::world::{
    Accepted, Caller, Credentials, DialError, Disk, Listener, Storage, Stream, Terms, World,
};
use ketch_raft::{Folder as Snapshots, SnapshotFiles};
use redb::backends::FileBackend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A caller that shows nothing.
const STRANGER: &str = "-";

/// One node's.
pub(crate) struct BenchWorld {
    /// Of all nodes: where they listen.
    sockets: PathBuf,
    folder: Arc<Files>,
    identity: Mutex<Option<Identity>>,
    drawn: AtomicU64,
    seed: u64,
}

impl fmt::Debug for BenchWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BenchWorld")
    }
}

impl BenchWorld {
    /// A node `name` of the bench in that folder; `seed` is of its draws.
    pub(crate) fn new(root: &Path, name: &str, seed: u64) -> Self {
        Self {
            sockets: root.join("sockets"),
            folder: Arc::new(Files(root.join(name))),
            identity: Mutex::default(),
            drawn: AtomicU64::new(0),
            seed,
        }
    }

    /// A worker that its cluster knows already.
    pub(crate) fn of_worker(root: &Path, node: NodeId, cluster: ClusterId) -> Self {
        let (low, _) = (node.bits() & u128::from(u64::MAX), ());
        let world = Self::new(root, "unused", u64::try_from(low).unwrap_or(0));
        let now = world.now();
        let identity = Identity {
            node,
            role: NodeRole::Worker,
            cluster,
            issuer: CaKeyId([0; 20]),
            begins: now,
            expires: Timestamp(u64::MAX),
        };
        *world.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        world
    }

    fn identity(&self) -> Option<Identity> {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World for BenchWorld {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn bits(&self) -> u128 {
        let half = || {
            let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
            crate::random::Random::new(self.seed ^ drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)).bits()
        };
        u128::from(half()) << 64 | u128::from(half())
    }

    fn dial(&self, address: &str, terms: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>> {
        let (path, address) = (socket_of(&self.sockets, address), address.to_owned());
        let shown = self.identity().filter(|_| matches!(terms, Terms::Member(_)));
        async move {
            let unreachable = |error: io::Error| DialError::Unreachable {
                address: address.clone(),
                reason: error.to_string(),
            };
            let mut stream = UnixStream::connect(path).await.map_err(unreachable)?;
            stream.write_all(&greeting(shown.as_ref())).await.map_err(unreachable)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (path, address, folder) =
            (socket_of(&self.sockets, address), address.to_owned(), self.sockets.clone());
        async move {
            fs::create_dir_all(folder)?;
            drop(fs::remove_file(&path));
            let listener = UnixListener::bind(path)?;
            Ok(Box::new(Listening { listener, address }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn adopt(&self, credentials: Credentials) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(credentials.identity);
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.folder) as Arc<dyn Disk>
    }
}

fn socket_of(sockets: &Path, address: &str) -> PathBuf {
    sockets.join(address.rsplit_once(':').map_or(address, |(host, _)| host))
}

fn greeting(shown: Option<&Identity>) -> Vec<u8> {
    let words = shown.map_or_else(|| STRANGER.to_owned(), words_of);
    let length = u8::try_from(words.len()).unwrap_or(u8::MAX);
    [&[length][..], words.as_bytes()].concat()
}

fn words_of(shown: &Identity) -> String {
    let Identity { node, role, cluster, issuer, begins, expires } = shown;
    let role = if *role == NodeRole::Manager { "manager" } else { "worker" };
    let issuer: Vec<String> = issuer.0.iter().map(u8::to_string).collect();
    format!("{node} {role} {cluster} {} {} {}", issuer.join("."), begins.0, expires.0)
}

fn greeted(words: &str) -> Option<Caller> {
    if words == STRANGER {
        return Some(Caller::Stranger);
    }
    let [node, role, cluster, issuer, begins, expires] =
        words.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let issuer: Option<Vec<u8>> = issuer.split('.').map(|byte| byte.parse().ok()).collect();
    Some(Caller::Member(Identity {
        node: node.parse().ok()?,
        role: if role == "manager" { NodeRole::Manager } else { NodeRole::Worker },
        cluster: cluster.parse().ok()?,
        issuer: CaKeyId(issuer?.try_into().ok()?),
        begins: Timestamp(begins.parse().ok()?),
        expires: Timestamp(expires.parse().ok()?),
    }))
}

struct Listening {
    listener: UnixListener,
    address: String,
}

impl Listener for Listening {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            loop {
                let (mut stream, _) = self.listener.accept().await?;
                let Ok(length) = stream.read_u8().await else { continue };
                let mut words = vec![0; length.into()];
                if stream.read_exact(&mut words).await.is_err() {
                    continue;
                }
                if let Some(caller) = std::str::from_utf8(&words).ok().and_then(greeted) {
                    return Ok(Accepted {
                        stream: Box::new(stream),
                        caller,
                        chain: Vec::new(),
                        address: "127.0.0.1".to_owned(),
                    });
                }
            }
        }
        .boxed()
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// A node's files.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn place(&self, name: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.0)?;
        Ok(self.0.join(name))
    }
}

impl Disk for Files {
    fn database(&self, name: &str) -> io::Result<Storage> {
        let path = self.place(name)?;
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Storage(Box::new(FileBackend::new(file).map_err(io::Error::other)?)))
    }

    fn snapshots(&self) -> io::Result<Arc<dyn SnapshotFiles>> {
        let path = self.place("snapshots")?;
        fs::create_dir_all(&path)?;
        Ok(Arc::new(Snapshots::new(path)))
    }

    fn keys(&self) -> io::Result<Keys> {
        Keys::at(&self.place("certificates")?).map_err(io::Error::other)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.place(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.place(name)?, bytes)
    }

    fn forget_log(&self) -> io::Result<()> {
        drop(fs::remove_file(self.place("raft")?));
        drop(fs::remove_dir_all(self.place("snapshots")?));
        Ok(())
    }

    fn wipe(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
