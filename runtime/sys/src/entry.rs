//! The process's very first instructions: the sealed re-exec, before the C library starts.
//!
//! execveat(2), open_tree(2), mount_setattr(2), getauxval(3) `AT_EXECFN`. Least kernel 5.12.
//!
//! `ketch` starts twice where it enters a container: the first life only executes the second one from a read-only
//! detached bind of its own binary. All that the C library and std prepare for the first life is for nothing, and costs
//! more than the seal: about 70 CPUID instructions that a virtual machine traps, relocations, locale, signal stacks; 0.3
//! of 0.45 ms where it was measured. So the linker is told to enter here (`runtime/build.rs`).
//!
//! This is a shortcut and decides nothing: whatever it can't do (another subcommand, an old kernel, no CAP_SYS_ADMIN, no
//! /proc) goes on to the C library's own entry, and `ketch`'s `seal` module verifies the seal, or makes it, in either case.

use std::arch::{asm, global_asm};

use libc::{
    AT_EMPTY_PATH, AT_EXECFN, AT_FDCWD, AT_NULL, MOUNT_ATTR_RDONLY, O_CLOEXEC, O_PATH, OPEN_TREE_CLONE,
};

// The kernel enters with the stack of the x86-64 psABI (3.4.1), 16-byte aligned, and in rdx a function that the C library
// wants to see. r12 keeps it, being the callee's to preserve; the stack is as it was when `_start` gets it.
global_asm!(
    ".globl ketch_entry",
    ".type ketch_entry,@function",
    "ketch_entry:",
    "mov rdi, rsp",
    "mov r12, rdx",
    "call {execute_sealed}",
    "mov rdx, r12",
    "jmp _start",
    ".size ketch_entry, . - ketch_entry",
    execute_sealed = sym execute_sealed,
);

const SELF: &[u8] = b"/proc/self/exe\0";
/// How the kernel names a program that execveat(2) started from a descriptor: the second life, or one that somebody
/// sealed already.
const BY_DESCRIPTOR: &[u8] = b"/dev/fd/";

/// Executes this binary anew from a read-only detached bind, or returns.
///
/// # Safety
/// `stack` is the initial stack of the process: argc, argv, envp and the auxiliary vector. Nothing of the C library may be
/// called, not even memcpy, and no pointer in static data be used, as no relocation is done: hence volatile reads, of
/// which the compiler makes no such call, and no table of strings.
unsafe extern "C" fn execute_sealed(stack: *const usize) {
    // SAFETY: by this function's contract the vectors lie behind each other, argv of `argc` pointers and a null one, envp
    // up to a null one, then pairs up to AT_NULL; each pointer of argv, and AT_EXECFN, is a C string that the kernel wrote.
    let (argv, envp, is_second, enters) = unsafe {
        let argc = stack.read_volatile();
        let argv = stack.add(1);
        let envp = argv.add(argc + 1);
        let mut at = envp;
        while at.read_volatile() != 0 {
            at = at.add(1);
        }
        let mut pair = at.add(1);
        let mut is_second = false;
        while pair.read_volatile() != AT_NULL as usize {
            is_second |= pair.read_volatile() == AT_EXECFN as usize
                && begins(pair.add(1).read_volatile(), BY_DESCRIPTOR);
            pair = pair.add(2);
        }
        let mut enters = false;
        let mut number = 1;
        while number < argc {
            enters |= enters_a_container(argv.add(number).read_volatile());
            number += 1;
        }
        (argv, envp, is_second, enters)
    };
    if is_second || !enters {
        return;
    }
    const EMPTY: &[u8] = b"\0";
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let read_only: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    let empty = EMPTY.as_ptr().addr();
    // Sign-extended, as the kernel takes ints.
    let here = AT_FDCWD as isize as usize;
    let clone = OPEN_TREE_CLONE as usize | O_CLOEXEC as usize | AT_EMPTY_PATH as usize;
    // SAFETY: the strings end in NUL, `read_only` is as long as is said, argv and envp are the kernel's own vectors, and
    // all of them outlive the calls. A failed call leaves at most two close-on-exec descriptors, and nothing else.
    unsafe {
        let exe = call(libc::SYS_openat, [here, SELF.as_ptr().addr(), (O_PATH | O_CLOEXEC) as usize, 0, 0]);
        if exe < 0 {
            return;
        }
        let tree = call(libc::SYS_open_tree, [exe as usize, empty, clone, 0, 0]);
        if tree >= 0 {
            let attributes = read_only.as_ptr().addr();
            let tree_fd = tree as usize;
            let sealed = call(
                libc::SYS_mount_setattr,
                [tree_fd, empty, AT_EMPTY_PATH as usize, attributes, size_of_val(&read_only)],
            );
            if sealed == 0 {
                call(libc::SYS_execveat, [tree_fd, empty, argv.addr(), envp.addr(), AT_EMPTY_PATH as usize]);
            }
            call(libc::SYS_close, [tree_fd, 0, 0, 0, 0]);
        }
        call(libc::SYS_close, [exe as usize, 0, 0, 0, 0]);
    }
}

/// Whether this argument is a subcommand that enters a container. The word in another place seals without need, which
/// is harmless.
///
/// # Safety
/// `argument` is the address of a C string.
unsafe fn enters_a_container(argument: usize) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        begins(argument, b"run\0")
            || begins(argument, b"create\0")
            || begins(argument, b"exec\0")
            || begins(argument, b"restore\0")
    }
}

/// Whether the C string at `text` begins with `wanted`; a NUL at the end of `wanted` makes it the whole string.
///
/// # Safety
/// `text` is the address of a C string.
unsafe fn begins(text: usize, wanted: &[u8]) -> bool {
    let text = text as *const u8;
    let mut at = 0;
    while at < wanted.len() {
        // SAFETY: all bytes before this one were equal to those of `wanted`, of which only the last may be NUL: the
        // string has not ended.
        if unsafe { text.add(at).read_volatile() } != wanted[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A bare system call; what it answers, the error as a negative number.
///
/// # Safety
/// The call's own terms for its arguments.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let answer: isize;
    // SAFETY: the kernel's calling convention for x86-64: rcx and r11 are lost, the stack is not touched.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}
