//! What a container mounts: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's volumes, first as what is asked for,
//! then as the runtime specification has it. Pure.

use ketch_engine_api::host_config::HostConfig;
use ketch_engine_api::mount::{Mount, MountPoint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::paths::clean;

/// One mount of a container; remembered with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Planned {
    /// As it is shown. A volume's name is empty until it is made.
    pub shown: MountPoint,
    /// A bind whose source is made where it is missing.
    pub makes_source: bool,
    /// A bind without the mounts below its source.
    pub flat: bool,
    /// A volume that is not filled from the image.
    pub no_copy: bool,
    /// A folder of the volume or image.
    pub subpath: String,
    /// The image's id, once it is held.
    pub image: String,
    /// Of a volume that is to be made: its driver's options and labels.
    pub volume: Option<ketch_engine_api::mount::VolumeOptions>,
    /// Of a tmpfs.
    pub options: Vec<String>,
    /// Read-only stops at the mount itself.
    pub flat_read_only: bool,
    /// The container made this volume, without a name.
    pub anonymous: bool,
}

/// The flags of any mount.
const FLAGS: [&str; 28] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "private",
    "shared",
    "slave",
];
/// What only a tmpfs has.
const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
const PROPAGATIONS: [&str; 6] = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/// One of `Binds`: `[source:]destination[:mode]`.
///
/// # Errors
/// dockerd's texts.
pub fn bind(text: &str) -> Result<Planned> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<_> = text.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, second] if is_mode(second) && !second.starts_with('/') => ("", source, second),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid());
    }
    let destination = absolute(destination)
        .ok_or_else(|| Error::invalid(format!("invalid volume specification: '{text}': invalid mount config for type \"{}\": invalid mount path: '{destination}' mount path must be absolute", if source.starts_with('/') { "bind" } else { "volume" })))?;
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let invalid = |why: &str| {
        Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {why}"
        ))
    };
    if destination == "/" {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    if !mode.is_empty() && !is_mode(mode) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    if kind == "volume" && mode.split(',').any(|word| PROPAGATIONS.contains(&word)) {
        return Err(invalid("field BindOptions must not be specified"));
    }
    let mut planned = Planned { makes_source: true, ..Planned::default() };
    let shown = &mut planned.shown;
    shown.destination = destination;
    shown.mode = mode.to_owned();
    shown.rw = !mode.split(',').any(|word| word == "ro");
    let propagation = mode.split(',').find(|word| PROPAGATIONS.contains(word));
    planned.no_copy = mode.split(',').any(|word| word == "nocopy");
    if source.starts_with('/') {
        shown.kind = "bind".to_owned();
        shown.source = clean(source);
        shown.propagation = propagation.unwrap_or("rprivate").to_owned();
    } else {
        shown.kind = "volume".to_owned();
        shown.name = source.to_owned();
        planned.anonymous = source.is_empty();
        if !source.is_empty() && !is_volume_name(source) {
            return Err(Error::invalid(format!(
                "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
    }
    Ok(planned)
}

/// One of the volumes that an image or a request wants without a name; dockerd takes a path that is not absolute, too.
///
/// # Errors
/// The root itself.
pub fn anonymous(path: &str) -> Result<Planned> {
    let destination = clean(path);
    if destination == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{path}': invalid mount config for type \"volume\": invalid specification: destination can't be '/'"
        )));
    }
    let shown = MountPoint { kind: "volume".to_owned(), destination, rw: true, ..MountPoint::default() };
    Ok(Planned { shown, makes_source: true, anonymous: true, ..Planned::default() })
}

/// Whether a local volume may have this name.
#[must_use]
pub fn is_volume_name(name: &str) -> bool {
    name.len() >= 2
        && name.bytes().enumerate().all(|(index, byte)| {
            byte.is_ascii_alphanumeric() || (index > 0 && matches!(byte, b'_' | b'.' | b'-'))
        })
}

fn is_mode(text: &str) -> bool {
    let once = |words: &[&str]| text.split(',').filter(|word| words.contains(word)).count() <= 1;
    !text.is_empty()
        && text.split(',').all(|word| {
            PROPAGATIONS.contains(&word)
                || matches!(word, "ro" | "rw" | "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated")
        })
        && once(&["ro", "rw"])
        && once(&["z", "Z"])
        && once(&PROPAGATIONS)
}

/// One of `Mounts`.
///
/// # Errors
/// dockerd's texts.
pub fn mount(asked: &Mount) -> Result<Planned> {
    let invalid =
        |why: &str| Error::invalid(format!("invalid mount config for type {:?}: {why}", asked.kind));
    for (kind, is_given, field) in [
        ("volume", asked.volume_options.is_some(), "VolumeOptions"),
        ("bind", asked.bind_options.is_some(), "BindOptions"),
        ("tmpfs", asked.tmpfs_options.is_some(), "TmpfsOptions"),
    ] {
        if is_given && asked.kind != kind {
            let why = format!("{field} must not be specified on mount type {:?}", asked.kind);
            return Err(Error::invalid(why));
        }
    }
    if asked.image_options.is_some() && asked.kind != "image" {
        return Err(invalid("field ImageOptions must not be specified"));
    }
    if asked.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let Some(destination) = absolute(&asked.target) else {
        return Err(invalid(&format!("invalid mount path: '{}' mount path must be absolute", asked.target)));
    };
    if destination == "/" {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    let mut planned = Planned::default();
    let shown = &mut planned.shown;
    shown.kind.clone_from(&asked.kind);
    shown.destination = destination;
    shown.rw = !asked.read_only;
    match asked.kind.as_str() {
        "bind" => {
            if asked.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            if !asked.source.starts_with('/') {
                return Err(invalid(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    asked.source
                )));
            }
            let options = asked.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(invalid(&format!("invalid propagation mode: {}", options.propagation)));
            }
            shown.source = clean(&asked.source);
            shown.propagation =
                if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
            planned.makes_source = options.create_mountpoint;
            planned.flat = options.non_recursive;
            planned.flat_read_only = options.read_only_non_recursive;
        }
        "volume" => {
            let options = asked.volume_options.clone().unwrap_or_default();
            if asked.source.is_empty() && asked.read_only {
                return Err(invalid("must not set ReadOnly mode when using anonymous volumes"));
            }
            if !options.subpath.is_empty() {
                if asked.source.is_empty() {
                    return Err(invalid("must not set Subpath when using anonymous volumes"));
                }
                if !is_local(&options.subpath) {
                    return Err(invalid("subpath must be a relative path within the volume"));
                }
            }
            shown.name.clone_from(&asked.source);
            shown.mode = "z".to_owned();
            planned.anonymous = asked.source.is_empty();
            shown.driver =
                options.driver_config.as_ref().map(|driver| driver.name.clone()).unwrap_or_default();
            planned.no_copy = options.no_copy;
            planned.subpath.clone_from(&options.subpath);
            planned.volume = Some(options);
        }
        "tmpfs" => {
            if !asked.source.is_empty() {
                return Err(invalid("field Source must not be specified"));
            }
            let options = asked.tmpfs_options.clone().unwrap_or_default();
            for words in options.options.iter().flatten() {
                match words.as_slice() {
                    [flag] if matches!(flag.as_str(), "exec" | "noexec") => {}
                    [name] | [name, _] => return Err(invalid(&format!("invalid option: {name}"))),
                    _ => return Err(invalid("invalid option array length")),
                }
            }
            planned.options = tmpfs(&options, asked.read_only);
        }
        "image" => {
            if asked.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            let subpath = asked.image_options.clone().unwrap_or_default().subpath;
            if !is_local(&subpath) {
                return Err(invalid("subpath must be a relative path within the volume"));
            }
            shown.name.clone_from(&asked.source);
            shown.propagation = "rprivate".to_owned();
            shown.rw = false;
            planned.subpath = subpath;
        }
        _ => return Err(invalid("mount type unknown")),
    }
    Ok(planned)
}

fn tmpfs(options: &ketch_engine_api::mount::TmpfsOptions, read_only: bool) -> Vec<String> {
    let mut all: Vec<_> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for words in options.options.iter().flatten() {
        let negated = words.first().and_then(|word| match word.as_str() {
            "exec" => Some("noexec"),
            "suid" => Some("nosuid"),
            "dev" => Some("nodev"),
            _ => None,
        });
        all.retain(|own| Some(own.as_str()) != negated);
        all.push(words.join("="));
    }
    if read_only {
        all.push("ro".to_owned());
    }
    if options.size_bytes > 0 {
        all.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        all.push(format!("mode={:o}", options.mode));
    }
    all
}

/// All that a container asks for itself, without what comes from other containers and the image.
///
/// # Errors
/// dockerd's texts; two mounts at one place.
pub fn asked(host_config: &HostConfig) -> Result<Vec<Planned>> {
    let mut all: Vec<Planned> = Vec::new();
    let binds = host_config.binds.iter().flatten().map(|text| (true, bind(text)));
    let mounts = host_config.mounts.iter().flatten().map(|asked| (false, mount(asked)));
    for (is_bind, planned) in binds.chain(mounts) {
        let planned = planned?;
        let at = &planned.shown.destination;
        // A mount over one of --tmpfs is Docker's, too.
        let is_tmpfs = || host_config.tmpfs.iter().flatten().any(|(path, _)| clean(path) == *at);
        let taken = all.iter().any(|one| one.shown.destination == *at) || (is_bind && is_tmpfs());
        if taken {
            return Err(Error::invalid(format!("Duplicate mount point: {at}")));
        }
        all.push(planned);
    }
    Ok(all)
}

/// One of `--volumes-from`: the container and whether its mounts can be written to.
///
/// # Errors
/// Another mode: dockerd's text.
pub fn volumes_from(text: &str) -> Result<(&str, Option<bool>)> {
    match text.split_once(':') {
        None if text.is_empty() => {
            Err(Error::invalid("volumes-from specification cannot be an empty string"))
        }
        None => Ok((text, None)),
        Some((container, "ro" | "z,ro" | "ro,z")) => Ok((container, Some(false))),
        Some((container, "rw" | "z" | "Z")) => Ok((container, None)),
        Some((_, mode)) => Err(Error::invalid(format!("invalid mode: {mode}"))),
    }
}

/// The specification's form of a mount; `source` is where a bind, volume or image is on the host.
#[must_use]
pub fn specified(planned: &Planned, source: &str) -> Value {
    let shown = &planned.shown;
    if shown.kind == "tmpfs" {
        let options = &planned.options;
        return json!({ "destination": shown.destination, "type": "tmpfs", "source": "tmpfs", "options": options });
    }
    let mut options = vec![if planned.flat { "bind" } else { "rbind" }];
    if !shown.rw {
        options.push(if planned.flat || planned.flat_read_only { "ro" } else { "rro" });
    }
    options.push(if shown.propagation.is_empty() { "rprivate" } else { &shown.propagation });
    json!({ "destination": shown.destination, "type": "bind", "source": source, "options": options })
}

/// The specification's form of one of `--tmpfs`.
///
/// # Errors
/// A path that is not absolute.
pub fn specified_tmpfs(path: &str, options: &str) -> Result<Value> {
    let Some(destination) = absolute(path) else {
        return Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    };
    let mut all = vec!["noexec", "nosuid", "nodev"];
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let is_known =
            FLAGS.contains(&word) || word.split_once('=').is_some_and(|(key, _)| TMPFS_VALUES.contains(&key));
        if !is_known {
            return Err(Error::invalid(format!("invalid tmpfs option {word:?}")));
        }
        let negated = match word {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            _ => "",
        };
        all.retain(|own| *own != negated && *own != word);
        all.push(word);
    }
    Ok(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": all }))
}

/// Whether a path leads no further than to what is below its start.
fn is_local(path: &str) -> bool {
    let mut depth = 0_i32;
    !path.starts_with('/')
        && path.split('/').all(|segment| {
            depth += match segment {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            depth >= 0
        })
}

fn absolute(path: &str) -> Option<String> {
    path.starts_with('/').then(|| clean(path))
}

#[cfg(test)]
mod tests;
