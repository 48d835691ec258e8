//! The folder of images, as far as it is this program's: its making, what is in it beside criu's own files, and what is
//! refused in it before criu reads anything.
//!
//! A folder may have been unpacked from somebody's archive. criu opens its files by name, so a symlink among them would
//! have it read, or write its log to, any file of the host: nothing but `parent`, which leads to earlier images, may be one.
//! Nor may there be a device, which is memory or a disk of the host's, or a fifo, at which it would wait for ever.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ketch_sys::error::errno_text;
use ketch_sys::path::{self, Resolve};
use ketch_sys::{Errno, SyscallError, stat};

use super::error::CriuError;
use super::streams::leads_out;

/// Where the standard streams of the first process led, as JSON: runc's file of that name.
const DESCRIPTORS: &str = "descriptors.json";
/// Which network namespace the processes were in, where it was not the container's own.
const NETWORK: &str = "ketch-network";
/// Not empty where the container was shown its notification socket's folder.
const NOTIFY: &str = "ketch-notify";
/// criu's first file: what else there is.
const INVENTORY: &str = "inventory.img";
/// criu's link to earlier images.
const PARENT: &str = "parent";
/// How many times images may have earlier ones.
const MOST_PARENTS: usize = 100;
/// Three short names.
const DESCRIPTORS_LIMIT: u64 = 64 * 1024;
/// How much of the end of a log is looked at.
const LOG_TAIL: u64 = 256 * 1024;
/// How many of a log's errors are told.
const LOG_LINES: usize = 5;

/// A folder that criu reads or writes.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    dir: OwnedFd,
}

impl Folder {
    /// The folder at `path`, made if it is not there, for its owner alone.
    pub(super) fn make(path: &Path) -> Result<Self, CriuError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(CriuError::file("creating", path))?;
        Self::open(path)
    }

    /// The folder at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, CriuError> {
        let dir = path::open_host(path, path::READ | path::DIRECTORY).map_err(|error| {
            CriuError::file("opening", path)(io::Error::from_raw_os_error(error.raw_os_error()))
        })?;
        Ok(Self { path: path.to_owned(), dir })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn unusable(&self, reason: impl Into<String>) -> CriuError {
        CriuError::Images { path: self.path.clone(), reason: reason.into() }
    }

    /// Refuses what a checkpoint does not make.
    pub(super) fn check(&self) -> Result<(), CriuError> {
        check_files(&self.path, MOST_PARENTS).map_err(|reason| self.unusable(reason))
    }

    /// Refuses a folder that holds no checkpoint.
    pub(super) fn check_complete(&self) -> Result<(), CriuError> {
        self.check()?;
        match self.open_file(INVENTORY, path::READ) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.unusable(format!("{INVENTORY}: {}", errno_text(error.errno)))),
        }
    }

    fn open_file(&self, name: &str, flags: i32) -> Result<OwnedFd, SyscallError> {
        let flags = flags | path::NO_FOLLOW | path::NON_BLOCKING;
        path::open_at(&self.dir, Path::new(name), flags, 0o600, Resolve::BeneathNoSymlinks)
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<(), CriuError> {
        let failed = || CriuError::file("writing", self.path.join(name));
        let file = self
            .open_file(name, path::WRITE | path::CREATE | path::TRUNCATE)
            .map_err(|error| failed()(error.into()))?;
        File::from(file).write_all(text).map_err(failed())
    }

    /// Notes where the standard streams lead.
    pub(super) fn write_descriptors(&self, descriptors: &[String]) -> Result<(), CriuError> {
        let failed = CriuError::file("writing", self.path.join(DESCRIPTORS));
        self.write(DESCRIPTORS, &serde_json::to_vec(descriptors).map_err(|error| failed(error.into()))?)
    }

    /// Notes the network namespace that was joined, or that there was none.
    pub(super) fn write_network(&self, network: Option<&NetworkMark>) -> Result<(), CriuError> {
        self.write(NETWORK, network.map_or("", |mark| &mark.0).as_bytes())
    }

    /// Whether the processes were in this very network namespace.
    pub(super) fn is_of_network(&self, network: &NetworkMark) -> bool {
        let Ok(file) = self.open_file(NETWORK, path::READ) else { return false };
        let mut text = String::new();
        File::from(file).take(network.0.len() as u64 + 1).read_to_string(&mut text).is_ok()
            && text == network.0
    }

    /// Notes whether the container was shown its notification socket's folder.
    pub(super) fn write_notify(&self, shown: bool) -> Result<(), CriuError> {
        self.write(NOTIFY, if shown { b"shown" } else { b"" })
    }

    /// Whether it was.
    pub(super) fn was_shown_notify(&self) -> bool {
        let Ok(file) = self.open_file(NOTIFY, path::READ) else { return false };
        let status = stat::status(&file);
        status.is_ok_and(|status| status.is_file()) && matches!(File::from(file).read(&mut [0]), Ok(1))
    }

    /// Those of the saved process's standard streams that lead out of the container, each with its number.
    pub(super) fn streams(&self) -> Result<Vec<(i32, String)>, CriuError> {
        let damaged = |reason: String| self.unusable(format!("{DESCRIPTORS}: {reason}"));
        let file =
            self.open_file(DESCRIPTORS, path::READ).map_err(|error| damaged(errno_text(error.errno)))?;
        let status = stat::status(&file).map_err(|error| damaged(error.to_string()))?;
        if !status.is_file() {
            return Err(damaged("no regular file".to_owned()));
        }
        let mut text = Vec::new();
        File::from(file)
            .take(DESCRIPTORS_LIMIT)
            .read_to_end(&mut text)
            .map_err(|error| damaged(error.to_string()))?;
        streams(&text).map_err(damaged)
    }

    /// The last errors in a log of criu's.
    pub(super) fn last_errors(&self, log: &str) -> Vec<String> {
        let Ok(file) = self.open_file(log, path::READ) else { return Vec::new() };
        let mut file = File::from(file);
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let mut tail = Vec::new();
        let read = file
            .seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))
            .and_then(|_| file.take(LOG_TAIL).read_to_end(&mut tail));
        if read.is_err() {
            return Vec::new();
        }
        last_errors(&String::from_utf8_lossy(&tail))
    }

    /// The path of a log in it.
    pub(super) fn log_path(&self, log: &str) -> PathBuf {
        self.path.join(log)
    }
}

/// What tells a network namespace from others: the machine's boot and the namespace's inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkMark(String);

impl NetworkMark {
    /// That of the namespace with this inode.
    pub(super) fn of(inode: u64) -> Result<Self, CriuError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(CriuError::file("reading", path))?;
        Ok(Self(format!("{} net:[{inode}]", boot.trim())))
    }
}

/// Files, folders and sockets (that of lazy pages), and of symlinks `parent`; in the folder and in those of earlier images.
fn check_files(folder: &Path, depth: usize) -> Result<(), String> {
    let dir =
        path::open_host(folder, path::READ | path::DIRECTORY).map_err(|error| errno_text(error.errno))?;
    let told = |error: SyscallError| error.to_string();
    let mut parent = None;
    for name in path::list_dir(&dir).map_err(told)? {
        let flags = path::PATH | path::NO_FOLLOW;
        // InRoot lets O_NOFOLLOW give the link itself.
        let entry = match path::open_at(&dir, Path::new(&name), flags, 0, Resolve::InRoot) {
            Err(error) if error.errno == Errno::ENOENT => continue,
            other => other.map_err(told)?,
        };
        let status = stat::status(&entry).map_err(told)?;
        if status.is_file() || status.is_dir() || status.is_socket() {
            continue;
        }
        if !status.is_symlink() || name != *OsStr::new(PARENT) {
            let kind = if status.is_symlink() { "a symlink" } else { "a device or a fifo" };
            return Err(format!("{} is {kind}", Path::new(&name).display()));
        }
        parent = Some(path::read_link(&entry, Path::new("")).map_err(told)?);
    }
    let Some(parent) = parent else { return Ok(()) };
    let depth = depth.checked_sub(1).ok_or("it has too many parents")?;
    // Without the links that led there, of which the kernel follows only so many in one path.
    fs::canonicalize(folder.join(PARENT))
        .map_err(|error| crate::error::io_text(&error))
        .and_then(|earlier| check_files(&earlier, depth))
        .map_err(|reason| format!("its parent {}: {reason}", Path::new(&parent).display()))
}

/// The streams of a descriptors.json: no other name than criu's for a pipe or a fifo is ever handed to it.
fn streams(text: &[u8]) -> Result<Vec<(i32, String)>, String> {
    let names: Vec<String> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if names.len() > 3 {
        return Err(format!("{} descriptors, where 3 are standard", names.len()));
    }
    Ok((0..).zip(names).filter(|(_, name)| leads_out(name)).collect())
}

fn last_errors(log: &str) -> Vec<String> {
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("Error")).collect();
    let first = errors.len().saturating_sub(LOG_LINES);
    errors[first..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ketch-images-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn folder(&self) -> Folder {
            Folder::make(&self.0.join("new")).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_pipes_and_fifos_are_handed_on() {
        let text = br#"["pipe:[12]", "/dev/pts/0", "file[1f:22]"]"#;
        assert_eq!(streams(text).unwrap(), [(0, "pipe:[12]".to_owned()), (2, "file[1f:22]".to_owned())]);
        let text = br#"["extRootNetNS", "pipe:[1]:x", "xpipe:[2]"]"#;
        assert!(streams(text).unwrap().is_empty());
        for bad in ["", "{}", "[1]", "[\"a\"", r#"["","","",""]"#] {
            assert!(streams(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptors_are_written_and_read() {
        let scratch = Scratch::new("descriptors");
        let folder = scratch.folder();
        assert!(folder.streams().unwrap_err().to_string().contains("descriptors.json: no such file"));
        folder.write_descriptors(&["/dev/null".to_owned(), "pipe:[7]".to_owned()]).unwrap();
        assert_eq!(folder.streams().unwrap(), [(1, "pipe:[7]".to_owned())]);
        fs::remove_file(scratch.0.join("new/descriptors.json")).unwrap();
        symlink("/etc/passwd", scratch.0.join("new/descriptors.json")).unwrap();
        assert!(folder.streams().is_err());
        assert!(folder.write_descriptors(&[]).is_err());
    }

    #[test]
    fn a_network_is_known_again() {
        let scratch = Scratch::new("network");
        let folder = scratch.folder();
        let (one, two) = (NetworkMark::of(4711).unwrap(), NetworkMark::of(47_112).unwrap());
        assert!(!folder.is_of_network(&one));
        folder.write_network(Some(&two)).unwrap();
        assert!(folder.is_of_network(&two) && !folder.is_of_network(&one));
        folder.write_network(None).unwrap();
        assert!(!folder.is_of_network(&two));
    }

    #[test]
    fn a_notification_folder_is_known_again() {
        let scratch = Scratch::new("notify");
        let folder = scratch.folder();
        assert!(!folder.was_shown_notify());
        folder.write_notify(true).unwrap();
        assert!(folder.was_shown_notify());
        folder.write_notify(false).unwrap();
        assert!(!folder.was_shown_notify());
    }

    #[test]
    fn links_are_refused_but_for_the_parent() {
        let scratch = Scratch::new("links");
        let folder = scratch.folder();
        let error = folder.check_complete().unwrap_err().to_string();
        assert!(error.contains("is no usable checkpoint: inventory.img: no such file"), "{error}");
        fs::write(scratch.0.join("new/inventory.img"), "").unwrap();
        folder.check_complete().unwrap();
        symlink("../old", scratch.0.join("new/parent")).unwrap();
        assert!(folder.check().unwrap_err().to_string().contains("its parent ../old: no such file"));
        fs::create_dir(scratch.0.join("old")).unwrap();
        folder.check().unwrap();
        symlink("/etc/shadow", scratch.0.join("old/pages-1.img")).unwrap();
        let error = folder.check().unwrap_err().to_string();
        assert!(error.ends_with("its parent ../old: pages-1.img is a symlink"), "{error}");
        fs::remove_file(scratch.0.join("old/pages-1.img")).unwrap();
        symlink(".", scratch.0.join("old/parent")).unwrap();
        assert!(folder.check().unwrap_err().to_string().contains("too many parents"));
    }

    #[test]
    fn devices_and_fifos_are_refused_and_sockets_are_not() {
        let scratch = Scratch::new("kinds");
        let folder = scratch.folder();
        let _socket =
            std::os::unix::net::UnixListener::bind(scratch.0.join("new/lazy-pages.socket")).unwrap();
        fs::create_dir(scratch.0.join("new/folder")).unwrap();
        folder.check().unwrap();
        path::make_fifo(&scratch.0.join("new/pages-1.img"), 0o600).unwrap();
        let error = folder.check().unwrap_err().to_string();
        assert!(error.ends_with("pages-1.img is a device or a fifo"), "{error}");
    }

    #[test]
    fn the_last_errors_of_a_log_are_told() {
        let scratch = Scratch::new("log");
        let folder = scratch.folder();
        assert!(folder.last_errors("dump.log").is_empty());
        let log: String =
            (0..9).map(|number| format!("(00.1) Error (criu/x.c:{number})\n(00.2) fine\n")).collect();
        fs::write(folder.log_path("dump.log"), log).unwrap();
        let lines = folder.last_errors("dump.log");
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "(00.1) Error (criu/x.c:8)");
    }
}
