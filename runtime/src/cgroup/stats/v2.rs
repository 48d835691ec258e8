//! Statistics of cgroup v2, a function per controller (kernel: Documentation/admin-guide/cgroup-v2.rst), under v1's
//! names.

use super::super::{CgroupError, Group};
use super::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, huge_page_sizes,
    parse,
};

pub(super) fn stats(group: &Group) -> Result<Stats, CgroupError> {
    let mut stats = Stats {
        cpu: cpu(group)?,
        memory: memory(group)?,
        pids: pids(group)?,
        blkio: io(group)?,
        ..Stats::default()
    };
    for size in huge_page_sizes() {
        if let Some(hugetlb) = hugetlb(group, &size)? {
            stats.hugetlb.insert(size, hugetlb);
        }
    }
    Ok(stats)
}

/// cpu.stat is there even without the controller. Its times are microseconds.
fn cpu(group: &Group) -> Result<Cpu, CgroupError> {
    let stat = group.flat_keyed("cpu.stat")?;
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    let time = |key: &str| value(key).saturating_mul(1000);
    Ok(Cpu {
        usage: CpuUsage {
            total: time("usage_usec"),
            kernel: time("system_usec"),
            user: time("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: time("throttled_usec"),
        },
        psi: group.pressure("cpu.pressure")?,
    })
}

fn memory(group: &Group) -> Result<Memory, CgroupError> {
    let raw = group.flat_keyed("memory.stat")?;
    let usage = memory_entry(group, "memory")?;
    let swap = memory_entry(group, "memory.swap")?;
    // v1 counts memory and swap together. Their peaks can't be added: they need not have been at one time.
    let limit = if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(usage.limit) };
    let swap = MemoryEntry { usage: swap.usage.saturating_add(usage.usage), limit, max: 0, ..swap };
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        psi: group.pressure("memory.pressure")?,
        ..Memory::default()
    })
}

fn memory_entry(group: &Group, name: &str) -> Result<MemoryEntry, CgroupError> {
    let value = |suffix| group.number_or_zero(&format!("{name}.{suffix}"));
    Ok(MemoryEntry { usage: value("current")?, limit: value("max")?, max: value("peak")?, failcnt: 0 })
}

/// Without the controller the processes are counted, or the threads of a threaded cgroup.
fn pids(group: &Group) -> Result<Pids, CgroupError> {
    if let Some(current) = group.number_if_present("pids.current")? {
        let limit = group.number("pids.max")?;
        return Ok(Pids { current, limit: if limit == u64::MAX { 0 } else { limit } });
    }
    let procs = match group.read("cgroup.procs") {
        Err(error) if error.errno() == Some(ketch_sys::Errno::EOPNOTSUPP) => group.read("cgroup.threads")?,
        other => other?,
    };
    Ok(Pids { current: procs.lines().count() as u64, limit: 0 })
}

fn io(group: &Group) -> Result<Blkio, CgroupError> {
    let mut blkio = Blkio { psi: group.pressure("io.pressure")?, ..Blkio::default() };
    for entry in parse::io_stat(&group.read_if_present("io.stat")?.unwrap_or_default()) {
        let (table, op) = match entry.op.as_str() {
            "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
            "rios" => (&mut blkio.io_serviced_recursive, "Read"),
            "wios" => (&mut blkio.io_serviced_recursive, "Write"),
            _ => continue,
        };
        table.push(BlkioEntry { op: op.to_owned(), ..entry });
    }
    Ok(blkio)
}

/// Reservations where the kernel counts them, else use.
fn hugetlb(group: &Group, size: &str) -> Result<Option<Hugetlb>, CgroupError> {
    let reserved = group.number_if_present(&format!("hugetlb.{size}.rsvd.current"))?;
    let usage = match reserved {
        None => group.number_if_present(&format!("hugetlb.{size}.current"))?,
        reserved => reserved,
    };
    let Some(usage) = usage else {
        return Ok(None);
    };
    let events = group.flat_keyed(&format!("hugetlb.{size}.events"))?;
    Ok(Some(Hugetlb { usage, max: 0, failcnt: events.get("max").copied().unwrap_or(0) }))
}
