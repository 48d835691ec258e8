//! `ketch list`: the containers below the root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, print, table};
use crate::container::{Container, StateView};

#[derive(Debug, Args)]
pub(super) struct List {
    /// select one of: table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// display only container IDs
    #[arg(long, short)]
    quiet: bool,
}

impl Subcommand for List {
    const NAME: &'static str = "list";
    const ABOUT: &'static str = "lists containers started by ketch with the given root";
    const OPERANDS: Operands = Operands::NONE;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let views = views(global)?;
        if self.quiet {
            return print(&views.iter().map(|view| format!("{}\n", view.id)).collect::<String>());
        }
        match self.format.as_str() {
            "table" => print(&table::lay_out(&rows(&views))),
            // Go's word for a list that was never made.
            "json" if views.is_empty() => print("null\n"),
            "json" => print(&format!("{}\n", serde_json::to_string(&views)?)),
            _ => Err(CliError::text("invalid format option")),
        }
    }
}

fn views(global: &Global) -> Result<Vec<StateView>, CliError> {
    match fs::metadata(&global.root) {
        // Nothing was ever created there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !global.root_is_explicit => {
            return Ok(Vec::new());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CliError::text(format!("open {}: no such file or directory", global.root.display())));
        }
        _ => {}
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut views = Vec::new();
    for (name, container) in Container::list(&global.root)? {
        match container.and_then(|container| Ok((container.view()?, container))) {
            Ok((mut view, container)) => {
                // The folder goes away when another command deletes the container meanwhile.
                if let Ok(folder) = fs::metadata(container.dir()) {
                    view.owner = owner(&users, folder.uid());
                    views.push(view);
                }
            }
            Err(error) => eprintln!("load container {name}: {}", crate::error::chain(&error)),
        }
    }
    Ok(views)
}

fn rows(views: &[StateView]) -> Vec<Vec<String>> {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec()];
    rows.extend(views.iter().map(|view| {
        vec![
            view.id.clone(),
            view.pid.to_string(),
            view.status.to_string(),
            view.bundle.clone(),
            view.created.clone(),
            view.owner.clone(),
        ]
    }));
    rows
}

/// The user's name in the lines of passwd(5), else `#` and the number. The C library is not asked: in a static program it
/// would load modules of another one.
fn owner(passwd: &str, uid: u32) -> String {
    let number = uid.to_string();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("#{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_names_where_passwd_has_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/:/bin/false\n";
        assert_eq!(owner(passwd, 0), "root");
        assert_eq!(owner(passwd, 33), "web");
        assert_eq!(owner(passwd, 1000), "#1000");
        assert_eq!(owner("", 5), "#5");
    }
}
