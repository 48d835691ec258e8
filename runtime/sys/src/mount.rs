//! The mount API by descriptor: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2),
//! pivot_root(2), umount2(2), and mount(2) where nothing newer does. Least kernel 5.12 (mount_setattr).
//!
//! A detached mount is an fd; it disappears with its last fd until [`attach`] puts it somewhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::call::{check, retry};
use crate::error::{Errno, Result, SyscallError};
use crate::path::{own, with_c_path};

/// `MOUNT_ATTR_RDONLY`.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR__ATIME`: the field of the access time settings.
pub const ACCESS_TIME_FIELD: u64 = libc::MOUNT_ATTR__ATIME;

/// What a mount does with mount events of its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_SHARED`.
    Shared,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_PRIVATE`.
    Private,
    /// `MS_UNBINDABLE`.
    Unbindable,
}

impl Propagation {
    const fn bits(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// One mount, or it and everything below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The mount alone.
    Single,
    /// The mount with its submounts (`AT_RECURSIVE`).
    Tree,
}

impl Extent {
    const fn at_flag(self) -> i32 {
        match self {
            Self::Single => 0,
            Self::Tree => libc::AT_RECURSIVE,
        }
    }
}

/// fsopen(2): a new configuration context for the file system `kind`.
pub fn open_fs(kind: &str) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    with_c_path("fsopen", Path::new(kind), |c_kind| {
        // SAFETY: c_kind is NUL-terminated and alive.
        let returned = unsafe { libc::syscall(libc::SYS_fsopen, c_kind.as_ptr(), FSOPEN_CLOEXEC) };
        check("fsopen", kind, returned).map(own)
    })
}

/// One parameter of a file system's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// A name alone ("ro", "newinstance").
    Flag(&'a str),
    /// A name with a value of at most 255 bytes ("mode", "755").
    Text(&'a str, &'a str),
}

/// The longest value of [`Parameter::Text`] that the kernel takes, in bytes.
pub const LONGEST_TEXT: usize = 255;

/// fsconfig(2): sets one parameter of the context.
///
/// # Errors
/// The detail is the parameter and, where the file system has left one, its own message.
pub fn configure(context: impl AsFd, parameter: Parameter<'_>) -> Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    const FSCONFIG_SET_STRING: u32 = 1;
    let (command, key, value) = match parameter {
        Parameter::Flag(key) => (FSCONFIG_SET_FLAG, key, None),
        Parameter::Text(key, value) => (FSCONFIG_SET_STRING, key, Some(value)),
    };
    let described = || value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
    let call = |c_value: *const libc::c_char, c_key: &CStr| {
        // SAFETY: the context is borrowed; key and value are NUL-terminated and alive, or the value is null as the
        // command asks.
        unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_fd().as_raw_fd(),
                command,
                c_key.as_ptr(),
                c_value,
                0,
            )
        }
    };
    let returned = with_c_path("fsconfig", Path::new(key), |c_key| match value {
        None => Ok(call(std::ptr::null(), c_key)),
        Some(value) => with_c_path("fsconfig", Path::new(value), |c_value| Ok(call(c_value.as_ptr(), c_key))),
    })?;
    if returned < 0 {
        let errno = Errno::last();
        return Err(SyscallError::new("fsconfig", explain(context.as_fd(), described()), errno));
    }
    Ok(())
}

/// fsconfig(2): gives the context a descriptor for its parameter `key`.
pub fn configure_with(context: impl AsFd, key: &str, descriptor: impl AsFd) -> Result<()> {
    const FSCONFIG_SET_FD: u32 = 5;
    let returned = with_c_path("fsconfig", Path::new(key), |c_key| {
        // SAFETY: both descriptors are borrowed; the key is NUL-terminated and alive; this command takes no value.
        Ok(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_fd().as_raw_fd(),
                FSCONFIG_SET_FD,
                c_key.as_ptr(),
                std::ptr::null::<libc::c_char>(),
                descriptor.as_fd().as_raw_fd(),
            )
        })
    })?;
    if returned < 0 {
        let errno = Errno::last();
        return Err(SyscallError::new("fsconfig", explain(context.as_fd(), key.to_owned()), errno));
    }
    Ok(())
}

/// fsconfig(2) and fsmount(2): makes the superblock and gives a detached mount of it with `attributes`
/// (`MOUNT_ATTR_*`; the access time is relatime unless they say otherwise).
pub fn create(context: impl AsFd, kind: &str, attributes: u64) -> Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    let raw = context.as_fd().as_raw_fd();
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the context is borrowed; this command takes no key and no value.
    let returned = unsafe { libc::syscall(libc::SYS_fsconfig, raw, FSCONFIG_CMD_CREATE, null, null, 0) };
    if returned < 0 {
        let errno = Errno::last();
        return Err(SyscallError::new("fsconfig", explain(context.as_fd(), kind.to_owned()), errno));
    }
    // SAFETY: the context is borrowed; the rest are integers.
    let returned = unsafe { libc::syscall(libc::SYS_fsmount, raw, FSMOUNT_CLOEXEC, attributes) };
    check("fsmount", kind, returned).map(own)
}

/// `operand` with the messages that the file system has written to its context, if any.
fn explain(context: BorrowedFd<'_>, operand: String) -> String {
    let mut text = operand;
    let mut buffer = [0_u8; 512];
    loop {
        // SAFETY: the context is borrowed, the buffer is as long as the call is told.
        let read = unsafe { libc::read(context.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(length) = usize::try_from(read) else { return text };
        if length == 0 {
            return text;
        }
        let message = String::from_utf8_lossy(&buffer[..length]);
        // "e proc: message": a letter for the level.
        let message = message.trim_end();
        let message =
            message.get(2..).filter(|_| message.as_bytes().get(1) == Some(&b' ')).unwrap_or(message);
        text.push_str(" (");
        text.push_str(message);
        text.push(')');
    }
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached bind mount of what `at` is a handle on.
pub fn clone_tree(at: impl AsFd, extent: Extent) -> Result<OwnedFd> {
    let raw = at.as_fd().as_raw_fd();
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_EMPTY_PATH | extent.at_flag()).cast_unsigned();
    retry("open_tree", "", || {
        // SAFETY: at is borrowed, the path is an empty C string literal.
        unsafe { libc::syscall(libc::SYS_open_tree, raw, c"".as_ptr(), flags) }
    })
    .map(own)
}

/// open_tree(2) with `OPEN_TREE_CLONE` of a path of the host, following symlinks: for bind sources, which the caller of
/// the runtime names, never for a path inside a container's root.
pub fn clone_host_tree(path: &Path, extent: Extent) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | extent.at_flag().cast_unsigned();
    with_c_path("open_tree", path, |c_path| {
        retry("open_tree", path.display(), || {
            // SAFETY: c_path is NUL-terminated and alive.
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags) }
        })
        .map(own)
    })
}

/// move_mount(2): puts the detached `mount` onto what `target` is a handle on. No path is walked.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both descriptors are borrowed, both paths are empty C string literals.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check("move_mount", "", returned)?;
    Ok(())
}

fn set_attr(at: BorrowedFd<'_>, extent: Extent, attr: &libc::mount_attr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | extent.at_flag();
    // SAFETY: at is borrowed, the path is an empty C string literal, attr is alive and its true size is given.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    check("mount_setattr", "", returned)?;
    Ok(())
}

const NOTHING: libc::mount_attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// mount_setattr(2): first clears, then sets `MOUNT_ATTR_*` bits.
pub fn set_attributes(mount: impl AsFd, extent: Extent, set: u64, clear: u64) -> Result<()> {
    set_attr(mount.as_fd(), extent, &libc::mount_attr { attr_set: set, attr_clr: clear, ..NOTHING })
}

/// mount_setattr(2): sets how mount events spread.
pub fn set_propagation(mount: impl AsFd, extent: Extent, propagation: Propagation) -> Result<()> {
    set_attr(mount.as_fd(), extent, &libc::mount_attr { propagation: propagation.bits(), ..NOTHING })
}

/// mount_setattr(2) with `MOUNT_ATTR_IDMAP`: shows the owners of a detached mount's files through the mappings of the
/// user namespace `userns`.
pub fn set_id_mapping(mount: impl AsFd, extent: Extent, userns: impl AsFd) -> Result<()> {
    let userns_fd = u64::from(userns.as_fd().as_raw_fd().cast_unsigned());
    set_attr(
        mount.as_fd(),
        extent,
        &libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..NOTHING },
    )
}

/// mount(2) of a propagation change on the path `target` of the host.
pub fn set_propagation_of_path(target: &Path, extent: Extent, propagation: Propagation) -> Result<()> {
    let recursive = if extent == Extent::Tree { libc::MS_REC } else { 0 };
    let null = std::ptr::null::<libc::c_char>();
    with_c_path("mount", target, |c_target| {
        // SAFETY: target is NUL-terminated and alive; a propagation change takes no source, type or data.
        let returned = unsafe {
            libc::mount(null, c_target.as_ptr(), null, propagation.bits() | recursive, null.cast())
        };
        check("mount", target.display(), returned.into())?;
        Ok(())
    })
}

/// mount(2) with `MS_MOVE` of the working directory's mount onto `/`.
pub fn move_here_to_root() -> Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: both paths are C string literals; a move takes no type and no data.
    let returned = unsafe { libc::mount(c".".as_ptr(), c"/".as_ptr(), null, libc::MS_MOVE, null.cast()) };
    check("mount", "/", returned.into())?;
    Ok(())
}

/// mount(2) in its old form onto the working directory, for options that [`configure`] cannot carry (a value longer
/// than [`LONGEST_TEXT`]). `flags` are `MS_*`.
pub fn mount_here(source: &str, kind: &str, flags: u64, data: &str) -> Result<()> {
    with_c_path("mount", Path::new(source), |c_source| {
        with_c_path("mount", Path::new(kind), |c_kind| {
            let data = std::ffi::CString::new(data)
                .map_err(|_| SyscallError::new("mount", kind.to_owned(), Errno::EINVAL))?;
            // SAFETY: every string is NUL-terminated and alive.
            let returned = unsafe {
                libc::mount(c_source.as_ptr(), c".".as_ptr(), c_kind.as_ptr(), flags, data.as_ptr().cast())
            };
            check("mount", kind, returned.into())?;
            Ok(())
        })
    })
}

/// pivot_root(2) with the working directory as both the new root and the place of the old one, which then covers it.
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: both paths are C string literals.
    let returned = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check("pivot_root", ".", returned)?;
    Ok(())
}

/// umount2(2) with `MNT_DETACH` of the mount that the working directory is on.
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is a C string literal.
    check("umount2", ".", unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    Ok(())
}

/// umount2(2) with `MNT_DETACH` of a path of the host.
pub fn detach_path(target: &Path) -> Result<()> {
    with_c_path("umount2", target, |c_target| {
        // SAFETY: c_target is NUL-terminated and alive.
        let returned = unsafe { libc::umount2(c_target.as_ptr(), libc::MNT_DETACH) };
        check("umount2", target.display(), returned.into())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_file_system_is_named() {
        let error = open_fs("no-such-fs").unwrap_err();
        assert!(error.errno == Errno::ENODEV || error.errno == Errno::EPERM, "{error}");
        assert!(error.to_string().starts_with("fsopen no-such-fs: "), "{error}");
    }

    #[test]
    fn a_bind_source_that_is_missing_is_named() {
        let error = clone_host_tree(Path::new("/no/such/source"), Extent::Tree).unwrap_err();
        assert!(error.errno == Errno::ENOENT || error.errno == Errno::EPERM, "{error}");
        assert!(error.detail.contains("/no/such/source"));
    }
}
