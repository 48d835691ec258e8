//! Writes the manual pages and the shells' completions, from the very types that parse the command line.
//!
//! `manual <folder>` makes `man1/` and `completions/` in it. For `make man completions`; never part of the binary, and the
//! two crates that it needs are development dependencies.

use std::path::PathBuf;
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder =
        PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: manual <folder>"))?);
    let (man, completions) = (folder.join("man1"), folder.join("completions"));
    #[allow(clippy::disallowed_methods, reason = "the caller's own folder on the host")]
    for folder in [&man, &completions] {
        fs::create_dir_all(folder)?;
    }
    clap_mangen::generate_to(ketch::cli::command(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut ketch::cli::command(), "ketch", &completions)?;
    }
    Ok(())
}
