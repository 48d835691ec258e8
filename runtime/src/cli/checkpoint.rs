//! `ketch checkpoint`: a container's processes, saved to a folder.

use std::path::{Path, PathBuf};

use clap::Args;

use super::create::given;
use super::global::absolute;
use super::{CliError, Global, Operands, Subcommand};
use crate::checkpoint::{CheckpointRequest, Extent};
use crate::container::Container;
use crate::plan::criu::{CgroupsMode, Final, PageServer, SharedFlags, empty_namespaces};
use crate::spec::ContainerId;

/// Where images are when `--image-path` does not say: in the working directory.
const DEFAULT_IMAGES: &str = "checkpoint";

/// What `checkpoint` and `restore` share: a restore has to be told what its checkpoint was told.
#[derive(Debug, Args)]
pub(super) struct CriuFlags {
    /// directory of criu's image files [default: ./checkpoint]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// directory for criu's log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// take open TCP connections along
    #[arg(long)]
    tcp_established: bool,
    /// allow unix sockets whose other end is outside of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// allow processes of a session, or with a terminal, of outside of the container
    #[arg(long)]
    shell_job: bool,
    /// take file locks along
    #[arg(long)]
    file_locks: bool,
    /// settings of cgroups: soft (of those that the restore makes), full (of all), strict (none may exist), or ignore (as
    /// config.json has them) [default: soft]
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// make this namespace without its contents; only network, which is always so
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// take pages out of earlier images that a later one has as well
    #[arg(long)]
    auto_dedup: bool,
    /// leave memory where it is until a page is touched (userfaultfd)
    #[arg(long)]
    lazy_pages: bool,
}

impl CriuFlags {
    /// The folder of images and that of the log.
    pub(super) fn folders(&self) -> Result<(PathBuf, Option<PathBuf>), CliError> {
        let images = given(self.image_path.as_deref()).unwrap_or(Path::new(DEFAULT_IMAGES));
        Ok((absolute(images)?, given(self.work_path.as_deref()).map(absolute).transpose()?))
    }

    pub(super) fn shared(&self) -> Result<SharedFlags, CliError> {
        empty_namespaces(&self.empty_ns)?;
        Ok(SharedFlags {
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroups_mode: CgroupsMode::parse(self.manage_cgroups_mode.as_deref())?,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    criu: CriuFlags,
    /// directory of an earlier --pre-dump, relative to --image-path: only memory that has changed since is saved
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// let the container run on afterwards
    #[arg(long)]
    leave_running: bool,
    /// leave TCP connections out that are only being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// give files that were deleted while open a name for the time of the checkpoint
    #[arg(long)]
    link_remap: bool,
    /// descriptor that is sent a zero byte once a lazy page server can be asked
    #[arg(long, value_name = "FD", default_value_t = -1)]
    status_fd: i32,
    /// send memory to a page server, or with --lazy-pages be one there
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// save memory alone, for a later checkpoint to be faster; the container runs on
    #[arg(long)]
    pre_dump: bool,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const ABOUT: &'static str = "checkpoint a running container";
    const OPERANDS: Operands = Operands::ID;
    const DESCRIPTION: &'static str = "Saves the processes of a running or paused container to a folder, by criu (which must \
be on PATH), and removes the container.\n\"restore\" brings it back, also under another id, on another machine. Its files \
are not saved: the root file system\nand what is bound into it are the caller's to move.\n\nWhen criu fails, the container \
runs on, and the last errors of dump.log are shown.\n\nMemory first, while it works; then the rest:\n   \
checkpoint --pre-dump --image-path first ID\n   \
checkpoint --image-path last --parent-path ../first ID";

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let (images, work) = self.criu.folders()?;
        let request = CheckpointRequest {
            images,
            work,
            parent: given(self.parent_path.as_deref()).map(Path::to_owned),
            extent: if self.pre_dump { Extent::Memory } else { Extent::Whole },
            processes: if self.leave_running { Final::Running } else { Final::Killed },
            shared: self.criu.shared()?,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            page_server: self
                .page_server
                .as_deref()
                .filter(|text| !text.is_empty())
                .map(PageServer::parse)
                .transpose()?,
            status_fd: (self.status_fd != -1).then_some(self.status_fd),
        };
        Container::checkpoint(&global.root, &ContainerId::new(&self.id)?, &request)?;
        Ok(0)
    }
}
