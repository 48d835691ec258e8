//! `ketch update`: new limits for a container.

use std::io::Read;
use std::str::FromStr;

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, load, size};
use crate::container::SchemaUpdate;
use crate::log;
use crate::spec::Resources;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids};

/// The largest file of `--resources` that is read.
const MAX_LEN: u64 = 16 << 20;

#[derive(Debug, Default, Args)]
pub(super) struct Update {
    /// file with the resources to change, in the form of config.json's linux.resources, or '-' for stdin; other flags are
    /// left out then
    #[arg(long, short, value_name = "FILE")]
    resources: Option<String>,
    /// block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// CPU period of the quota, in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_period: Option<String>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_quota: Option<String>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_burst: Option<String>,
    /// CPU shares (relative weight)
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<String>,
    /// CPU realtime period, in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_rt_period: Option<String>,
    /// CPU realtime in a period, in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_rt_runtime: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// obsolete
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    /// obsolete
    #[arg(long, hide = true)]
    kernel_memory_tcp: Option<String>,
    /// memory limit in bytes, or with a unit: 512m
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// 1 makes the cgroup run only when the CPU is idle, 0 does not
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<String>,
    /// memory reservation or soft limit in bytes
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// memory and swap together in bytes; -1 for no limit on swap
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// largest number of processes
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// schema of the L3 cache (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// schema of the memory bandwidth (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Update {
    const NAME: &'static str = "update";
    const ABOUT: &'static str = "update container resource constraints";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let mut container = load(global, &self.id)?;
        let update = match self.resources.as_deref() {
            None | Some("") => self.resources_of_flags()?,
            Some(file) => read(file)?,
        };
        if update.memory.as_ref().is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some())
        {
            log::warn("Kernel memory settings are ignored and will be removed");
        }
        let schemas = SchemaUpdate {
            l3_cache: self.l3_cache_schema.as_deref().unwrap_or_default(),
            memory_bandwidth: self.mem_bw_schema.as_deref().unwrap_or_default(),
        };
        container.update(schemas, |resources| resources.apply_update(&update))?;
        Ok(0)
    }
}

impl Update {
    fn resources_of_flags(&self) -> Result<Resources, CliError> {
        Ok(Resources {
            memory: Some(Memory {
                limit: bytes("memory", &self.memory)?,
                swap: bytes("memory-swap", &self.memory_swap)?,
                reservation: bytes("memory-reservation", &self.memory_reservation)?,
                kernel: bytes("kernel-memory", &self.kernel_memory)?,
                kernel_tcp: bytes("kernel-memory-tcp", &self.kernel_memory_tcp)?,
                check_before_update: Some(false),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                burst: number("cpu-burst", &self.cpu_burst)?,
                period: number("cpu-period", &self.cpu_period)?,
                realtime_period: number("cpu-rt-period", &self.cpu_rt_period)?,
                shares: number("cpu-share", &self.cpu_share)?,
                quota: number("cpu-quota", &self.cpu_quota)?,
                realtime_runtime: number("cpu-rt-runtime", &self.cpu_rt_runtime)?,
                idle: number("cpu-idle", &self.cpu_idle)?,
                cpus: self.cpuset_cpus.clone().unwrap_or_default(),
                mems: self.cpuset_mems.clone().unwrap_or_default(),
            }),
            pids: Some(Pids { limit: self.pids_limit }),
            block_io: Some(BlockIo {
                weight: self.blkio_weight.filter(|weight| *weight != 0),
                ..BlockIo::default()
            }),
            ..Resources::default()
        })
    }
}

fn read(file: &str) -> Result<Resources, CliError> {
    let mut json = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(MAX_LEN).read_to_end(&mut json)?;
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(MAX_LEN).read_to_end(&mut json))
            .map_err(|error| CliError::text(format!("open {file}: {}", crate::error::io_text(&error))))?;
    }
    // As in runc, what follows the first JSON value is left alone.
    let mut values = serde_json::Deserializer::from_slice(&json).into_iter();
    let mut resources: Resources =
        values.next().ok_or_else(|| CliError::text("EOF"))?.map_err(CliError::from)?;
    resources.join_cases();
    Ok(resources)
}

fn number<T: FromStr>(flag: &str, text: &Option<String>) -> Result<Option<T>, CliError>
where
    T::Err: std::fmt::Display,
{
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|error| CliError::text(format!("invalid value for {flag}: parsing {text:?}: {error}"))),
    }
}

fn bytes(flag: &str, text: &Option<String>) -> Result<Option<i64>, CliError> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => size::bytes(text)
            .map(Some)
            .ok_or_else(|| CliError::text(format!("invalid value for {flag}: invalid size: '{text}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn absent_flags_change_nothing() {
        let resources = Update::default().resources_of_flags().unwrap();
        assert_eq!(resources.cpu, Some(Cpu::default()));
        assert_eq!(resources.pids, Some(Pids::default()));
        assert_eq!(resources.block_io, Some(BlockIo::default()));
        assert_eq!(resources.memory, Some(Memory { check_before_update: Some(false), ..Memory::default() }));
    }

    #[test]
    fn sizes_numbers_and_no_limit() {
        let update = Update {
            memory: flag("64m"),
            memory_swap: flag("-1"),
            cpu_quota: flag("-1"),
            cpu_idle: flag("1"),
            pids_limit: Some(0),
            ..Update::default()
        };
        let resources = update.resources_of_flags().unwrap();
        let memory = resources.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(-1)));
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.idle), (Some(-1), Some(1)));
        assert_eq!(resources.pids.unwrap().limit, Some(0));
    }

    #[test]
    fn the_flag_is_named_in_errors() {
        let update = Update { memory: flag("lots"), ..Update::default() };
        let error = update.resources_of_flags().unwrap_err();
        assert_eq!(error.to_string(), "invalid value for memory: invalid size: 'lots'");
        let update = Update { cpu_share: flag("-5"), ..Update::default() };
        assert!(
            update.resources_of_flags().unwrap_err().to_string().starts_with("invalid value for cpu-share: ")
        );
    }
}
