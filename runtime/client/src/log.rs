//! The runtime's log (`--log-format json`): an object in each line, the last error of which is why a call failed. Several
//! calls write to one file, so a reader begins where its own call did.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

/// More than a runtime's errors; what is beyond it is not read.
const LONGEST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The size of the log, where the next call's lines begin.
pub(crate) fn end(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The last error below `start`; none if there is none, or no log.
pub(crate) fn last_error(path: &Path, start: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    last_error_in(&text)
}

/// A line that is no object is passed over: debug output of whom the runtime calls may be between.
fn last_error_in(text: &[u8]) -> Option<String> {
    text.split(|byte| *byte == b'\n')
        .rev()
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .find(|line| line.level == "error")
        .map(|line| line.msg.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_counts() {
        let text = br#"{"level":"error","msg":"first","time":"2026-11-25T00:00:00Z"}
{"level":"warning","msg":"w","time":"2026-11-25T00:00:00Z"}
{"level":"error","msg":"second\n","time":"2026-11-25T00:00:00Z"}
not json
{"level":"info","msg":"i"}
"#;
        assert_eq!(last_error_in(text).as_deref(), Some("second"));
    }

    #[test]
    fn no_error_is_none() {
        assert_eq!(last_error_in(b""), None);
        assert_eq!(last_error_in(br#"{"level":"info","msg":"x"}"#), None);
        assert_eq!(last_error_in(b"[1,2]\n\xff"), None);
    }
}
