//! What ketchd needs that no crate offers safely: how the C library's allocator keeps memory. Called when the daemon's life begins,
//! before its threads do.

/// So many heaps has the process at most. glibc (malloc(3), `M_ARENA_MAX`) gives threads up to eight for each processor, and a heap
/// keeps what its threads have given back: the memory of a burst stays, spread over all of them.
const HEAPS: i32 = 2;

/// Bounds the heaps. Of no effect on a C library that has no such bound.
pub fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers, and may be called at any time; heaps that are there stay.
    let _is_known = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}
