//! `ketch checkpoint`: the flags are there, because podman probes them; the deed is not yet.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Global, Operands, Subcommand};

#[derive(Debug, Args)]
#[allow(dead_code, reason = "parsed so that a wrong line is refused as such")]
pub(super) struct Checkpoint {
    /// directory for the image files of criu
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// directory for criu's work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// image files of an earlier pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// let the process run on
    #[arg(long)]
    leave_running: bool,
    /// allow open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// leave out TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// allow links to files that are gone
    #[arg(long)]
    link_remap: bool,
    /// allow unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// allow a job of a shell
    #[arg(long)]
    shell_job: bool,
    /// restore memory lazily, by userfaultfd
    #[arg(long)]
    lazy_pages: bool,
    /// descriptor to write to once the lazy page server is ready
    #[arg(long, value_name = "FD", default_value_t = -1)]
    status_fd: i32,
    /// ADDRESS:PORT of a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// allow file locks
    #[arg(long)]
    file_locks: bool,
    /// write memory only, and let the container run on
    #[arg(long)]
    pre_dump: bool,
    /// cgroups: soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// make this namespace without its contents
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// leave out memory that an earlier image has
    #[arg(long)]
    auto_dedup: bool,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const ABOUT: &'static str = "checkpoint a running container (not supported yet)";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, _: &Global) -> Result<u8, CliError> {
        Err(CliError::text("checkpoint is not supported yet"))
    }
}
