//! cgroup v1, each controller in its own folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ketch_shim_api::cgroup1 as api;

use super::{Folder, NO_LIMIT, device, number};

/// cpuacct.stat counts hundredths of a second, whatever the kernel's own tick is.
const NANOS_OF_TICK: u64 = 10_000_000;

pub(super) fn metrics(folders: &BTreeMap<String, PathBuf>) -> api::Metrics {
    let folder = |controller: &str| folders.get(controller).map(|folder| Folder(folder));
    api::Metrics {
        hugetlb: folder("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: folder("pids").map(pids),
        cpu: Some(api::CpuStat {
            usage: folder("cpuacct").map(cpu_usage),
            throttling: folder("cpu").map(throttling),
        }),
        memory: folder("memory").map(memory),
        blkio: folder("blkio").map(blkio),
        rdma: folder("rdma").map(|folder| api::RdmaStat {
            current: rdma(&folder.text("rdma.current")),
            limit: rdma(&folder.text("rdma.max")),
        }),
        network: Vec::new(),
        cgroup_stats: None,
        memory_oom_control: folder("memory").map(oom_control),
    }
}

fn pids(folder: Folder<'_>) -> api::PidsStat {
    let limit = folder.number("pids.max");
    api::PidsStat { current: folder.number("pids.current"), limit: if limit == NO_LIMIT { 0 } else { limit } }
}

fn cpu_usage(folder: Folder<'_>) -> api::CpuUsage {
    let table = folder.table("cpuacct.stat");
    let nanos = |name: &str| table.get(name).copied().unwrap_or(0).saturating_mul(NANOS_OF_TICK);
    api::CpuUsage {
        total: folder.number("cpuacct.usage"),
        kernel: nanos("system"),
        user: nanos("user"),
        per_cpu: folder.text("cpuacct.usage_percpu").split_whitespace().map(number).collect(),
    }
}

fn throttling(folder: Folder<'_>) -> api::Throttle {
    let table = folder.table("cpu.stat");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::Throttle {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    }
}

fn memory(folder: Folder<'_>) -> api::MemoryStat {
    let table = folder.table("memory.stat");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::MemoryStat {
        cache: value("cache"),
        rss: value("rss"),
        rss_huge: value("rss_huge"),
        mapped_file: value("mapped_file"),
        dirty: value("dirty"),
        writeback: value("writeback"),
        pg_pg_in: value("pgpgin"),
        pg_pg_out: value("pgpgout"),
        pg_fault: value("pgfault"),
        pg_maj_fault: value("pgmajfault"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        hierarchical_memory_limit: value("hierarchical_memory_limit"),
        hierarchical_swap_limit: value("hierarchical_memsw_limit"),
        total_cache: value("total_cache"),
        total_rss: value("total_rss"),
        total_rss_huge: value("total_rss_huge"),
        total_mapped_file: value("total_mapped_file"),
        total_dirty: value("total_dirty"),
        total_writeback: value("total_writeback"),
        total_pg_pg_in: value("total_pgpgin"),
        total_pg_pg_out: value("total_pgpgout"),
        total_pg_fault: value("total_pgfault"),
        total_pg_maj_fault: value("total_pgmajfault"),
        total_inactive_anon: value("total_inactive_anon"),
        total_active_anon: value("total_active_anon"),
        total_inactive_file: value("total_inactive_file"),
        total_active_file: value("total_active_file"),
        total_unevictable: value("total_unevictable"),
        usage: Some(entry(folder, "memory")),
        swap: Some(entry(folder, "memory.memsw")),
        kernel: Some(entry(folder, "memory.kmem")),
        kernel_tcp: Some(entry(folder, "memory.kmem.tcp")),
    }
}

fn entry(folder: Folder<'_>, prefix: &str) -> api::MemoryEntry {
    api::MemoryEntry {
        limit: folder.number(&format!("{prefix}.limit_in_bytes")),
        usage: folder.number(&format!("{prefix}.usage_in_bytes")),
        max: folder.number(&format!("{prefix}.max_usage_in_bytes")),
        failcnt: folder.number(&format!("{prefix}.failcnt")),
    }
}

fn oom_control(folder: Folder<'_>) -> api::MemoryOomControl {
    let table = folder.table("memory.oom_control");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::MemoryOomControl {
        oom_kill_disable: value("oom_kill_disable"),
        under_oom: value("under_oom"),
        oom_kill: value("oom_kill"),
    }
}

/// What the disk's scheduler counts where it does, else what the throttling counts.
fn blkio(folder: Folder<'_>) -> api::BlkIoStat {
    let first = |names: [&str; 3]| {
        names
            .into_iter()
            .map(|name| entries(&folder.text(name)))
            .find(|all| !all.is_empty())
            .unwrap_or_default()
    };
    let scheduler = |name: &str| {
        first([
            &format!("blkio.bfq.{name}_recursive"),
            &format!("blkio.{name}_recursive"),
            &format!("blkio.{name}"),
        ])
    };
    let or_throttled = |name: &str| {
        let counted = scheduler(name);
        if counted.is_empty() {
            return first([
                &format!("blkio.throttle.{name}_recursive"),
                &format!("blkio.throttle.{name}"),
                &format!("blkio.{name}"),
            ]);
        }
        counted
    };
    api::BlkIoStat {
        io_service_bytes_recursive: or_throttled("io_service_bytes"),
        io_serviced_recursive: or_throttled("io_serviced"),
        io_queued_recursive: scheduler("io_queued"),
        io_service_time_recursive: scheduler("io_service_time"),
        io_wait_time_recursive: scheduler("io_wait_time"),
        io_merged_recursive: scheduler("io_merged"),
        io_time_recursive: scheduler("time"),
        sectors_recursive: scheduler("sectors"),
    }
}

/// `8:0 Read 4096`, or without an operation; the line of totals belongs to no device.
fn entries(text: &str) -> Vec<api::BlkIoEntry> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, op, value) = match fields.as_slice() {
            [name, op, value] => (name, *op, value),
            [name, value] => (name, "", value),
            _ => return None,
        };
        let (major, minor) = device(name)?;
        Some(api::BlkIoEntry { op: op.to_owned(), device: String::new(), major, minor, value: number(value) })
    };
    text.lines().filter_map(entry).collect()
}

fn rdma(text: &str) -> Vec<api::RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects)| api::RdmaEntry { device, hca_handles, hca_objects };
    super::rdma(text).map(entry).collect()
}

fn hugetlb(folder: Folder<'_>) -> Vec<api::HugetlbStat> {
    let sizes = folder.names_between("hugetlb.", ".usage_in_bytes");
    sizes
        .into_iter()
        .map(|pagesize| api::HugetlbStat {
            usage: folder.number(&format!("hugetlb.{pagesize}.usage_in_bytes")),
            max: folder.number(&format!("hugetlb.{pagesize}.max_usage_in_bytes")),
            failcnt: folder.number(&format!("hugetlb.{pagesize}.failcnt")),
            pagesize,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_by_device_and_operation() {
        let all = entries("8:0 Read 4096\n8:0 Write 1\n8:16 7\nTotal 4097\n");
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].op.as_str(), all[0].major, all[0].value), ("Read", 8, 4096));
        assert_eq!((all[2].op.as_str(), all[2].minor, all[2].value), ("", 16, 7));
    }

    #[test]
    fn a_whole_set_of_controllers() {
        let folder = std::env::temp_dir().join(format!("ketch-shim-legacy-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpuacct.usage", "99\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpuacct.usage_percpu", "40 59 \n"),
            ("memory.stat", "cache 1\ntotal_rss 4096\n"),
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 5\nTotal 5\n"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let all = ["pids", "cpuacct", "cpu", "memory", "blkio"];
        let folders = all.into_iter().map(|name| (name.to_owned(), folder.clone())).collect();
        let metrics = metrics(&folders);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(metrics.pids.unwrap(), api::PidsStat { current: 3, limit: 0 });
        let usage = metrics.cpu.unwrap().usage.unwrap();
        assert_eq!((usage.total, usage.user, usage.per_cpu), (99, 20_000_000, vec![40, 59]));
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.total_rss, memory.usage.unwrap().usage), (4096, 8192));
        assert_eq!(metrics.memory_oom_control.unwrap().oom_kill, 4);
        assert_eq!(metrics.blkio.unwrap().io_service_bytes_recursive[0].value, 5);
    }
}
