//! `--version`.
//!
//! go-runc reads the version from a first line that begins with `runc version `, and dockerd from any line that holds
//! `version` and one that begins with `commit:`; runc's own tests want the three lines in this order. So the first line
//! states the runc whose behaviour this is, with ketch's version as its build metadata, and a line of our own ends it.

use crate::spec::OCI_VERSION;

/// The runc release whose command line and behaviour this program has.
const RUNC: &str = "1.5.0";

/// `RUNC`, marked as ketch's.
pub(crate) fn compatible() -> String {
    format!("{RUNC}+ketch.{}", env!("CARGO_PKG_VERSION"))
}

/// The commit that was built, when the build said so.
pub(crate) fn commit() -> &'static str {
    option_env!("KETCH_COMMIT").unwrap_or("unknown")
}

pub(super) fn text() -> String {
    format!(
        "runc version {}\ncommit: {}\nspec: {OCI_VERSION}\nketch: {}\n",
        compatible(),
        commit(),
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// go-runc: `strings.HasPrefix(parts[0], "runc version ")`, then `commit: ` and `spec: ` on lines of their own.
    #[test]
    fn go_runc_reads_it() {
        let text = text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("runc version 1.5.0+ketch."));
        assert!(lines[1].starts_with("commit: "));
        assert_eq!(lines[2], "spec: 1.3.0");
    }

    /// dockerd takes the name and version from each line with the word `version`: there has to be one such line.
    #[test]
    fn dockerd_finds_one_version_line() {
        assert_eq!(text().lines().filter(|line| line.contains("version")).count(), 1);
    }
}
