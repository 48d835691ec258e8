//! `-info` and `-v`: what this shim and its runtime are.

use std::io::{Read, Write};
use std::time::Duration;

use ketch_runtime_client::Runtime;
use ketch_shim_api::types::{RuntimeInfo, RuntimeVersion};
use ketch_shim_api::wire::Any;
use prost::Message;

use crate::bootstrap::{default_runtime, program_name};
use crate::error::ShimError;
use crate::options::RuntimeConfig;
use crate::reaper::Reaper;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name of a runtime's features inside an Any; its value is their JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const PATIENCE: Duration = Duration::from_secs(10);

/// `-v`.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn print_version() -> Result<(), ShimError> {
    writeln!(std::io::stdout(), "{}:\n  Version:  {VERSION}", program_name())
        .map_err(ShimError::system("write the version"))
}

/// `-info`: options on stdin, a RuntimeInfo on stdout. A runtime without `features` has none.
///
/// # Errors
/// The options can't be read, or the runtime is not there.
pub(crate) fn print() -> Result<(), ShimError> {
    let mut input = Vec::new();
    std::io::stdin().take(1 << 20).read_to_end(&mut input).map_err(ShimError::system("read the options"))?;
    let options =
        Any::decode(input.as_slice()).map_err(|source| ShimError::Decode { what: "the options", source })?;
    let config = RuntimeConfig::decode(Some(&options))?;
    let name = default_runtime();
    let binary = if config.binary_name.is_empty() { name.clone() } else { config.binary_name };
    let info = RuntimeInfo {
        name: format!("io.containerd.{name}.v2"),
        version: Some(RuntimeVersion { version: VERSION.to_owned(), revision: String::new() }),
        options: (!input.is_empty()).then_some(options),
        features: features(&binary)?.map(|value| Any { type_url: FEATURES.to_owned(), value }),
        annotations: std::collections::BTreeMap::new(),
    };
    std::io::stdout().write_all(&info.encode_to_vec()).map_err(ShimError::system("write the information"))
}

fn features(binary: &str) -> Result<Option<Vec<u8>>, ShimError> {
    let runtime =
        Runtime { binary: binary.into(), root: "/".into(), log: "/dev/null".into(), systemd_cgroup: false };
    let events = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShimError::system("start the event loop"))?;
    let reaper = Reaper::default();
    let answer = events.block_on(async {
        tokio::select! {
            answer = runtime.features(&reaper, PATIENCE) => Some(answer),
            _ended = reaper.run() => None,
        }
    });
    match answer {
        Some(Ok(json)) => Ok(Some(json)),
        Some(Err(error @ ketch_runtime_client::RuntimeError::Start { .. })) => {
            Err(ShimError::runtime("find the runtime")(error))
        }
        Some(Err(_)) | None => Ok(None),
    }
}
