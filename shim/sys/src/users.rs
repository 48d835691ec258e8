//! User namespaces: to enter a new one (unshare(2)), to find whose a namespace is (ioctl_nsfs(2), NS_GET_USERNS, from Linux 4.9
//! on), and to show a mount's owners through one (mount_setattr(2), MOUNT_ATTR_IDMAP, from Linux 5.12 on).

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

use rustix::io::{self, Errno};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts this process, which must be single-threaded, into a new user namespace without mappings.
///
/// # Errors
/// `EINVAL` with more than one thread, `ENOSPC` where no more namespaces may be (user.max_user_namespaces).
pub fn enter_new_user_namespace() -> io::Result<()> {
    // SAFETY: the call is unsafe for UnshareFlags::FILES, which would leave threads without each other's descriptors; this flag
    // changes credentials alone, and the kernel refuses it to a process with threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
}

struct Owner;

const GET_USERNS: Opcode = opcode::none(0xb7, 1);

// SAFETY: NS_GET_USERNS takes no argument, so that the null pointer is not looked at and nothing of ours is changed; what a
// success returns is a new descriptor, close-on-exec, that belongs to nobody else.
unsafe impl Ioctl for Owner {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_USERNS
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(returned: IoctlOutput, _: *mut c_void) -> io::Result<OwnedFd> {
        // SAFETY: as above, of a call that did not fail.
        Ok(unsafe { OwnedFd::from_raw_fd(returned) })
    }
}

/// The user namespace that owns another namespace.
///
/// # Errors
/// `ENOTTY` where `namespace` is none; `EPERM` where the owner is an ancestor of this process's.
pub fn owner_of_namespace(namespace: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the opcode is NS_GET_USERNS, which `Owner` describes.
    unsafe { ioctl(namespace, Owner) }
}

/// `struct mount_attr` in its first size.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_SETATTR: c_long = 442;
const ATTR_IDMAP: u64 = 0x0010_0000;
const EMPTY_PATH: c_uint = 0x1000;
const RECURSIVE: c_uint = 0x8000;

unsafe extern "C" {
    /// syscall(2): rustix has no mount_setattr.
    fn syscall(number: c_long, ...) -> c_long;
}

/// Shows the owners of a detached mount's files, and with `recursive` of all below it, through the mappings of a user namespace.
///
/// # Errors
/// `EINVAL` where a file system or the kernel does not know idmapped mounts, or the mount is not detached; `EPERM` where it
/// has a mapping already, or the namespace is the initial one.
pub fn map_owners(mount: impl AsFd, users: impl AsFd, recursive: bool) -> io::Result<()> {
    let users = users.as_fd().as_raw_fd();
    let attributes = MountAttributes {
        set: ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: u64::try_from(users).map_err(|_| Errno::BADF)?,
    };
    let flags = if recursive { EMPTY_PATH | RECURSIVE } else { EMPTY_PATH };
    let empty: *const c_char = c"".as_ptr();
    let mount: c_int = mount.as_fd().as_raw_fd();
    // SAFETY: the number is mount_setattr(2)'s on every architecture, and its arguments are a descriptor and one within the
    // attributes, both borrowed for the call, a terminated text, flags, and a structure that is read only, with its size.
    let returned = unsafe {
        syscall(
            MOUNT_SETATTR,
            mount,
            empty,
            flags,
            ptr::from_ref(&attributes),
            mem::size_of::<MountAttributes>(),
        )
    };
    if returned == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests: a failure ends the test")]
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_namespace_has_an_owner() {
        let namespace = File::open("/proc/self/ns/uts").unwrap();
        match owner_of_namespace(&namespace) {
            Ok(owner) => {
                let users = File::open("/proc/self/ns/user").unwrap();
                assert_eq!(File::from(owner).metadata().unwrap().ino(), users.metadata().unwrap().ino());
            }
            // In a user namespace whose uts namespace is that of above.
            Err(error) => assert_eq!(error, Errno::PERM),
        }
        assert_eq!(owner_of_namespace(File::open("/dev/null").unwrap()).unwrap_err(), Errno::NOTTY);
    }

    #[test]
    fn what_is_no_mount_of_its_own_is_refused_with_the_kernels_error() {
        let folder = File::open("/").unwrap();
        let users = File::open("/proc/self/ns/user").unwrap();
        let error = map_owners(&folder, &users, false).unwrap_err();
        assert!([Errno::PERM, Errno::INVAL, Errno::NOSYS].contains(&error), "{error}");
        assert_eq!(mem::size_of::<MountAttributes>(), 32);
        assert_eq!(GET_USERNS, 0xb701);
    }
}
