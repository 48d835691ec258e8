//! `ketch restore`: the flags are there, because podman probes them; the deed is not yet.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Global, Operands, Subcommand};

#[derive(Debug, Args)]
#[allow(dead_code, reason = "parsed so that a wrong line is refused as such")]
pub(super) struct Restore {
    /// unix socket that is sent the master of the console
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// directory of the image files of criu
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// directory for criu's work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// allow open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// allow unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// allow a job of a shell
    #[arg(long)]
    shell_job: bool,
    /// allow file locks
    #[arg(long)]
    file_locks: bool,
    /// cgroups: soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// bundle directory
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// do not wait for the process
    #[arg(long, short)]
    detach: bool,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// do not become the parent of orphaned processes
    #[arg(long)]
    no_subreaper: bool,
    /// do not use pivot_root
    #[arg(long)]
    no_pivot: bool,
    /// make this namespace without its contents
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// leave out memory that an earlier image has
    #[arg(long)]
    auto_dedup: bool,
    /// restore memory lazily, by userfaultfd
    #[arg(long)]
    lazy_pages: bool,
    /// security profile, TYPE:NAME
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// security context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Restore {
    const NAME: &'static str = "restore";
    const ABOUT: &'static str = "restore a container from a checkpoint (not supported yet)";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, _: &Global) -> Result<u8, CliError> {
        Err(CliError::text("restore is not supported yet"))
    }
}
