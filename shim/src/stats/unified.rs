//! cgroup v2.

use ketch_shim_api::cgroup2 as api;

use super::{Folder, device, field, number};

pub(super) fn metrics(folder: &Folder<'_>) -> api::Metrics {
    let folder = *folder;
    api::Metrics {
        pids: Some(api::PidsStat {
            current: folder.number("pids.current"),
            limit: folder.number("pids.max"),
        }),
        cpu: Some(cpu(folder)),
        memory: Some(memory(folder)),
        memory_events: Some(memory_events(folder)),
        rdma: Some(api::RdmaStat {
            current: rdma(&folder.text("rdma.current")),
            limit: rdma(&folder.text("rdma.max")),
        }),
        io: Some(api::IoStat {
            usage: io(&folder.text("io.stat")),
            psi: pressure(&folder.text("io.pressure")),
        }),
        hugetlb: hugetlb(folder),
        network: Vec::new(),
    }
}

fn cpu(folder: Folder<'_>) -> api::CpuStat {
    let table = folder.table("cpu.stat");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::CpuStat {
        usage_usec: value("usage_usec"),
        user_usec: value("user_usec"),
        system_usec: value("system_usec"),
        nr_periods: value("nr_periods"),
        nr_throttled: value("nr_throttled"),
        throttled_usec: value("throttled_usec"),
        psi: pressure(&folder.text("cpu.pressure")),
        nr_bursts: value("nr_bursts"),
        burst_usec: value("burst_usec"),
    }
}

fn memory(folder: Folder<'_>) -> api::MemoryStat {
    let table = folder.table("memory.stat");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::MemoryStat {
        anon: value("anon"),
        file: value("file"),
        kernel_stack: value("kernel_stack"),
        slab: value("slab"),
        sock: value("sock"),
        shmem: value("shmem"),
        file_mapped: value("file_mapped"),
        file_dirty: value("file_dirty"),
        file_writeback: value("file_writeback"),
        anon_thp: value("anon_thp"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        slab_reclaimable: value("slab_reclaimable"),
        slab_unreclaimable: value("slab_unreclaimable"),
        pgfault: value("pgfault"),
        pgmajfault: value("pgmajfault"),
        workingset_refault: value("workingset_refault"),
        workingset_activate: value("workingset_activate"),
        workingset_nodereclaim: value("workingset_nodereclaim"),
        pgrefill: value("pgrefill"),
        pgscan: value("pgscan"),
        pgsteal: value("pgsteal"),
        pgactivate: value("pgactivate"),
        pgdeactivate: value("pgdeactivate"),
        pglazyfree: value("pglazyfree"),
        pglazyfreed: value("pglazyfreed"),
        thp_fault_alloc: value("thp_fault_alloc"),
        thp_collapse_alloc: value("thp_collapse_alloc"),
        usage: folder.number("memory.current"),
        usage_limit: folder.number("memory.max"),
        swap_usage: folder.number("memory.swap.current"),
        swap_limit: folder.number("memory.swap.max"),
        max_usage: folder.number("memory.peak"),
        swap_max_usage: folder.number("memory.swap.peak"),
        psi: pressure(&folder.text("memory.pressure")),
        workingset_refault_anon: value("workingset_refault_anon"),
        workingset_refault_file: value("workingset_refault_file"),
        workingset_activate_anon: value("workingset_activate_anon"),
        workingset_activate_file: value("workingset_activate_file"),
    }
}

fn memory_events(folder: Folder<'_>) -> api::MemoryEvents {
    let table = folder.table("memory.events");
    let value = |name: &str| table.get(name).copied().unwrap_or(0);
    api::MemoryEvents {
        low: value("low"),
        high: value("high"),
        max: value("max"),
        oom: value("oom"),
        oom_kill: value("oom_kill"),
        oom_group_kill: value("oom_group_kill"),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and likewise `full`; none where the kernel counts none.
fn pressure(text: &str) -> Option<api::PsiStats> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let average = |name: &str| field(rest, name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        Some(api::PsiData {
            avg10: average("avg10="),
            avg60: average("avg60="),
            avg300: average("avg300="),
            total: field(rest, "total=").map_or(0, number),
        })
    };
    let (some, full) = (line("some "), line("full "));
    (some.is_some() || full.is_some()).then_some(api::PsiStats { some, full })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn io(text: &str) -> Vec<api::IoEntry> {
    let entry = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let (major, minor) = device(name)?;
        let count = |name: &str| field(rest, name).map_or(0, number);
        Some(api::IoEntry {
            major,
            minor,
            rbytes: count("rbytes="),
            wbytes: count("wbytes="),
            rios: count("rios="),
            wios: count("wios="),
        })
    };
    text.lines().filter_map(entry).collect()
}

fn rdma(text: &str) -> Vec<api::RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects)| api::RdmaEntry { device, hca_handles, hca_objects };
    super::rdma(text).map(entry).collect()
}

fn hugetlb(folder: Folder<'_>) -> Vec<api::HugeTlbStat> {
    let sizes = folder.names_between("hugetlb.", ".current");
    sizes
        .into_iter()
        .map(|pagesize| {
            let events = folder.table(&format!("hugetlb.{pagesize}.events"));
            api::HugeTlbStat {
                current: folder.number(&format!("hugetlb.{pagesize}.current")),
                max: folder.number(&format!("hugetlb.{pagesize}.max")),
                failcnt: events.get("max").copied().unwrap_or(0),
                pagesize,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_of_both_kinds_or_one() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let psi = pressure(text).unwrap();
        let some = psi.some.unwrap();
        assert_eq!((some.avg10, some.avg60, some.total), (1.5, 0.25, 42));
        assert_eq!(psi.full.unwrap().total, 7);
        assert_eq!(pressure(""), None);
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap().full, None);
    }

    #[test]
    fn io_by_device() {
        let entries = io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n259:3 rbytes=7\nbad\n");
        assert_eq!((entries[0].major, entries[0].wbytes, entries[0].wios), (8, 2, 4));
        assert_eq!((entries[1].minor, entries[1].rbytes, entries[1].wbytes), (3, 7, 0));
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn rdma_by_device() {
        let entries = rdma("mlx4_0 hca_handle=2 hca_object=max\n");
        assert_eq!((entries[0].hca_handles, entries[0].hca_objects), (2, u32::MAX));
    }

    #[test]
    fn a_whole_cgroup() {
        let folder = std::env::temp_dir().join(format!("ketch-shim-unified-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 10\nnr_throttled 2\n"),
            ("memory.stat", "anon 4096\npgfault 7\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "1048576\n"),
            ("memory.events", "oom 2\noom_kill 1\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let metrics = metrics(&Folder(&folder));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(metrics.pids.unwrap(), api::PidsStat { current: 3, limit: u64::MAX });
        assert_eq!(metrics.cpu.unwrap().nr_throttled, 2);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.pgfault, memory.usage, memory.usage_limit), (4096, 7, 8192, 1 << 20));
        assert_eq!(metrics.memory_events.unwrap().oom_kill, 1);
        assert_eq!(metrics.hugetlb.len(), 1);
        assert_eq!(metrics.hugetlb[0].pagesize, "2MB");
    }
}
