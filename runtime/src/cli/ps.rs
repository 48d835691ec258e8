//! `ketch ps`: the processes of the container.

use std::process::{Command, Stdio};

use clap::Args;

use super::argv::Flags;
use super::{CliError, Global, Operands, Subcommand, load, print};

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// select one of: table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    format: String,
    #[arg(value_name = "container-id")]
    id: String,
    #[arg(value_name = "ps options")]
    options: Vec<String>,
}

impl Subcommand for Ps {
    const NAME: &'static str = "ps";
    const ABOUT: &'static str = "ps displays the processes running inside a container";
    const OPERANDS: Operands = Operands {
        usage: "<container-id> [ps options]",
        least: 1,
        most: usize::MAX,
        flags: Flags::BeforeOperands,
    };
    const DESCRIPTION: &'static str =
        "The table is ps(1)'s, by default with -ef, less the processes of others.";

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let pids = load(global, &self.id)?.processes()?;
        match self.format.as_str() {
            "table" => print(&select(&ps(&self.options)?, &pids)?),
            // Go's word for a list that was never made.
            "json" if pids.is_empty() => print("null\n"),
            "json" => print(&format!("{}\n", serde_json::to_string(&pids)?)),
            _ => Err(CliError::text("invalid format option")),
        }
    }
}

/// What ps(1) prints about every process of the host.
fn ps(options: &[String]) -> Result<String, CliError> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let output = Command::new("ps").args(options).stdin(Stdio::null()).output().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            CliError::text("exec: \"ps\": executable file not found in $PATH")
        } else {
            CliError::from(error)
        }
    })?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(CliError::text(format!("{}: {}", output.status, String::from_utf8_lossy(&text))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The title, and the lines whose PID is one of `pids`.
fn select(table: &str, pids: &[i32]) -> Result<String, CliError> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| CliError::text("couldn't find PID field in ps output"))?;
    let mut selected = format!("{title}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = field
            .parse()
            .map_err(|error| CliError::text(format!("unable to parse pid: {field:?}: {error}")))?;
        if pids.contains(&pid) {
            selected.push_str(line);
            selected.push('\n');
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_selected_by_pid() {
        let table = "UID   PID  CMD\nroot    1  init\nroot   12  sh -c 1\n\n";
        assert_eq!(select(table, &[12]).unwrap(), "UID   PID  CMD\nroot   12  sh -c 1\n");
        assert_eq!(select(table, &[]).unwrap(), "UID   PID  CMD\n");
    }

    #[test]
    fn a_table_without_pids_is_an_error() {
        let error = select("CMD\nsh\n", &[1]).unwrap_err();
        assert_eq!(error.to_string(), "couldn't find PID field in ps output");
    }
}
