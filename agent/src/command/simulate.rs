//! `ketchd cluster simulate -f FILE [--stack NAME] [--prune]`.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::Method;

use super::{Asked, CommandError, Format};
use crate::stack::{Around, Simulated, Stack};

pub(super) fn answer(asked: &Asked) -> Result<String, CommandError> {
    if !asked.operands.is_empty() {
        return Err(CommandError::Arguments { command: "simulate", wanted: "0 arguments" });
    }
    let file =
        asked.file.as_deref().ok_or_else(|| CommandError::Misuse("flag is needed: --file".to_owned()))?;
    let unreadable = |why: String| CommandError::File { path: file.display().to_string(), why };
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let name = asked.stack.clone().unwrap_or_else(|| name_of(file));
    let stack = Stack::read(&name, &text, &Around { folder, environment: &environment });
    let stack = Stack { prune: asked.prune, ..stack.map_err(|error| unreadable(error.to_string()))? };
    let failed = |error: serde_json::Error| CommandError::Unreadable(error.to_string());
    let body = serde_json::to_vec(&stack).map_err(failed)?;
    let body = asked.host.ask(Method::POST, "/cluster/simulate", body)?;
    let simulated: Simulated = serde_json::from_slice(&body).map_err(failed)?;
    match asked.format {
        Format::Text => Ok(simulated.to_string()),
        Format::Json => serde_json::to_string_pretty(&simulated).map(|text| text + "\n").map_err(failed),
    }
}

/// Of the file, if it has no other.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
    stem.unwrap_or_default().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
