//! The binary `containerd-shim-ketch-v2`: see `containerd_shim_ketch::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    containerd_shim_ketch::run()
}
