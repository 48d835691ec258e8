//! The daemon: its settings, and one of each module.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ketch_node::node::Node;
use tokio::sync::watch;

use crate::api::elsewhere::cut::CutExecs;
use crate::config::Config;
use crate::engine::host::Host;
use crate::engine::security::DefaultSeccomp;
use crate::engine::{self, Engine};
use crate::error::{Error, Kind, Result};
use crate::events::Events;
use crate::exec_root;
use crate::image::Images;
use crate::image::registry::proxy::Proxies;
use crate::metrics::Counted;
use crate::network::Networks;
use crate::network::settings::Settings;
use crate::node;
use crate::node::attaching::Attaching;
use crate::remap::{self, Ids};
use crate::shim::Launch;
use crate::store::Store;
use crate::volume::Volumes;

/// Everything that a route may call.
#[derive(Debug)]
pub struct Daemon {
    /// As it was started.
    pub config: Config,
    /// Its own: the same after every start.
    pub id: String,
    /// Whose ids containers' users are.
    pub ids: Ids,
    /// True when the daemon is about to end: nothing is started again then, and streams without an end have one.
    pub ending: watch::Sender<bool>,
    /// What happens.
    pub events: Arc<Events>,
    /// Images and containers' roots.
    pub images: Images,
    /// Networks, and what containers have of them.
    pub networks: Networks,
    /// Volumes.
    pub volumes: Volumes,
    /// What is remembered.
    pub store: Store,
    /// Containers.
    pub engine: Engine,
    /// What was done, for metrics.
    pub counted: Counted,
    /// Containers that come into networks of the cluster.
    pub(crate) attaching: Attaching,
    /// Of other nodes' execs, for their clients here.
    pub(crate) cut_execs: CutExecs,
    /// What this machine is in a cluster; there from [`Daemon::begin`] on.
    node: OnceLock<Arc<Node>>,
    /// Whether it takes up what it was: until then it looks as if it were of no cluster.
    begun: watch::Sender<bool>,
    /// Kept open: the exec root is this daemon's.
    _exec_root: File,
}

impl Daemon {
    /// Opens the state; nothing is served yet.
    ///
    /// # Errors
    /// A folder that can't be made, or state that another daemon has.
    pub fn open(mut config: Config, ids: Ids) -> Result<Arc<Self>> {
        for folder in [&config.data_root, &config.exec_root] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o710)
                .create(folder)
                .map_err(|error| Error::internal(format_args!("making {}", folder.display()), &error))?;
        }
        close_to_others(&config.data_root).map_err(|error| {
            Error::internal(format_args!("changing the mode of {}", config.data_root.display()), &error)
        })?;
        if ids.are_mapped() {
            config.data_root = remap::open_to_root(&config.data_root, &config.exec_root, &ids)?;
        }
        let store = Store::open(&config.data_root.join("ketchd.redb"))?;
        let id = own_id(&config.data_root)?;
        let exec_root = exec_root::claim(&config.exec_root, &id)?;
        let ending = watch::Sender::new(false);
        let events = Arc::new(Events::default());
        let images = Images::open_for(&config.data_root, &ids, store.clone(), Arc::clone(&events))?;
        images.set_registries(registries(&config));
        images.set_bounds(bounds(&config));
        let networks = Networks::open(Settings::of(&config)?, store.clone(), Arc::clone(&events))?;
        let volumes = Volumes::open(&config.data_root, store.clone(), Arc::clone(&events))?.for_users(&ids);
        let launch = Launch {
            shim: config.shim.clone(),
            runtimes: std::iter::once(&config.runtime)
                .chain(config.live().runtimes.values())
                .cloned()
                .collect(),
            exec_root: config.exec_root.clone(),
            events: config.exec_root.join("events.sock"),
        };
        let seccomp = DefaultSeccomp::read(&config.containers.seccomp_profile)?;
        let engine = Engine::new(launch, Host::look(), seccomp);
        Ok(Arc::new(Self {
            counted: Counted::default(),
            attaching: Attaching::default(),
            cut_execs: CutExecs::default(),
            node: OnceLock::new(),
            begun: watch::Sender::default(),
            config,
            id,
            ids,
            ending,
            events,
            images,
            networks,
            volumes,
            store,
            engine,
            _exec_root: exec_root,
        }))
    }

    /// Takes up what an earlier daemon has left, and begins to listen to shims. Called once, before anything is served.
    ///
    /// # Errors
    /// The store, or the shims' socket.
    pub async fn begin(self: &Arc<Self>) -> Result<()> {
        engine::takeover::listen(self)?;
        engine::takeover::take_over(self).await?;
        let node = self.node.get_or_init(|| node::of(self));
        node::begin(self, node).await;
        let _before = self.begun.send_replace(true);
        Ok(())
    }

    /// What this machine is in a cluster.
    ///
    /// # Errors
    /// The daemon has not begun.
    pub fn node(&self) -> Result<&Arc<Node>> {
        self.node.get().ok_or_else(|| Error::new(Kind::Unavailable, "the daemon has not begun yet"))
    }

    /// Returns once [`Self::node`] knows whether it is of a cluster, or the daemon is about to end: what is started with the daemon may
    /// ask the cluster for its networks.
    pub(crate) async fn begun(&self) {
        let (mut begun, mut ending) = (self.begun.subscribe(), self.ending.subscribe());
        // The senders are here as well: they can't end first.
        tokio::select! {
            () = async { drop(begun.wait_for(|begun| *begun).await) } => {}
            () = async { drop(ending.wait_for(|ending| *ending).await) } => {}
        }
    }

    /// Ends what must not go on without the daemon. Containers do, by design, and the next start finds them, unless live restore
    /// is off: then they are stopped, within the time that the most patient of them has. False when that was over first.
    pub async fn end(self: &Arc<Self>) -> bool {
        let _before = self.ending.send_replace(true);
        if let Some(node) = self.node.get() {
            node.shutdown().await;
        }
        if self.config.live().live_restore {
            return true;
        }
        let stopped = engine::halt::all(self);
        match engine::halt::patience(self) {
            Some(limit) => tokio::time::timeout(limit, stopped).await.is_ok(),
            None => {
                stopped.await;
                true
            }
        }
    }
}

/// Only root and its group enter the folder, however it was made: containers' setuid files and volumes are below it
/// (CVE-2021-41091).
fn close_to_others(folder: &Path) -> std::io::Result<()> {
    let mode = std::fs::metadata(folder)?.permissions().mode();
    std::fs::set_permissions(folder, Permissions::from_mode(mode & 0o7770))
}

/// How the settings have registries reached.
pub(crate) fn registries(config: &Config) -> crate::image::registry::Settings {
    let live = config.live();
    let proxies = config.proxies.with_environment();
    crate::image::registry::Settings {
        insecure: live.insecure_registries.clone(),
        mirrors: live.registry_mirrors.clone(),
        certificates: None,
        proxies: Arc::new(Proxies::new(&proxies.http, &proxies.https, &proxies.none)),
        downloads: live.max_concurrent_downloads,
        uploads: live.max_concurrent_uploads,
        attempts: live.max_download_attempts,
    }
}

/// What the settings let layers have.
pub(crate) fn bounds(config: &Config) -> crate::image::Bounds {
    let live = config.live();
    crate::image::Bounds { bytes: live.max_layer_size, files: live.max_layer_files }
}

/// The id in the data root, or a new one.
fn own_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|error| Error::internal("getting a new id", &error))?;
    let id = id.trim().to_owned();
    // In one step: half an id would be one for ever.
    let staged = data_root.join("engine-id.new");
    std::fs::write(&staged, &id)
        .and_then(|()| std::fs::rename(&staged, &path))
        .map_err(|error| Error::internal(format_args!("writing {}", path.display()), &error))?;
    Ok(id)
}
