//! cgroup v2: where a container goes, and the value of every file, controller by controller.
//!
//! Pure. Kernel: Documentation/admin-guide/cgroup-v2.rst. Called by [`super::plan`] and [`super::limits`]. Resources
//! that v2 has no file for (swappiness, realtime, leaf weights, network classes) are ignored, as runc does.

use crate::spec::resources::{BlockIo, Cpu, Memory, Resources};

use super::layout::{CgroupLayout, InnerPath};
use super::{
    CgroupPlanError, GroupPlan, Inherit, Join, MemoryCheck, Tolerate, When, Write, hugetlb, nonzero,
    pids_max, rdma,
};

/// The one directory.
pub(super) fn groups(inner: &InnerPath, layout: &CgroupLayout) -> Result<Vec<GroupPlan>, CgroupPlanError> {
    let hierarchy = layout.hierarchy("").ok_or(CgroupPlanError::NoCgroupMount)?;
    Ok(vec![GroupPlan {
        controllers: hierarchy.controllers.clone(),
        mountpoint: hierarchy.mountpoint.clone(),
        path: inner.place(hierarchy)?,
        join: Join::Required,
        inherit: Inherit::Nothing,
        before_join: Vec::new(),
    }])
}

/// Every value, in the order in which runc writes them; `unified` last, so that it wins.
pub(super) fn writes(resources: &Resources) -> Result<Vec<Write>, CgroupPlanError> {
    let mut writes = Vec::new();
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        writes.push(Write::new("pids", "pids.max", pids_max(limit)));
    }
    if let Some(limits) = &resources.memory {
        memory(limits, &mut writes)?;
    }
    if let Some(block_io) = &resources.block_io {
        io(block_io, &mut writes);
    }
    if let Some(limits) = &resources.cpu {
        cpu(limits, &mut writes);
        for (file, value) in [("cpuset.cpus", &limits.cpus), ("cpuset.mems", &limits.mems)] {
            if !value.is_empty() {
                writes.push(Write::new("cpuset", file, value));
            }
        }
    }
    hugetlb(resources, "max", &mut writes);
    rdma(resources, &mut writes);
    for (file, value) in resources.unified.iter() {
        if file.contains('/') {
            return Err(CgroupPlanError::UnifiedIsPath { file: file.to_owned() });
        }
        let controller = file.split_once('.').map_or("", |(controller, _)| controller);
        writes.push(Write::new(controller, file, value).tolerate(Tolerate::NothingOfUnified));
    }
    Ok(writes)
}

/// The limits of `memory.checkBeforeUpdate`.
pub(super) fn memory_check(resources: &Resources) -> Option<MemoryCheck> {
    let memory = resources.memory.as_ref()?;
    let positive =
        |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|&value| value > 0);
    let check = MemoryCheck { memory: positive(memory.limit), memory_and_swap: positive(memory.swap) };
    (memory.check_before_update == Some(true) && check != MemoryCheck::default()).then_some(check)
}

fn memory(memory: &Memory, writes: &mut Vec<Write>) -> Result<(), CgroupPlanError> {
    let size = |value: i64| if value == -1 { "max".to_owned() } else { value.to_string() };
    if let Some(swap) = swap_max(memory)? {
        let value = size(swap);
        // Without swap accounting there is no swap to limit to nothing, or to leave unlimited.
        let tolerate = if swap <= 0 { Tolerate::Absent } else { Tolerate::Nothing };
        writes.push(Write::new("memory", "memory.swap.max", value).tolerate(tolerate));
    }
    if let Some(limit) = nonzero(memory.limit) {
        writes.push(Write::new("memory", "memory.max", size(limit)));
    }
    if let Some(reservation) = nonzero(memory.reservation) {
        writes.push(Write::new("memory", "memory.low", size(reservation)));
    }
    Ok(())
}

/// v1 and the specification count memory and swap together, v2 apart. -1 means unlimited.
pub(super) fn swap_max(memory: &Memory) -> Result<Option<i64>, CgroupPlanError> {
    match (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0)) {
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (-1, swap) => Ok(Some(swap)),
        (0, _) => Err(CgroupPlanError::SwapWithoutMemory),
        (limit, _) if limit < 0 => Err(CgroupPlanError::NegativeMemory { value: limit }),
        (limit, swap) if swap < limit => Err(CgroupPlanError::SwapBelowMemory),
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

fn cpu(cpu: &Cpu, writes: &mut Vec<Write>) {
    let write = |file, value: &dyn ToString| Write::new("cpu", file, value.to_string());
    writes.extend(cpu.idle.map(|idle| write("cpu.idle", &idle)));
    writes.extend(cpu.shares.and_then(weight).map(|weight| write("cpu.weight", &weight)));
    let (quota, period) = (nonzero(cpu.quota), nonzero(cpu.period));
    let burst = cpu.burst.map(|burst| write("cpu.max.burst", &burst));
    // A burst can be too much for the old quota and fit the new one.
    let tolerate = if quota.is_some() { Tolerate::Rejected } else { Tolerate::Nothing };
    writes.extend(burst.clone().map(|burst| burst.tolerate(tolerate)));
    if quota.is_some() || period.is_some() {
        let quota_text =
            quota.filter(|&quota| quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        // The kernel's default period, in microseconds.
        let period = period.unwrap_or(100_000);
        writes.push(write("cpu.max", &format!("{quota_text} {period}")));
        writes.extend(burst.filter(|_| quota.is_some()).map(|burst| burst.when(When::Rejected)));
    }
}

/// `cpu.shares` (2 to 262144, default 1024) as `cpu.weight` (1 to 10000, default 100): the curve through those three
/// pairs that runc and crun agreed on in 2025, exponent = (l² + 125 l) / 612 - 7/34 with l = log2(shares).
pub(super) fn weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

/// `blockIO.weight` (10 to 1000) as `io.weight` (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn io(block_io: &BlockIo, writes: &mut Vec<Write>) {
    if let Some(weight) = nonzero(block_io.weight) {
        // BFQ's file takes the specification's scale, 10 to 1000; io.weight's is 1 to 10000.
        writes.push(Write::new("io", "io.bfq.weight", weight).tolerate(Tolerate::Absent));
        writes.push(
            Write::new("io", "io.weight", io_weight(weight)).when(When::Absent("io.bfq.weight".to_owned())),
        );
    }
    for device in &block_io.weight_device {
        let line = format!("{}:{} {}", device.major, device.minor, device.weight.unwrap_or(0));
        writes.push(Write::new("io", "io.bfq.weight", line).tolerate(Tolerate::Absent));
    }
    for (key, devices) in [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            let line = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
            writes.push(Write::new("io", "io.max", line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::UNIFIED_MOUNTINFO;
    use super::super::tests::{request, texts};
    use super::super::{PathOrigin, plan};
    use super::*;

    fn parse(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    fn planned(json: &str) -> Vec<String> {
        texts(&writes(&parse(json)).unwrap())
    }

    fn failure(json: &str) -> String {
        writes(&parse(json)).unwrap_err().to_string()
    }

    #[test]
    fn one_group() {
        let layout = CgroupLayout::parse(UNIFIED_MOUNTINFO, "0::/\n");
        let resources = Resources::default();
        let made = plan(&request(&resources, Some("/a/b")), &layout).unwrap();
        assert_eq!((made.groups.len(), made.path), (1, PathOrigin::Asked));
        assert_eq!(made.groups[0].path, "/sys/fs/cgroup/a/b");
        assert_eq!(made.groups[0].controllers, [""]);
    }

    #[test]
    fn swap_is_counted_apart() {
        let swap = |json| planned(&format!(r#"{{"memory":{json}}}"#));
        assert_eq!(swap(r#"{"limit":5}"#), ["memory.max=5"]);
        assert_eq!(swap(r#"{"limit":5,"swap":7}"#), ["memory.swap.max=2", "memory.max=5"]);
        assert_eq!(swap(r#"{"limit":5,"swap":5}"#), ["memory.swap.max=0 ~absent", "memory.max=5"]);
        assert_eq!(swap(r#"{"limit":5,"swap":-1}"#), ["memory.swap.max=max ~absent", "memory.max=5"]);
        assert_eq!(swap(r#"{"limit":-1}"#), ["memory.swap.max=max ~absent", "memory.max=max"]);
        assert_eq!(swap(r#"{"limit":-1,"swap":9}"#), ["memory.swap.max=9", "memory.max=max"]);
        assert_eq!(swap(r#"{"reservation":-1,"swappiness":3}"#), ["memory.low=max"]);
        assert_eq!(failure(r#"{"memory":{"swap":5}}"#), "unable to set swap limit without memory limit");
        assert_eq!(failure(r#"{"memory":{"swap":5,"limit":-2}}"#), "invalid memory value: -2");
        assert_eq!(
            failure(r#"{"memory":{"swap":5,"limit":6}}"#),
            "memory+swap limit should be >= memory limit"
        );
    }

    #[test]
    fn checks_before_update() {
        let check = |json| memory_check(&parse(&format!(r#"{{"memory":{json}}}"#)));
        assert_eq!(check(r#"{"limit":5,"swap":7}"#), None);
        assert_eq!(check(r#"{"limit":-1,"swap":0,"checkBeforeUpdate":true}"#), None);
        assert_eq!(
            check(r#"{"limit":5,"swap":-1,"checkBeforeUpdate":true}"#),
            Some(MemoryCheck { memory: Some(5), memory_and_swap: None })
        );
    }

    #[test]
    fn cpu_files() {
        assert_eq!(
            planned(
                r#"{"cpu":{"shares":3333,"quota":40000,"period":50000,"burst":5,"cpus":"0-1","realtimePeriod":5}}"#
            ),
            [
                "cpu.weight=256",
                "cpu.max.burst=5 ~rejected",
                "cpu.max=40000 50000",
                "cpu.max.burst=5 ?rejected",
                "cpuset.cpus=0-1",
            ]
        );
        assert_eq!(
            planned(r#"{"cpu":{"quota":-1,"idle":1,"shares":0}}"#),
            ["cpu.idle=1", "cpu.max=max 100000"]
        );
        assert_eq!(planned(r#"{"cpu":{"period":5000,"burst":1}}"#), ["cpu.max.burst=1", "cpu.max=max 5000"]);
    }

    #[test]
    fn weights_meet_the_three_fixed_points() {
        let weights: Vec<_> = [1, 2, 3, 1024, 262_143, 262_144, u64::MAX].into_iter().map(weight).collect();
        assert_eq!(weights, [1, 1, 2, 100, 10_000, 10_000, 10_000].map(Some));
        assert_eq!(weight(0), None);
        assert!(
            (3..262_144).step_by(97).collect::<Vec<_>>().windows(2).all(|w| weight(w[0]) <= weight(w[1]))
        );
    }

    #[test]
    fn io_files() {
        assert_eq!(
            planned(
                r#"{"blockIO":{"weight":750,"leafWeight":9,
                    "weightDevice":[{"major":8,"minor":0,"weight":30}],
                    "throttleReadBpsDevice":[{"major":8,"minor":1,"rate":1}],
                    "throttleWriteBpsDevice":[{"major":8,"minor":1,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":3}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":4}]}}"#
            ),
            [
                "io.bfq.weight=750 ~absent",
                "io.weight=7475 ?absent(io.bfq.weight)",
                "io.bfq.weight=8:0 30 ~absent",
                "io.max=8:1 rbps=1",
                "io.max=8:1 wbps=2",
                "io.max=8:1 riops=3",
                "io.max=8:1 wiops=4",
            ]
        );
    }

    #[test]
    fn unified_comes_last_and_in_order() {
        let resources = r#"{"pids":{"limit":5},"unified":{"pids.max":"7","memory.low":"1"},
            "hugepageLimits":[{"pageSize":"2MB","limit":4}],"network":{"classID":1}}"#;
        assert_eq!(
            planned(resources),
            [
                "pids.max=5",
                "hugetlb.2MB.max=4",
                "hugetlb.2MB.rsvd.max=4 ~absent",
                "pids.max=7 ~unified",
                "memory.low=1 ~unified"
            ]
        );
        assert_eq!(
            failure(r#"{"unified":{"../x.y":"1"}}"#),
            r#"unified resource "../x.y" must be a file name (no slashes)"#
        );
    }
}
