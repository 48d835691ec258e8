//! What a container has used, in two numbers: for whoever looks at many of them, again and again.

use ketch_shim_api::wire::Any;
use ketch_shim_api::{cgroup1, cgroup2};

use super::container::Container;
use crate::error::{Error, Result};

/// Of what its cgroup does not count nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Nanoseconds of all processors.
    pub cpu: Option<u64>,
    /// Bytes, as `docker stats` shows them: without files that the kernel has read and can drop.
    pub memory: Option<u64>,
}

/// Of one that runs; none of one that does not.
///
/// # Errors
/// What the shim says can't be read.
pub async fn used(container: &Container) -> Result<Option<Used>> {
    let runs = container.read(|record| record.state.running && !record.state.restarting);
    let Some(task) = container.task().filter(|_| runs) else { return Ok(None) };
    match task.stats().await {
        Ok(metrics) => decode(&metrics).map(Some),
        // It has just ended.
        Err(_) => Ok(None),
    }
}

fn decode(metrics: &Any) -> Result<Used> {
    let failed = |error| Error::internal("reading the shim's metrics", &error);
    if let Some(metrics) = metrics.unpack::<cgroup2::Metrics>().map_err(failed)? {
        return Ok(Used {
            cpu: metrics.cpu.map(|cpu| cpu.usage_usec.saturating_mul(1000)),
            memory: metrics.memory.map(|memory| memory.usage.saturating_sub(memory.inactive_file)),
        });
    }
    let metrics = metrics.unpack::<cgroup1::Metrics>().map_err(failed)?.unwrap_or_default();
    let of_memory =
        |memory: cgroup1::MemoryStat| Some(memory.usage?.usage.saturating_sub(memory.total_inactive_file));
    Ok(Used {
        cpu: metrics.cpu.and_then(|cpu| cpu.usage).map(|usage| usage.total),
        memory: metrics.memory.and_then(of_memory),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_read_and_what_is_not_counted_is_not_known() {
        let usage = Some(cgroup1::MemoryEntry { usage: 9, ..Default::default() });
        let memory = cgroup1::MemoryStat { usage, total_inactive_file: 2, ..Default::default() };
        let metrics = cgroup1::Metrics { memory: Some(memory), ..Default::default() };
        assert_eq!(decode(&Any::pack(&metrics)).unwrap(), Used { cpu: None, memory: Some(7) });
        let memory = cgroup2::MemoryStat { usage: 5, inactive_file: 6, ..Default::default() };
        let cpu = cgroup2::CpuStat { usage_usec: 3, ..Default::default() };
        let metrics = cgroup2::Metrics { memory: Some(memory), cpu: Some(cpu), ..Default::default() };
        assert_eq!(decode(&Any::pack(&metrics)).unwrap(), Used { cpu: Some(3000), memory: Some(0) });
    }
}
