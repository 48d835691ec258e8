//! A procfs of a pid namespace in which this process is not.
//!
//! From Linux 6.17 on procfs can be told which (`pidns`). Before, it is that of whoever opens its context, so a process
//! has to be in there to do so, where others may look at it, and do what they like with it. [`maker`] is all that there is
//! of it then: it has an empty root in a mount namespace of its own, no descriptor but a socket, and rights in a user
//! namespace that owns nothing but this; where the kernel gives no user namespace, CAP_SYS_ADMIN alone, in the runtime's.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ketch_sys::capability::{self, CapabilitySets};
use ketch_sys::mount::{self, Extent, Propagation};
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned};
use ketch_sys::signal::KILL;
use ketch_sys::socket::{self, SocketKind};
use ketch_sys::{Errno, SyscallError, namespace, path, stat};

use super::mask::read_only_tmpfs;

/// CAP_SYS_ADMIN: capabilities(7).
const SYS_ADMIN: u64 = 1 << 21;

/// The mount that is made of such a context, with `attributes`. Who was born inside to open it may have been made to hand over any
/// other one.
///
/// # Errors
/// What fsmount(2) fails with; `ENOTSUP` for another file system.
pub fn create(context: &OwnedFd, attributes: u64) -> Result<OwnedFd, SyscallError> {
    let mounted = mount::create(context, "proc", attributes)?;
    if stat::file_system(&mounted)? == stat::PROC {
        return Ok(mounted);
    }
    Err(SyscallError::new("fstatfs", "what was opened in the pid namespace is no procfs", Errno::ENOTSUP))
}

/// A context as fsopen(2) gives it in the pid namespace.
///
/// # Errors
/// What the kernel refuses; EPERM without CAP_SYS_ADMIN in the user namespace that owns the pid namespace.
pub fn open_context(pid_namespace: BorrowedFd<'_>) -> Result<OwnedFd, SyscallError> {
    let context = mount::open_fs("proc")?;
    match mount::configure_with(&context, "pidns", pid_namespace) {
        // Not a parameter that this kernel knows.
        Err(error) if error.errno == Errno::EINVAL => open_inside(pid_namespace),
        configured => configured.map(|()| context),
    }
}

/// The same by a process that is born there for it, whatever the kernel.
///
/// # Errors
/// As [`open_context`]; ENOMEM where nobody can be born any more.
pub fn open_inside(pid_namespace: BorrowedFd<'_>) -> Result<OwnedFd, SyscallError> {
    let (ours, theirs) = socket::pair(SocketKind::SeqPacket)?;
    let helper = in_a_child(|| {
        let Err(error) = leave_the_host(pid_namespace, &theirs).and_then(|()| maker(&theirs));
        tell(&theirs, &error)
    })?;
    drop(theirs);
    let mut text = [0; 512];
    let (length, mut fds) = socket::receive(&ours, &mut text)?;
    process::wait(&helper.pidfd)?;
    let failed = || {
        let (errno, step) = text[..length].split_first_chunk().unwrap_or((&[0; 4], &[]));
        let errno = Errno::from_raw(i32::from_le_bytes(*errno));
        SyscallError::new(
            "fsopen",
            format!("proc of another pid namespace, {}", String::from_utf8_lossy(step)),
            errno,
        )
    };
    fds.pop().ok_or_else(failed)
}

fn tell(socket: &OwnedFd, error: &SyscallError) {
    let mut text = error.raw_os_error().to_le_bytes().to_vec();
    text.extend_from_slice(error.call.as_bytes());
    // Nobody is left to be told then.
    let _best_effort = socket::send(socket, &text, &[]);
}

/// A child of this process that ends with what it does.
fn in_a_child(body: impl FnOnce()) -> Result<process::Child, SyscallError> {
    match process::clone3(&CloneOptions { namespaces: 0, into_cgroup: None, parent: CloneParent::Caller })? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            body();
            process::exit_now(0)
        }
    }
}

/// Has this process's children be born in the pid namespace, and goes where there is nothing for them to have.
fn leave_the_host(pid_namespace: BorrowedFd<'_>, socket: &OwnedFd) -> Result<(), SyscallError> {
    namespace::join(pid_namespace, namespace::NEW_PID)?;
    process::close_other_fds(0, &[socket.as_fd()])?;
    let own = namespace::NEW_MOUNT | namespace::NEW_NET | namespace::NEW_IPC | namespace::NEW_UTS;
    if namespace::unshare(own | namespace::NEW_USER).is_err() {
        namespace::unshare(own)?;
    }
    mount::set_propagation_of_path(Path::new("/"), Extent::Tree, Propagation::Private)?;
    let empty = read_only_tmpfs("")?;
    let here = path::open_host(Path::new("/"), path::PATH | path::DIRECTORY)?;
    mount::attach(&empty, &here)?;
    path::change_dir_to(&empty)?;
    mount::pivot_root_here()?;
    path::change_dir_to(&here)?;
    mount::detach_here()?;
    process::change_dir(c"/")?;
    capability::set(CapabilitySets { effective: SYS_ADMIN, permitted: SYS_ADMIN, inheritable: 0 })?;
    // A change of rights takes it away.
    process::set_parent_death_signal(KILL)
}

/// The process inside: opens the context and hands it over.
fn maker(socket: &OwnedFd) -> Result<Infallible, SyscallError> {
    let maker = in_a_child(|| {
        let ends = process::set_parent_death_signal(KILL);
        let sent = ends
            .and_then(|()| mount::open_fs("proc"))
            .and_then(|context| socket::send(socket, b"p", &[context.as_fd()]));
        if let Err(error) = sent {
            tell(socket, &error);
        }
    })?;
    process::wait(&maker.pidfd)?;
    process::exit_now(0)
}
