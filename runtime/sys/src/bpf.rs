//! bpf(2), as far as the device controller of cgroup v2 needs it. Least kernel 5.6 (`BPF_F_REPLACE`).
//!
//! Every call passes a zeroed attribute that is larger than any kernel's: kernels 6.17 to 7.1 write beyond a shorter
//! one on `BPF_PROG_QUERY`, and the kernel takes a longer one as long as its tail is zero.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::call::check;
use crate::error::{Errno, Result};
use crate::path::own;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// How many programs the kernel lets a cgroup have (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr`, by byte offsets.
#[repr(C, align(8))]
struct Attribute([u8; 256]);

impl Attribute {
    fn zeroed() -> Self {
        Attribute([0; 256])
    }

    fn int(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: impl AsFd) -> Self {
        self.int(offset, fd.as_fd().as_raw_fd().cast_unsigned())
    }

    fn pointer<T>(mut self, offset: usize, pointer: *const T) -> Self {
        let address = pointer.addr() as u64;
        self.0[offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        self
    }

    fn read_int(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }
}

/// The bare call.
///
/// # Safety
/// Every pointer in `attribute` must be valid for what `command` does with it.
unsafe fn bpf(call: &'static str, command: i32, attribute: &mut Attribute) -> Result<i64> {
    let size = size_of::<Attribute>();
    // SAFETY: the attribute is alive and its true size is given; its pointers are the caller's promise.
    check(call, "", unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size) })
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program of eight-byte instructions. Needs CAP_BPF or CAP_SYS_ADMIN.
pub fn load_device_program(instructions: &[[u8; 8]]) -> Result<OwnedFd> {
    // The kernel wants the array aligned as its struct is.
    let words: Vec<u64> = instructions.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    let load = || {
        let mut attribute = Attribute::zeroed()
            .int(0, PROG_TYPE_CGROUP_DEVICE)
            .int(4, u32::try_from(words.len()).unwrap_or(u32::MAX))
            .pointer(8, words.as_ptr())
            .pointer(16, c"Apache".as_ptr());
        attribute.0[48..60].copy_from_slice(b"ketch_device");
        // SAFETY: the instructions and the licence are alive, and the count is theirs; the kernel only reads them.
        unsafe { bpf("bpf(BPF_PROG_LOAD)", PROG_LOAD, &mut attribute) }.map(own)
    };
    // The verifier gives up as soon as a signal is pending, one that is ignored included: the end of a child is enough.
    let load = || {
        let mut attempts = 0;
        loop {
            match load() {
                Err(error) if error.errno == Errno::EAGAIN && attempts < 16 => attempts += 1,
                other => return other,
            }
        }
    };
    load().or_else(|error| {
        if error.errno != Errno::EPERM {
            return Err(error);
        }
        // Before 5.11 programs counted as locked memory. The limit is not inherited by the container, whose limits
        // are set one by one.
        let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a live struct that the kernel only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } != 0 {
            return Err(error);
        }
        load()
    })
}

/// The ids of the device programs that are attached to the cgroup2 directory itself.
pub fn attached_device_programs(cgroup: impl AsFd) -> Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attribute = Attribute::zeroed()
        .fd(0, cgroup)
        .int(4, ATTACH_CGROUP_DEVICE)
        .pointer(16, ids.as_mut_ptr())
        .int(24, u32::try_from(MAX_PROGRAMS).unwrap_or(0));
    // SAFETY: `ids` is alive and writable, and its true length is given.
    unsafe { bpf("bpf(BPF_PROG_QUERY)", PROG_QUERY, &mut attribute) }?;
    let count = usize::try_from(attribute.read_int(24)).unwrap_or(0).min(MAX_PROGRAMS);
    Ok(ids[..count].to_vec())
}

/// A handle on a loaded program. Needs CAP_SYS_ADMIN.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attribute = Attribute::zeroed().int(0, id);
    // SAFETY: no pointers.
    unsafe { bpf("bpf(BPF_PROG_GET_FD_BY_ID)", PROG_GET_FD_BY_ID, &mut attribute) }.map(own)
}

/// Attaches a device program to a cgroup2 directory, beside those of its ancestors; in place of `replaced` in one step,
/// if given.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let flags = if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI };
    let mut attribute =
        Attribute::zeroed().fd(0, cgroup).fd(4, program).int(8, ATTACH_CGROUP_DEVICE).int(12, flags);
    if let Some(replaced) = replaced {
        attribute = attribute.fd(16, replaced);
    }
    // SAFETY: no pointers; every fd is borrowed.
    unsafe { bpf("bpf(BPF_PROG_ATTACH)", PROG_ATTACH, &mut attribute) }.map(drop)
}

/// Detaches a device program from a cgroup2 directory.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attribute = Attribute::zeroed().fd(0, cgroup).fd(4, program).int(8, ATTACH_CGROUP_DEVICE);
    // SAFETY: no pointers; every fd is borrowed.
    unsafe { bpf("bpf(BPF_PROG_DETACH)", PROG_DETACH, &mut attribute) }.map(drop)
}
