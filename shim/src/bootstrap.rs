//! `start`: what containerd says to a shim that it starts, in every form it has had, and the birth of the serving process.
//! Nothing may be written to stderr when all goes well: containerd reads it as part of the answer.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ketch_shim_api::bootstrap::{BootstrapParams, BootstrapResult};
use ketch_shim_api::wire::Any;
use prost::Message;

use crate::arguments::Arguments;
use crate::error::ShimError;
use crate::options::RuntimeConfig;
use crate::socket::{self, Claimed};
use crate::spec::Spec;
use crate::{cgroup, container};

/// More than any options; a stdin without end must not fill the memory.
const LONGEST: u64 = 10 << 20;
/// The environment variable with the address of containerd's ttrpc socket.
pub(crate) const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// What a shim executes to be another process of its own. By name it would be none once an update has replaced the file, and
/// shims run for as long as their pods.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// How containerd wants to hear the shim's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Before 1.7: the address, bare.
    Plain,
    /// Before 2.3: JSON. Version 2, since 1.7 takes no other, and nothing tells it from 2.0 to 2.2.
    Json,
    /// From 2.3 on: BootstrapResult, version 3.
    Protobuf,
}

/// What containerd said.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    pub answer: Answer,
    pub options: Option<Any>,
    /// containerd's gRPC socket.
    pub address: String,
    /// containerd's ttrpc socket; empty for the one of the environment.
    pub ttrpc_address: String,
    /// Where the shim's socket belongs.
    pub socket_folder: PathBuf,
    pub debug: bool,
}

impl Bootstrap {
    /// Understands the bytes on stdin. They are BootstrapParams only if these name the id and namespace of the command
    /// line: as such can the bytes of an Any be read, too, which is what older versions send, and what has no name.
    ///
    /// # Errors
    /// They are neither.
    pub fn decode(input: &[u8], arguments: &Arguments, speaks_json: bool) -> Result<Self, ShimError> {
        let plain = Self {
            answer: if speaks_json { Answer::Json } else { Answer::Plain },
            options: None,
            address: arguments.address.clone(),
            ttrpc_address: String::new(),
            socket_folder: socket::DEFAULT_FOLDER.into(),
            debug: arguments.debug,
        };
        if input.is_empty() {
            return Ok(plain);
        }
        match BootstrapParams::decode(input) {
            Ok(params) if params.instance_id == arguments.id && params.namespace == arguments.namespace => {
                let folder = params.socket_dir.filter(|folder| !folder.is_empty());
                Ok(Self {
                    answer: Answer::Protobuf,
                    options: params.extensions.into_iter().filter_map(|one| one.value).find(is_options),
                    address: params.containerd_grpc_address,
                    ttrpc_address: params.containerd_ttrpc_address,
                    socket_folder: folder.map_or_else(|| socket::DEFAULT_FOLDER.into(), PathBuf::from),
                    debug: arguments.debug || params.log_level < 0,
                })
            }
            _ => {
                let options = Any::decode(input)
                    .map_err(|source| ShimError::Decode { what: "the options on stdin", source })?;
                Ok(Self { options: Some(options), ..plain })
            }
        }
    }
}

/// Extensions may be of anything; these are ours.
fn is_options(any: &Any) -> bool {
    use ketch_shim_api::options::{Options, RuntimeOptions};
    any.is::<Options>() || any.is::<RuntimeOptions>()
}

impl Answer {
    /// The bytes that say where the shim is.
    pub fn encode(self, address: &str) -> Vec<u8> {
        match self {
            Self::Plain => address.into(),
            Self::Json => serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"})
                .to_string()
                .into_bytes(),
            Self::Protobuf => {
                let mut result = BootstrapResult { version: 3, ..BootstrapResult::default() };
                address.clone_into(&mut result.address);
                "ttrpc".clone_into(&mut result.protocol);
                result.encode_to_vec()
            }
        }
    }
}

/// The name that the shim was started by.
pub(crate) fn program_name() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name()
        .map_or_else(|| "containerd-shim-ketch-v2".into(), |name| name.to_string_lossy().into_owned())
}

/// The runtime that a shim of this name executes unless told otherwise: `containerd-shim-<runtime>-v2`.
pub(crate) fn default_runtime() -> String {
    runtime_of(&program_name())
}

fn runtime_of(program: &str) -> String {
    let name = program.strip_prefix("containerd-shim-").and_then(|rest| rest.rsplit_once('-'));
    name.map_or("ketch", |(name, _version)| name).to_owned()
}

/// The action `start`, in the bundle, where the flags name one, or else where it is: prints the address of the shim that will
/// hold the container.
///
/// # Errors
/// The bundle or what containerd said can't be read, or the serving process can't be started.
pub fn start(arguments: &Arguments) -> Result<(), ShimError> {
    if let Some(bundle) = &arguments.bundle {
        std::env::set_current_dir(bundle).map_err(ShimError::file("enter", bundle))?;
    }
    let mut input = Vec::new();
    std::io::stdin()
        .take(LONGEST)
        .read_to_end(&mut input)
        .map_err(ShimError::system("read what containerd says on stdin"))?;
    let speaks_json = std::env::var("MAX_SHIM_VERSION").is_ok_and(|version| version.as_str() >= "2");
    let asked = Bootstrap::decode(&input, arguments, speaks_json)?;
    let config = RuntimeConfig::decode(asked.options.as_ref())?;
    let spec = Spec::read(Path::new("."))?;
    let group = spec.group(&arguments.id);
    let path = socket::path(&asked.socket_folder, &asked.address, &arguments.namespace, group);
    let address = format!("unix://{}", path.display());
    let (listener, takeover) = match socket::claim(&path)? {
        Claimed::Alive => (None, false),
        Claimed::New(listener) => (Some(listener), false),
        Claimed::TakenOver(listener) => (Some(listener), true),
    };
    let born = match listener {
        Some(listener) => spawn(arguments, &asked, listener.into(), takeover).map(Some),
        None => Ok(None),
    };
    let mut born = born.inspect_err(|_| {
        if !takeover {
            let _gone = std::fs::remove_file(&path);
        }
    })?;
    let noted = note(&born, &asked, &config, &address);
    if let (Err(_), Some(child)) = (&noted, &mut born) {
        // Nobody would ever find it. The socket of one whose containers run stays: by it the next takes them over.
        end(child);
        if !takeover {
            let _gone = std::fs::remove_file(&path);
        }
    }
    noted?;
    std::io::stdout()
        .write_all(&asked.answer.encode(&address))
        .map_err(ShimError::system("tell containerd the address"))
}

/// Makes the serving process known in the bundle.
fn note(
    born: &Option<Child>,
    asked: &Bootstrap,
    config: &RuntimeConfig,
    address: &str,
) -> Result<(), ShimError> {
    if let Some(child) = born {
        settle(child, config)?;
    }
    if asked.options.is_some() {
        // A sandbox is told of them nowhere else.
        container::write_options(Path::new(""), config)?;
    }
    // Where containerd 1.6 looks for it after a restart.
    let file = Path::new("address");
    std::fs::write(file, address).map_err(ShimError::file("write", file))
}

/// The serving process: this program again, its socket as standard input.
fn spawn(
    arguments: &Arguments,
    asked: &Bootstrap,
    socket: OwnedFd,
    takeover: bool,
) -> Result<Child, ShimError> {
    let program = std::env::current_exe().map_err(ShimError::system("find this program"))?;
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
        create_core_scheduling_cookie(rustix::process::getpid(), CoreSchedulingScope::ProcessGroup)
            .map_err(ShimError::system("make a core scheduling cookie"))?;
    }
    let mut command = Command::new(program);
    command.arg0(program_name());
    command.args(["-namespace", &arguments.namespace, "-id", &arguments.id, "-address", &asked.address]);
    if asked.debug {
        command.arg("-debug");
    }
    if takeover {
        command.arg("-takeover");
    }
    if !asked.ttrpc_address.is_empty() {
        command.env(TTRPC_ADDRESS, &asked.ttrpc_address);
    }
    command.stdin(socket).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().map_err(ShimError::system("start the serving process"))
}

/// Puts the serving process where it belongs before anything relies on it.
fn settle(child: &Child, config: &RuntimeConfig) -> Result<(), ShimError> {
    if !config.shim_cgroup.is_empty() {
        cgroup::join(&config.shim_cgroup, child.id())?;
    }
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    if let Ok(score) = score.trim().parse::<i32>() {
        // One above containerd's: it is killed last. Where that is not allowed it has containerd's own.
        let file = format!("/proc/{}/oom_score_adj", child.id());
        let _kept = std::fs::write(file, (score + 1).min(1000).to_string());
    }
    Ok(())
}

fn end(child: &mut Child) {
    let _gone = child.kill();
    let _reaped = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_shim_api::bootstrap::Extension;
    use ketch_shim_api::options::Options;

    fn arguments() -> Arguments {
        let (namespace, id, address) = ("default".into(), "a".into(), "/run/c.sock".into());
        Arguments { namespace, id, address, ..Arguments::default() }
    }

    fn options() -> Any {
        Any::pack(&Options { binary_name: "crun".into(), ..Options::default() })
    }

    #[test]
    fn no_input_is_a_version_without_options() {
        let asked = Bootstrap::decode(b"", &arguments(), false).unwrap();
        assert_eq!((asked.answer, asked.options), (Answer::Plain, None));
    }

    #[test]
    fn an_any_is_the_options_of_a_version_before_2_3() {
        let asked = Bootstrap::decode(&options().encode_to_vec(), &arguments(), true).unwrap();
        assert_eq!(asked.answer, Answer::Json);
        assert_eq!(asked.options, Some(options()));
        assert_eq!(asked.address, "/run/c.sock");
    }

    #[test]
    fn bootstrap_params_bring_everything() {
        let params = BootstrapParams {
            instance_id: "a".into(),
            namespace: "default".into(),
            log_level: -4,
            containerd_ttrpc_address: "/t".into(),
            containerd_grpc_address: "/g".into(),
            extensions: vec![
                Extension { value: Some(Any { type_url: "x.Y".into(), value: vec![1] }) },
                Extension { value: Some(options()) },
            ],
            socket_dir: Some("/s".into()),
            ..BootstrapParams::default()
        };
        let asked = Bootstrap::decode(&params.encode_to_vec(), &arguments(), true).unwrap();
        assert_eq!(asked.answer, Answer::Protobuf);
        assert_eq!(asked.options, Some(options()));
        assert_eq!((asked.address.as_str(), asked.ttrpc_address.as_str()), ("/g", "/t"));
        assert_eq!(asked.socket_folder, Path::new("/s"));
        assert!(asked.debug);
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert!(matches!(Bootstrap::decode(b"\xff\xff", &arguments(), true), Err(ShimError::Decode { .. })));
    }

    #[test]
    fn the_answers() {
        assert_eq!(Answer::Plain.encode("unix:///s"), b"unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&Answer::Json.encode("unix:///s")).unwrap();
        assert_eq!(json, serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"}));
        let result = BootstrapResult::decode(Answer::Protobuf.encode("unix:///s").as_slice()).unwrap();
        assert_eq!((result.version, result.address.as_str()), (3, "unix:///s"));
    }

    #[test]
    fn the_name_says_the_runtime() {
        assert_eq!(runtime_of("containerd-shim-ketch-v2"), "ketch");
        assert_eq!(runtime_of("containerd-shim-runc-v2"), "runc");
        assert_eq!(runtime_of("something"), "ketch");
    }
}
