//! ketchd's command line: dockerd's, `check` and `cluster`; under the name `docker-init` it is a container's first process,
//! under another one holds a user namespace, and under a third carries connections of published ports.

use std::path::Path;
use std::process::ExitCode;

use ketchd::config::{self, Config};
use ketchd::engine::user_namespace;
use ketchd::flags::{Action, Flags, usage};
use ketchd::network::relay;
use ketchd::{check, command, life};

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().map_or("ketchd".into(), |name| name.to_string_lossy().into_owned());
    if program == "docker-init" {
        return ketchd::init::run(arguments);
    }
    if program == user_namespace::NAME {
        return user_namespace::hold(std::env::args_os().skip(1));
    }
    if program == relay::process::NAME {
        return relay::process::run();
    }
    let mut arguments = arguments.peekable();
    if arguments.next_if(|word| word == "cluster").is_some() {
        return command::run(arguments);
    }
    match act(&program, arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn act(program: &str, arguments: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let flags = Flags::parse(program, arguments)?;
    match flags.action {
        Action::Help => print!("{}", usage(program)),
        Action::Version => println!("Docker version {}, build ketch", ketchd::VERSION),
        Action::Validate => {
            let _config = Config::load(&flags)?;
            eprintln!("configuration OK");
        }
        Action::Check => return Ok(check::run(&Config::load(&flags)?)),
        Action::Run => {
            let config = Config::load(&flags)?;
            config::served(&flags).map_err(|error| format!("failed to start daemon: {error}"))?;
            return life::run(config);
        }
    }
    Ok(ExitCode::SUCCESS)
}
