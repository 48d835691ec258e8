//! A folder of an engine on a small disk of its own, which a test fills and makes room on again.
//!
//! The disk is a tmpfs in the engine's site, and goes with it. Called by `ketchd_full` and `mesh_full`.

use super::Engine;
use crate::site::Site;

/// Makes the folder, and a small disk in it.
///
/// # Panics
/// When it can't be mounted.
pub fn mount(site: &Site<'_>, folder: &str) {
    let place = site.path(folder);
    std::fs::create_dir_all(&place).expect("make the folder");
    let _ = site.run("mount", ["-t", "tmpfs", "-o", "size=600m", "small", &place.to_string_lossy()]).ok();
}

/// Has the disk be full, without writing to it: it gets no bigger than what it holds.
///
/// # Panics
/// When its size can't be changed.
pub fn fill(engine: &Engine<'_>, folder: &str) {
    let script = r#"
        set -e
        # No bound at all would be a size of nothing.
        echo >$0/filler
        used=$(df --output=used -B 4096 $0 | tail -n 1)
        mount -o remount,size=$((used * 4096)) $0
        # What is free within the last page, and in files' holes.
        dd if=/dev/zero of=$0/filler oflag=append conv=notrunc bs=4096 count=64 2>/dev/null || true
    "#;
    let _ = engine.program("sh").args(["-c", script]).arg(engine.site.path(folder)).run().ok();
}

/// Gives the disk its first size again.
///
/// # Panics
/// When its size can't be changed.
pub fn make_room(engine: &Engine<'_>, folder: &str) {
    let script = "mount -o remount,size=600m $0 && rm -f $0/filler";
    let _ = engine.program("sh").args(["-c", script]).arg(engine.site.path(folder)).run().ok();
}

/// Whether a text tells of a disk that is full.
#[must_use]
pub fn says_full(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("no space left on device") || text.contains("disk quota exceeded")
}
