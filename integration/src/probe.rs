//! Reads what the kernel says of a process and of its namespaces, from the host.

use std::fs;
use std::path::Path;

/// A field of `/proc/<pid>/status`, trimmed.
///
/// # Panics
/// When the process or the field is not there.
#[track_caller]
#[must_use]
pub fn status_field(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read status");
    field_of(&text, field).unwrap_or_else(|| panic!("no {field} in /proc/{pid}/status"))
}

/// A `Name:\tvalue` field in such a text.
#[must_use]
pub fn field_of(text: &str, field: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// The namespace that a process is in, as `kind:[inode]`.
///
/// # Panics
/// When the process is not there.
#[track_caller]
#[must_use]
pub fn namespace_of(pid: i32, file: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{file}"))
        .unwrap_or_else(|e| panic!("/proc/{pid}/ns/{file}: {e}"));
    link.to_string_lossy().into_owned()
}

/// The state letter of a process (`R`, `S`, `Z`, ...), or `None` when it is gone.
#[must_use]
pub fn state_letter(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Whether a process is gone or a zombie.
#[must_use]
pub fn is_dead(pid: i32) -> bool {
    matches!(state_letter(pid), None | Some('Z' | 'X'))
}

/// The trimmed text of a file.
///
/// # Panics
/// When it cannot be read, with its path.
#[track_caller]
#[must_use]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())).trim().to_owned()
}
