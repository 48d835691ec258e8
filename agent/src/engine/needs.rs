//! What the engine has of the daemon's other modules, in its own terms: images' roots, networks, volumes, runtimes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::container::Config;
use ketch_shim_api::types::Mount;

use super::container::{Container, Record};
use super::mounts::Planned;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// What every daemon has without being told.
pub const RUNTIME: &str = "ketch";
/// The cgroup below which containers are.
const CGROUP_PARENT: &str = "/docker";

/// An image as a container needs it.
#[derive(Debug)]
pub struct Base {
    /// Its digest.
    pub id: String,
    /// Its part of the settings.
    pub config: Config,
}

/// The bytes of all files below a folder; nothing there is followed.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    });
    sizes.sum()
}

impl Daemon {
    /// The binary of a runtime's name; empty for the default.
    ///
    /// # Errors
    /// There is none of that name: dockerd's text.
    pub fn runtime_binary(&self, name: &str) -> Result<PathBuf> {
        let live = self.config.live();
        let name = if name.is_empty() { live.default_runtime.as_str() } else { name };
        match (live.runtimes.get(name), name) {
            (Some(path), _) => Ok(path.clone()),
            (None, RUNTIME | "runc" | "io.containerd.runc.v2") => Ok(self.config.runtime.clone()),
            (None, _) => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
        }
    }

    /// The cgroup below which containers are that ask for no other.
    #[must_use]
    pub fn cgroup_parent(&self) -> &str {
        match self.config.containers.cgroup_parent.as_str() {
            "" => CGROUP_PARENT,
            parent => parent,
        }
    }

    /// Whether a container's first process is the daemon's init. A process namespace that is not its own has one already.
    #[must_use]
    pub(super) fn has_init(&self, record: &Record) -> bool {
        record.host_config.pid_mode.is_empty()
            && record.host_config.init.unwrap_or(self.config.containers.init)
    }

    /// Whether the daemon is about to end: nothing is started again then.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// The image of a name, and a writable layer of it for a container; an empty name is no image, for builds.
    ///
    /// # Errors
    /// No such image; the disk.
    pub async fn prepare_root(self: &Arc<Self>, name: &str, id: &str) -> Result<Base> {
        let (daemon, name, id) = (Arc::clone(self), name.to_owned(), id.to_owned());
        blocking(move || {
            if name.is_empty() {
                let _rootfs = daemon.images.prepare_empty(&id)?;
                return Ok(Base { id: String::new(), config: Config::default() });
            }
            let image = daemon.images.find(&name)?;
            let _rootfs = daemon.images.prepare(&image, &id)?;
            let config = serde_json::to_value(image.config()).and_then(serde_json::from_value);
            let config = config.map_err(|error| Error::internal("reading the image's settings", &error))?;
            Ok(Base { id: image.id.to_string(), config })
        })
        .await
    }

    /// The settings of an image; nothing of no image, which builds begin with.
    ///
    /// # Errors
    /// No such image.
    pub fn base(&self, name: &str) -> Result<Base> {
        if name.is_empty() {
            return Ok(Base { id: String::new(), config: Config::default() });
        }
        let image = self.images.find(name)?;
        let config = serde_json::to_value(image.config()).and_then(serde_json::from_value);
        let config = config.map_err(|error| Error::internal("reading the image's settings", &error))?;
        Ok(Base { id: image.id.to_string(), config })
    }

    /// The mounts that are a container's root.
    ///
    /// # Errors
    /// It has none.
    pub(super) async fn rootfs(self: &Arc<Self>, id: &str) -> Result<Vec<Mount>> {
        let (daemon, id) = (Arc::clone(self), id.to_owned());
        blocking(move || Ok(daemon.images.rootfs(&id)?.mounts)).await
    }

    /// Removes a container's writable layer.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn release_root(self: &Arc<Self>, id: &str) -> Result<()> {
        let (daemon, id) = (Arc::clone(self), id.to_owned());
        blocking(move || daemon.images.release(&id)).await
    }

    /// The bytes that a container has written, and those with its image's.
    #[must_use]
    pub(super) fn sizes(&self, record: &Record) -> (i64, i64) {
        let upper = self.images.rootfs(&record.id).map(|rootfs| bytes_below(&rootfs.upper)).unwrap_or(0);
        let image = self.images.find(&record.image).map(|image| image.size()).unwrap_or(0);
        let shown = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        (shown(upper), shown(upper + image))
    }

    /// An image's name in a list: its id's beginning where the name has gone to another image.
    #[must_use]
    pub(super) fn shown_image(&self, name: &str, id: &str) -> String {
        match self.images.find(name) {
            Ok(image) if image.id.to_string() == id => name.to_owned(),
            _ => id.to_owned(),
        }
    }

    /// Makes the volumes of a container that is being made, and fills in their names and places.
    ///
    /// # Errors
    /// A volume's own.
    pub(super) async fn make_volumes(self: &Arc<Self>, record: &mut Record) -> Result<()> {
        let (daemon, id, mut planned) = (Arc::clone(self), record.id.clone(), record.mounts.clone());
        let driver = record.host_config.volume_driver.clone();
        record.mounts = blocking(move || {
            for one in planned.iter_mut().filter(|one| one.shown.kind == "volume") {
                if let Err(error) = daemon.make_volume(one, &id, &driver) {
                    daemon.drop_volumes(&id, &planned);
                    return Err(error);
                }
            }
            Ok(planned)
        })
        .await?;
        Ok(())
    }

    /// `driver` is that of `--volume-driver`, which counts for what is no `--mount` and not another container's.
    fn make_volume(&self, planned: &mut Planned, id: &str, driver: &str) -> Result<()> {
        let of_a_bind = planned.volume.is_none() && planned.shown.driver.is_empty();
        let asked = planned.volume.clone().unwrap_or_default();
        let mut driver_config = asked.driver_config.unwrap_or_default();
        if of_a_bind {
            driver.clone_into(&mut driver_config.name);
        }
        let create = crate::volume::Create {
            name: planned.shown.name.clone(),
            driver: driver_config.name,
            options: driver_config.options,
            labels: asked.labels,
        };
        let volume = self.volumes.create(&create, Some(id))?;
        let shown = &mut planned.shown;
        shown.source = self.volumes.show(&volume).mountpoint;
        shown.name = volume.name;
        shown.driver = crate::volume::DRIVER.to_owned();
        if shown.mode.is_empty() && !planned.anonymous {
            shown.mode = "z".to_owned();
        }
        Ok(())
    }

    /// Lets a container's volumes go, and removes those that it made without a name.
    fn drop_volumes(&self, id: &str, planned: &[Planned]) {
        let held = self.volumes.let_go(id);
        let anonymous = planned.iter().filter(|one| one.anonymous && held.contains(&one.shown.name));
        for one in anonymous {
            // Another container has taken it with --volumes-from.
            if let Err(error) = self.volumes.remove(&one.shown.name) {
                tracing::debug!("{error}");
            }
        }
    }

    /// Takes up the volumes of a container of before.
    pub(super) fn take_up_volumes(&self, record: &Record, running: bool) {
        for one in record.mounts.iter().filter(|one| one.shown.kind == "volume") {
            self.volumes.hold(&one.shown.name, &record.id);
            if running && let Err(error) = self.volumes.mount(&one.shown.name, &record.id) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Where a volume of a container is, mounted, and filled from the root where it is new. `number` is another one for each
    /// mount of the container.
    ///
    /// # Errors
    /// The volume's own.
    pub(super) async fn mount_volume(
        self: &Arc<Self>,
        record: &Record,
        planned: &Planned,
        number: usize,
    ) -> Result<PathBuf> {
        let bundle = super::lifecycle::bundle_of(self, &record.id);
        let (daemon, id, planned) = (Arc::clone(self), record.id.clone(), planned.clone());
        blocking(move || {
            let shown = &planned.shown;
            let mut place = daemon.volumes.mount(&shown.name, &id)?;
            if !planned.subpath.is_empty() {
                // The volume's other users may put a link there at any time: what was looked at is what is mounted.
                let found = daemon.volumes.subpath(&shown.name, &planned.subpath)?;
                place = bundle.join(format!("subpath-{number}"));
                super::root::mount_opened(&found, &place)?;
            } else if !planned.no_copy {
                daemon.volumes.fill(&shown.name, &id, &bundle.join("rootfs"), &shown.destination)?;
            }
            daemon.volumes.mounted(&shown.name, &id, &shown.destination, shown.rw, &shown.propagation);
            Ok(place)
        })
        .await
    }

    /// A container's run no longer needs its volumes.
    pub(super) async fn unmount_volumes(self: &Arc<Self>, id: &str) {
        let (daemon, id) = (Arc::clone(self), id.to_owned());
        let ended = blocking(move || {
            for name in daemon.volumes.unmount(&id) {
                daemon.volumes.unmounted(&name, &id);
            }
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!("{error}");
        }
    }

    /// The volumes that a container has made without a name stay when it goes.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn keep_volumes(self: &Arc<Self>, container: &Container) -> Result<()> {
        let (daemon, id) = (Arc::clone(self), container.id.clone());
        blocking(move || daemon.volumes.outlive(&id)).await
    }

    /// A container is gone; `anonymous` volumes of its own go with it.
    pub(super) async fn forget_volumes(self: &Arc<Self>, container: &Container, anonymous: bool) {
        let (daemon, record) = (Arc::clone(self), container.read(Record::clone));
        let ended = blocking(move || {
            daemon.drop_volumes(&record.id, if anonymous { &record.mounts } else { &[] });
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!("{error}");
        }
    }
}
