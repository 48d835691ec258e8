//! `docker top`: ps(1) of the host, and of its lines those of the container.

use std::process::Stdio;
use std::sync::Arc;

use ketch_engine_api::container::Top;
use tokio::process::Command;

use super::container::Container;
use super::signal;
use crate::compat;
use crate::error::{Error, Kind, Result};

/// Runs ps with these arguments.
///
/// # Errors
/// The container does not run, there is no ps, or its output has no PID column.
pub async fn top(container: &Arc<Container>, arguments: &str) -> Result<Top> {
    let arguments = if arguments.is_empty() { "-ef" } else { arguments };
    check(arguments)?;
    let task = signal::running(container)?;
    if container.read(|record| record.state.restarting) {
        return Err(Error::conflict(compat::is_restarting(&container.id)));
    }
    let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("ps: {error}"));
    let pids = task.pids().await.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    let output = Command::new("ps")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(failed(&words.lines().next().unwrap_or_default()));
    }
    parse(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// ps may write files and run for ever by some options; those are refused as Docker does.
fn check(arguments: &str) -> Result<()> {
    for word in arguments.split_whitespace() {
        let fields = word.split_once('=').filter(|_| word.contains("pid"));
        if fields.is_some_and(|(key, value)| key.ends_with("pid") && value != "PID" && !value.is_empty()) {
            return Err(Error::invalid(format!("specifying \"{word}\" is not allowed")));
        }
    }
    Ok(())
}

fn parse(text: &str, pids: &[u32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| Error::new(Kind::Internal, "Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(pid) = words.get(column).and_then(|word| word.parse::<u32>().ok()) else { continue };
        if pids.contains(&pid) {
            // The last column may have spaces of its own.
            let (first, last) = words.split_at(titles.len().min(words.len()).saturating_sub(1));
            let mut fields: Vec<String> = first.iter().map(|&word| word.to_owned()).collect();
            fields.push(last.join(" "));
            processes.push(fields);
        }
    }
    Ok(Top { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_container() {
        let text = "UID PID CMD\nroot 1 init\nroot 7 sh -c a\n";
        let top = parse(text, &[7]).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "7", "sh -c a"]]);
        assert!(parse("A B\n", &[]).is_err());
    }
}
