//! The pages of the running program that are as they are in its file.

use std::ffi::c_void;
use std::ptr;

use rustix::io;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// `Elf64_Ehdr` (elf(5)), up to what is read of it.
#[repr(C)]
struct Header {
    identity: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments_offset: u64,
    sections_offset: u64,
    flags: u32,
    header_size: u16,
    segment_size: u16,
    segments: u16,
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

const LOADED: u32 = 1;
const WRITABLE: u32 = 2;

unsafe extern "C" {
    /// The program's own first bytes: ld(1) and lld define the name where the headers are loaded.
    static __ehdr_start: Header;
}

/// Takes the program's code and constants out of this process's memory. They stay in the kernel's cache of the file, for
/// which they weigh nothing more, and come back, 64 KiB at a time, when they are touched. Returns how many bytes were let go.
///
/// # Errors
/// `EINVAL` for a program that is locked in memory (mlockall(2)).
pub fn release_program() -> io::Result<usize> {
    let start = &raw const __ehdr_start;
    let mut released = 0;
    let segments = loaded_segments();
    // Where address 0 of the file's own count has come to lie.
    let Some(first) = segments.iter().find(|segment| segment.offset == 0) else { return Ok(0) };
    for segment in segments.iter().filter(|segment| segment.flags & WRITABLE == 0) {
        let page = page_size();
        let from = as_size(segment.address - first.address);
        let (begin, end) = (from / page * page, (from + as_size(segment.memory_size)).next_multiple_of(page));
        let pages = start.wrapping_byte_add(begin).cast_mut().cast::<c_void>();
        // SAFETY: the pages are those of a segment that is mapped from the program's file without the right to write, so that
        // no relocation and no store has changed them: what is read after the call is what was read before it. Segments of
        // other rights, and what is read-only only since its relocation (PT_GNU_RELRO lies in a writable one), begin on
        // pages of their own.
        unsafe { madvise(pages, end - begin, Advice::LinuxDontNeed)? };
        released += end - begin;
    }
    Ok(released)
}

fn loaded_segments() -> Vec<Segment> {
    let header = &raw const __ehdr_start;
    // SAFETY: the linker puts the header there, in memory that is mapped for as long as the process lives and never written to.
    let (offset, count) = unsafe { ((*header).segments_offset, (*header).segments) };
    let table = header.wrapping_byte_add(as_size(offset)).cast::<Segment>();
    (0..usize::from(count))
        // SAFETY: the header says where the table is and how many entries it has; the table belongs to the loaded headers
        // (PT_PHDR). It need not be aligned for this.
        .map(|index| unsafe { ptr::read_unaligned(table.wrapping_add(index)) })
        .filter(|segment| segment.kind == LOADED)
        .collect()
}

/// Of a program that is in memory, so that nothing in it is larger than an address.
fn as_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests: a failure ends the test")]
    use super::*;

    static WORDS: &str = "still here";

    #[test]
    fn what_was_let_go_comes_back() {
        let writable = loaded_segments().iter().filter(|segment| segment.flags & WRITABLE != 0).count();
        assert!(writable > 0 && writable < loaded_segments().len());
        assert!(release_program().unwrap() > 100_000);
        assert_eq!(std::hint::black_box(WORDS).to_uppercase(), "STILL HERE");
    }
}
