//! `--pid-file`: readers wait for the file, so it appears whole.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::CliError;
use crate::error::io_text;

/// Writes `pid` to a hidden file beside `path`, and renames that.
pub(super) fn write(path: &Path, pid: i32) -> Result<(), CliError> {
    let failed = |doing: &str, path: &Path, error: std::io::Error| {
        CliError::text(format!("{doing} {}: {}", path.display(), io_text(&error)))
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let hidden = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&hidden)
        .map_err(|error| failed("open", &hidden, error))?;
    file.write_all(pid.to_string().as_bytes()).map_err(|error| failed("write", &hidden, error))?;
    fs::rename(&hidden, path).map_err(|error| failed("rename", &hidden, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_number_alone() {
        let path = std::env::temp_dir().join(format!("ketch-pid-file-{}", std::process::id()));
        write(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
        write(&path, 43).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "43");
        fs::remove_file(&path).unwrap();
    }
}
