//! Statistics of cgroup v1, a function per controller (kernel: Documentation/admin-guide/cgroup-v1/).

use super::super::{Cgroup, CgroupError, Group};
use super::{
    Blkio, BlkioEntry, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling,
    huge_page_sizes, parse,
};

/// `cpuacct.stat` counts in USER_HZ ticks, which the kernel's interface fixes at 100 a second.
const NANOSECONDS_OF_TICK: u64 = 10_000_000;

pub(super) fn stats(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    let group = |controller| cgroup.group(controller);
    if let Some(group) = group("cpu") {
        stats.cpu.throttling = throttling(group)?;
    }
    if let Some(group) = group("cpuacct") {
        stats.cpu.usage = cpu_usage(group)?;
    }
    if let Some(group) = group("cpuset") {
        stats.cpuset = cpuset(group)?;
    }
    if let Some(group) = group("memory") {
        stats.memory = memory(group)?;
    }
    if let Some(group) = group("pids") {
        let limit = group.number("pids.max")?;
        let limit = if limit == u64::MAX { 0 } else { limit };
        stats.pids = Pids { current: group.number("pids.current")?, limit };
    }
    if let Some(group) = group("blkio") {
        stats.blkio = blkio(group)?;
    }
    if let Some(group) = group("hugetlb") {
        for size in huge_page_sizes() {
            stats.hugetlb.insert(size.clone(), hugetlb(group, &size)?);
        }
    }
    Ok(stats)
}

fn throttling(group: &Group) -> Result<Throttling, CgroupError> {
    let stat = group.flat_keyed("cpu.stat")?;
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    Ok(Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    })
}

fn cpu_usage(group: &Group) -> Result<CpuUsage, CgroupError> {
    const PERCPU: &str = "cpuacct.usage_percpu";
    const ALL: &str = "cpuacct.usage_all";
    let stat = group.flat_keyed("cpuacct.stat")?;
    let ticks = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(NANOSECONDS_OF_TICK);
    let percpu = group.read(PERCPU)?;
    let percpu: Option<Vec<u64>> = percpu.split_whitespace().map(parse::number).collect();
    let mut usage = CpuUsage {
        total: group.number("cpuacct.usage")?,
        percpu: percpu.ok_or_else(|| group.malformed(PERCPU, ""))?,
        percpu_kernel: Vec::new(),
        percpu_user: Vec::new(),
        kernel: ticks("system"),
        user: ticks("user"),
    };
    // A header, then "cpu user system" for each.
    for line in group.read_if_present(ALL)?.unwrap_or_default().lines().skip(1) {
        let mut fields = line.split(' ').skip(1).map(parse::number);
        match (fields.next().flatten(), fields.next().flatten()) {
            (Some(user), Some(kernel)) => {
                usage.percpu_user.push(user);
                usage.percpu_kernel.push(kernel);
            }
            _ => return Err(group.malformed(ALL, line)),
        }
    }
    Ok(usage)
}

fn cpuset(group: &Group) -> Result<Cpuset, CgroupError> {
    let list = |file| {
        let content = group.read_if_present(file)?.unwrap_or_default();
        parse::list(&content).ok_or_else(|| group.malformed(file, content.trim()))
    };
    let flag = |file| group.number_or_zero(file);
    let level = group.read_if_present("cpuset.sched_relax_domain_level")?.unwrap_or_default();
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    })
}

fn memory(group: &Group) -> Result<Memory, CgroupError> {
    let raw = group.flat_keyed("memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: memory_entry(group, "memory")?,
        swap: memory_entry(group, "memory.memsw")?,
        kernel: memory_entry(group, "memory.kmem")?,
        kernel_tcp: memory_entry(group, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// Swap, kernel memory and the latter's limit are not in every kernel.
fn memory_entry(group: &Group, name: &str) -> Result<MemoryEntry, CgroupError> {
    let value = |suffix| group.number_or_zero(&format!("{name}.{suffix}"));
    Ok(MemoryEntry {
        usage: value("usage_in_bytes")?,
        max: value("max_usage_in_bytes")?,
        failcnt: value("failcnt")?,
        limit: value("limit_in_bytes")?,
    })
}

/// Which family of files counts depends on the I/O scheduler and on the kernel: the first whose first file has entries.
fn blkio(group: &Group) -> Result<Blkio, CgroupError> {
    let read = |file: String| -> Result<Vec<BlkioEntry>, CgroupError> {
        let content = group.read_if_present(&file)?.unwrap_or_default();
        parse::blkio(&content).map_err(|line| group.malformed(&file, line))
    };
    for family in ["blkio.bfq", "blkio"] {
        let file = |name: &str| read(format!("{family}.{name}_recursive"));
        let sectors = file("sectors")?;
        if sectors.is_empty() {
            continue;
        }
        return Ok(Blkio {
            sectors_recursive: sectors,
            io_service_time_recursive: file("io_service_time")?,
            io_wait_time_recursive: file("io_wait_time")?,
            io_merged_recursive: file("io_merged")?,
            io_queue_recursive: file("io_queued")?,
            io_time_recursive: file("time")?,
            io_serviced_recursive: file("io_serviced")?,
            io_service_bytes_recursive: file("io_service_bytes")?,
            psi: None,
        });
    }
    for (family, suffix) in
        [("blkio.bfq", "_recursive"), ("blkio.throttle", "_recursive"), ("blkio.throttle", "")]
    {
        let serviced = read(format!("{family}.io_serviced{suffix}"))?;
        if !serviced.is_empty() {
            let bytes = read(format!("{family}.io_service_bytes{suffix}"))?;
            return Ok(Blkio {
                io_serviced_recursive: serviced,
                io_service_bytes_recursive: bytes,
                ..Blkio::default()
            });
        }
    }
    Ok(Blkio::default())
}

/// Reservations where the kernel counts them, else use.
fn hugetlb(group: &Group, size: &str) -> Result<Hugetlb, CgroupError> {
    let prefix = match group.number_if_present(&format!("hugetlb.{size}.rsvd.usage_in_bytes"))? {
        Some(_) => format!("hugetlb.{size}.rsvd"),
        None => format!("hugetlb.{size}"),
    };
    Ok(Hugetlb {
        usage: group.number(&format!("{prefix}.usage_in_bytes"))?,
        max: group.number(&format!("{prefix}.max_usage_in_bytes"))?,
        failcnt: group.number(&format!("{prefix}.failcnt"))?,
    })
}
