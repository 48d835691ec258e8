//! Volumes: folders that outlive containers, and what is mounted at them. The one driver is `local`.
//!
//! A volume is in the store before its creation is acknowledged, and its folder is out of its place before its removal is.
//! Who holds a volume is told by `engine`, at each start anew: nothing on the disk could say so falsely. Called by `engine`
//! and by routes; knows neither containers nor the API.

mod content;
mod copy;
mod options;
mod size;

pub(crate) use content::subpath_of;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ketch_engine_api::volume::{UsageData, Volume as Shown};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::locks::locked;
use crate::random;
use crate::remap::Ids;
use crate::store::{Store, Table};
use crate::timestamp::Timestamp;
use content::delete;

/// The only driver.
pub const DRIVER: &str = "local";
/// Of volumes that were made without a name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

const TABLE: Table = Table("volumes");
/// The folder of the data, in the volume's.
const DATA: &str = "_data";
/// Before the names of folders that are on their way out; no volume's name can begin so.
const REMOVED: &str = ".removed-";

/// What is remembered of a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// As they were given.
    pub labels: Option<BTreeMap<String, String>>,
    /// The driver's, as they were given.
    pub options: Option<BTreeMap<String, String>>,
    /// When it was made.
    pub created: Timestamp,
    /// The container that it was made for without a name, until that is removed without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_for: Option<String>,
}

/// A volume that is to be made.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Empty: one by chance.
    pub name: String,
    /// Empty: `local`.
    pub driver: String,
    /// The driver's.
    pub options: Option<BTreeMap<String, String>>,
    /// By key.
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Known {
    volume: Volume,
    /// Containers that name it.
    holders: BTreeSet<String>,
    /// Containers that run with it.
    users: BTreeSet<String>,
    /// Held by whoever mounts, unmounts, fills or removes it; taken before what is known.
    place: Arc<Mutex<()>>,
}

impl Known {
    fn new(volume: Volume) -> Self {
        Self { volume, holders: BTreeSet::new(), users: BTreeSet::new(), place: Arc::default() }
    }
}

/// All volumes.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    ids: Ids,
    store: Store,
    events: Arc<Events>,
    known: Mutex<BTreeMap<String, Known>>,
}

impl Volumes {
    /// Reads what is remembered, and ends removals that were cut off.
    ///
    /// # Errors
    /// The disk.
    pub fn open(data_root: &Path, store: Store, events: Arc<Events>) -> Result<Self> {
        let root = data_root.join("volumes");
        make(&root, 0o701)?;
        let remembered = store.all::<Volume>(TABLE)?;
        for entry in fs::read_dir(&root).map_err(|error| failed("reading", &root, &error))? {
            let entry = entry.map_err(|error| failed("reading", &root, &error))?;
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                delete(&entry.path());
            } else if remembered.iter().all(|(name, _)| entry.file_name() != name.as_str()) {
                // Of a volume that was never acknowledged; what somebody has put there stays.
                let _kept = fs::remove_dir(entry.path().join(DATA));
                let _kept = fs::remove_dir(entry.path());
            }
        }
        let mut known = BTreeMap::new();
        for (name, volume) in remembered {
            let folder = root.join(&name);
            match fs::symlink_metadata(&folder) {
                Ok(_) => {
                    content::clear_half(&folder);
                    let _none = known.insert(name, Known::new(volume));
                }
                // Its removal had begun, and was not yet acknowledged. A link to a disk that is not there yet is no such thing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => store.remove(TABLE, &name)?,
                Err(error) => return Err(failed("reading", &folder, &error)),
            }
        }
        Ok(Self { root, ids: Ids::default(), store, events, known: Mutex::new(known) })
    }

    /// The same where containers' root, whose new volumes are, is another on the host.
    pub(crate) fn for_users(self, ids: &Ids) -> Self {
        Self { ids: ids.clone(), ..self }
    }

    /// Makes a volume, or finds the one of the name. `holder` is a container that names it.
    ///
    /// # Errors
    /// A name, a driver or an option that can't be: dockerd's texts. The disk.
    pub fn create(&self, asked: &Create, holder: Option<&str>) -> Result<Volume> {
        let anonymous = asked.name.is_empty();
        let name = if anonymous { random::id()? } else { asked.name.clone() };
        let invalid = |why: String| Error::invalid(format!("create {name}: {why}"));
        check_name(&name).map_err(invalid)?;
        if !matches!(asked.driver.as_str(), "" | DRIVER) {
            let driver = &asked.driver;
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        let options = asked.options.clone().filter(|options| !options.is_empty());
        let mut known = self.known();
        if let Some(there) = known.get_mut(&name) {
            there.holders.extend(holder.map(str::to_owned));
            return Ok(there.volume.clone());
        }
        if let Some(options) = &options {
            options::check(options).map_err(invalid)?;
        }
        let mut labels = asked.labels.clone();
        if anonymous {
            let _none = labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        }
        let made_for = holder.filter(|_| anonymous).map(str::to_owned);
        let volume = Volume { name: name.clone(), labels, options, created: Timestamp::now(), made_for };
        make(&self.root.join(&name), 0o701)?;
        let data = self.data(&name);
        make(&data, 0o755)?;
        self.ids.give(&data).map_err(|error| failed("changing the owner of", &data, &error))?;
        self.store.put(TABLE, &name, &volume)?;
        let mut entry = Known::new(volume.clone());
        entry.holders.extend(holder.map(str::to_owned));
        let _none = known.insert(name.clone(), entry);
        drop(known);
        self.tell("create", &name, [("driver", DRIVER.to_owned())]);
        Ok(volume)
    }

    /// The volume of a name.
    ///
    /// # Errors
    /// There is none: dockerd's text.
    pub fn find(&self, name: &str) -> Result<Volume> {
        self.known().get(name).map(|known| known.volume.clone()).ok_or_else(|| no_such(name))
    }

    /// All of them, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Volume> {
        self.known().values().map(|known| known.volume.clone()).collect()
    }

    /// Whether a container names it.
    #[must_use]
    pub fn is_held(&self, name: &str) -> bool {
        self.known().get(name).is_some_and(|known| !known.holders.is_empty())
    }

    /// As the API shows it.
    #[must_use]
    pub fn show(&self, volume: &Volume) -> Shown {
        let created = volume.created.to_string();
        Shown {
            // Without the fraction.
            created_at: format!("{}Z", created.get(..19).unwrap_or(&created)),
            driver: DRIVER.to_owned(),
            labels: volume.labels.clone(),
            mountpoint: self.data(&volume.name).to_string_lossy().into_owned(),
            name: volume.name.clone(),
            options: volume.options.clone(),
            scope: "local".to_owned(),
            usage_data: None,
        }
    }

    /// Those without options, with their sizes; reads all their folders.
    #[must_use]
    pub fn usage(&self) -> Vec<Shown> {
        let volumes: Vec<_> = {
            let known = self.known();
            let local = known.values().filter(|known| known.volume.options.is_none());
            local.map(|known| (known.volume.clone(), known.holders.len())).collect()
        };
        let shown = volumes.into_iter().map(|(volume, holders)| {
            let size = size::of(&self.data(&volume.name)).ok().and_then(|size| i64::try_from(size).ok());
            let usage =
                UsageData { ref_count: i64::try_from(holders).unwrap_or(i64::MAX), size: size.unwrap_or(-1) };
            Shown { usage_data: Some(usage), ..self.show(&volume) }
        });
        shown.collect()
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// It is not there, or a container names it: dockerd's texts. The disk.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        let _one = locked(&place);
        check_free(&self.known(), name)?;
        self.unmount_data(name)?;
        let mut known = self.known();
        check_free(&known, name)?;
        let data = self.data(name);
        let gone = self.root.join(format!("{REMOVED}{}", random::id()?));
        match fs::rename(self.root.join(name), &gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", &data, &error));
            }
            _ => {}
        }
        self.store.remove(TABLE, name)?;
        drop(known.remove(name));
        drop(known);
        delete(&gone);
        self.tell("destroy", name, [("driver", DRIVER.to_owned())]);
        Ok(())
    }

    /// Removes those that nobody holds and `wanted` wants; those with options are left, as nothing would be won.
    ///
    /// # Errors
    /// The disk.
    pub fn prune(&self, wanted: impl Fn(&Volume) -> bool) -> Result<(Vec<String>, u64)> {
        let (mut names, mut bytes) = (Vec::new(), 0);
        for volume in self.list() {
            if volume.options.is_some() || self.is_held(&volume.name) || !wanted(&volume) {
                continue;
            }
            let size = size::of(&self.data(&volume.name)).unwrap_or(0);
            match self.remove(&volume.name) {
                Ok(()) => {
                    bytes += size;
                    names.push(volume.name);
                }
                // Taken meanwhile.
                Err(error) => warn!("{error}"),
            }
        }
        let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
        self.events.publish("volume", "prune", "", attributes);
        Ok((names, bytes))
    }

    /// A container of before names this volume.
    pub fn hold(&self, name: &str, container: &str) {
        if let Some(known) = self.known().get_mut(name) {
            let _new = known.holders.insert(container.to_owned());
        }
    }

    /// Those that were made for containers that never came to be, `known` being all that are, go; nobody has been told of them.
    pub fn keep(&self, known: impl Fn(&str) -> bool) {
        for volume in self.list() {
            if volume.made_for.is_some_and(|container| !known(&container))
                && let Err(error) = self.remove(&volume.name)
            {
                warn!("{error}");
            }
        }
    }

    /// The volumes that were made for a container outlive it.
    ///
    /// # Errors
    /// The disk.
    pub fn outlive(&self, container: &str) -> Result<()> {
        for there in self.known().values_mut() {
            if there.volume.made_for.as_deref() == Some(container) {
                let volume = Volume { made_for: None, ..there.volume.clone() };
                self.store.put_before_removal(TABLE, &volume.name, &volume)?;
                there.volume = volume;
            }
        }
        Ok(())
    }

    /// A container is gone: what it held is free. Gives the names of what it held.
    pub fn let_go(&self, container: &str) -> Vec<String> {
        let mut known = self.known();
        let held = known.iter_mut().filter_map(|(name, known)| {
            let _was = known.users.remove(container);
            known.holders.remove(container).then(|| name.clone())
        });
        held.collect()
    }

    /// Tells of a mount.
    pub fn mounted(&self, name: &str, container: &str, destination: &str, rw: bool, propagation: &str) {
        let attributes = [
            ("driver", DRIVER.to_owned()),
            ("container", container.to_owned()),
            ("destination", destination.to_owned()),
            ("read/write", rw.to_string()),
            ("propagation", propagation.to_owned()),
        ];
        self.tell("mount", name, attributes);
    }

    /// Tells of its end.
    pub fn unmounted(&self, name: &str, container: &str) {
        self.tell("unmount", name, [("driver", DRIVER.to_owned()), ("container", container.to_owned())]);
    }

    fn tell<const N: usize>(&self, action: &str, name: &str, attributes: [(&str, String); N]) {
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.events.publish("volume", action, name, attributes);
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        locked(&self.known)
    }
}

fn check_free(known: &BTreeMap<String, Known>, name: &str) -> Result<()> {
    let there = known.get(name).ok_or_else(|| no_such(name))?;
    if there.holders.is_empty() {
        return Ok(());
    }
    let holders: Vec<_> = there.holders.iter().map(String::as_str).collect();
    Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", holders.join(", "))))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() == 1 {
        return Err(
            "volume name is too short, names should be at least two alphanumeric characters".to_owned()
        );
    }
    let fits = name.len() <= 255
        && name.bytes().enumerate().all(|(index, byte)| {
            byte.is_ascii_alphanumeric() || (index > 0 && matches!(byte, b'_' | b'.' | b'-'))
        });
    if fits {
        return Ok(());
    }
    Err(format!(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    ))
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::internal(format_args!("{action} {}", path.display()), error)
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("making", folder, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
