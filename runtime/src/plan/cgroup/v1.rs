//! cgroup v1: where a container goes in each hierarchy, and the value of every file, controller by controller.
//!
//! Pure. Kernel: Documentation/admin-guide/cgroup-v1/. Called by [`super::plan`] and [`super::limits`].

use crate::spec::resources::{BlockIo, Cpu, Memory, Resources};

use super::layout::{CgroupLayout, CgroupMode, InnerPath};
use super::{
    CgroupPlanError, CgroupRequest, Devices, GroupPlan, Inherit, Join, Tolerate, When, Write, hugetlb,
    nonzero, pids_max, rdma,
};

/// What runc puts a container into, in its order; the empty name is cgroup2 of a hybrid host.
const CONTROLLERS: [(&str, Join); 16] = [
    ("cpuset", Join::Required),
    ("devices", Join::Required),
    ("memory", Join::Required),
    ("cpu", Join::Required),
    ("cpuacct", Join::Required),
    ("pids", Join::Required),
    ("blkio", Join::Required),
    ("hugetlb", Join::Required),
    ("net_cls", Join::Required),
    ("net_prio", Join::Required),
    ("perf_event", Join::Required),
    ("freezer", Join::Required),
    ("rdma", Join::Required),
    ("name=systemd", Join::IfPossible),
    ("misc", Join::IfPossible),
    ("", Join::IfPossible),
];

/// A directory for each hierarchy. A hierarchy that isn't mounted is left out, except that of the device controller:
/// without it a container would not be confined.
pub(super) fn groups(
    inner: &InnerPath,
    layout: &CgroupLayout,
    request: &CgroupRequest<'_>,
) -> Result<Vec<GroupPlan>, CgroupPlanError> {
    if layout.hierarchies.is_empty() {
        return Err(CgroupPlanError::NoCgroupMount);
    }
    let mut groups: Vec<GroupPlan> = Vec::new();
    for (controller, join) in CONTROLLERS {
        let Some(hierarchy) = layout.hierarchy(controller) else {
            if controller == "devices" && !matches!(request.devices, Devices::Untouched) {
                return Err(CgroupPlanError::NoDevicesController);
            }
            continue;
        };
        if controller.is_empty() && layout.mode != CgroupMode::Hybrid {
            continue;
        }
        let path = inner.place(hierarchy)?;
        let index = match groups.iter().position(|group| group.path == path) {
            Some(index) => index,
            None => {
                groups.push(GroupPlan {
                    controllers: Vec::new(),
                    mountpoint: hierarchy.mountpoint.clone(),
                    path,
                    join,
                    inherit: Inherit::Nothing,
                    before_join: Vec::new(),
                });
                groups.len() - 1
            }
        };
        let group = &mut groups[index];
        group.controllers.push(controller.to_owned());
        match (controller, &request.resources.cpu) {
            ("cpuset", cpu) => {
                group.inherit = Inherit::Cpuset;
                cpu.iter().for_each(|cpu| cpuset(cpu, &mut group.before_join));
            }
            // A process with a realtime policy can't join before its cgroup has realtime.
            ("cpu", Some(cpu)) => realtime(cpu, &mut group.before_join),
            _ => {}
        }
    }
    Ok(groups)
}

/// Every value, in the order in which runc writes them.
pub(super) fn writes(resources: &Resources) -> Result<Vec<Write>, CgroupPlanError> {
    if !resources.unified.is_empty() {
        return Err(CgroupPlanError::UnifiedOnV1);
    }
    let mut writes = Vec::new();
    if let Some(cpu) = &resources.cpu {
        cpuset(cpu, &mut writes);
    }
    if let Some(memory_limits) = &resources.memory {
        memory(memory_limits, &mut writes)?;
    }
    if let Some(cpu_limits) = &resources.cpu {
        cpu(cpu_limits, &mut writes)?;
        realtime(cpu_limits, &mut writes);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        writes.push(Write::new("pids", "pids.max", pids_max(limit)));
    }
    if let Some(block_io) = &resources.block_io {
        blkio(block_io, &mut writes);
    }
    hugetlb(resources, "limit_in_bytes", &mut writes);
    if let Some(network) = &resources.network {
        if let Some(class) = nonzero(network.class_id) {
            writes.push(Write::new("net_cls", "net_cls.classid", class));
        }
        for priority in &network.priorities {
            let line = format!("{} {}", priority.name, priority.priority);
            writes.push(Write::new("net_prio", "net_prio.ifpriomap", line));
        }
    }
    rdma(resources, &mut writes);
    Ok(writes)
}

fn cpuset(cpu: &Cpu, writes: &mut Vec<Write>) {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            writes.push(Write::new("cpuset", file, value));
        }
    }
}

fn memory(memory: &Memory, writes: &mut Vec<Write>) -> Result<(), CgroupPlanError> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = nonzero(memory.limit).map(|limit| Write::new("memory", LIMIT, limit));
    let swap = match (memory.limit, nonzero(memory.swap)) {
        // Unlimited memory with no word on swap means unlimited swap, where there is swap accounting.
        (Some(-1), None) => Some(Write::new("memory", LIMIT_WITH_SWAP, -1).tolerate(Tolerate::Absent)),
        (_, swap) => swap.map(|swap| Write::new("memory", LIMIT_WITH_SWAP, swap)),
    };
    match (limit, swap) {
        // The kernel holds "memory <= memory and swap" at every step: a limit that isn't possible yet becomes so once
        // the other one is raised.
        (Some(limit), Some(swap)) => {
            writes.extend([limit.clone().tolerate(Tolerate::Rejected), swap, limit.when(When::Rejected)])
        }
        (limit, swap) => writes.extend(limit.into_iter().chain(swap)),
    }
    if let Some(reservation) = nonzero(memory.reservation) {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
    match memory.swappiness {
        // -1 in an unsigned field: callers mean "as it is".
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => writes.push(Write::new("memory", "memory.swappiness", value)),
        Some(value) => return Err(CgroupPlanError::Swappiness { value }),
    }
    Ok(())
}

/// The bounds of `cpu.shares` (kernel/sched/sched.h). The kernel would silently bend a value to them.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

fn cpu(cpu: &Cpu, writes: &mut Vec<Write>) -> Result<(), CgroupPlanError> {
    let write = |file, value: &dyn ToString| Write::new("cpu", file, value.to_string());
    if let Some(shares) = nonzero(cpu.shares) {
        if shares < *SHARES.start() {
            return Err(CgroupPlanError::CpuSharesTooLow { minimum: *SHARES.start() });
        }
        if shares > *SHARES.end() {
            return Err(CgroupPlanError::CpuSharesTooHigh { maximum: *SHARES.end() });
        }
        writes.push(write("cpu.shares", &shares));
    }
    // A period or burst can be too much for the old quota and fit the new one.
    let quota = nonzero(cpu.quota);
    let period = nonzero(cpu.period).map(|period| write("cpu.cfs_period_us", &period));
    let burst = cpu.burst.map(|burst| write("cpu.cfs_burst_us", &burst));
    let (for_period, for_burst) = match quota {
        Some(_) => (Tolerate::Rejected, Tolerate::AbsentOrRejected),
        None => (Tolerate::Nothing, Tolerate::Absent),
    };
    writes.extend(period.clone().map(|period| period.tolerate(for_period)));
    writes.extend(burst.clone().map(|burst| burst.tolerate(for_burst)));
    if let Some(quota) = quota {
        writes.push(write("cpu.cfs_quota_us", &quota));
        writes.extend(period.map(|period| period.when(When::Rejected)));
        writes.extend(burst.map(|burst| burst.when(When::Rejected)));
    }
    writes.extend(cpu.idle.map(|idle| write("cpu.idle", &idle)));
    Ok(())
}

/// Period and runtime depend on each other: a period that is rejected is tried again after the runtime.
fn realtime(cpu: &Cpu, writes: &mut Vec<Write>) {
    let runtime =
        nonzero(cpu.realtime_runtime).map(|runtime| Write::new("cpu", "cpu.rt_runtime_us", runtime));
    let period = nonzero(cpu.realtime_period).map(|period| Write::new("cpu", "cpu.rt_period_us", period));
    let tolerate = if runtime.is_some() { Tolerate::Rejected } else { Tolerate::Nothing };
    let again = period.clone().filter(|_| runtime.is_some()).map(|period| period.when(When::Rejected));
    writes.extend(period.map(|period| period.tolerate(tolerate)));
    writes.extend(runtime);
    writes.extend(again);
}

fn blkio(block_io: &BlockIo, writes: &mut Vec<Write>) {
    // A file of the CFQ scheduler, which BFQ has under a name of its own.
    let either = |cfq: &str, bfq: &str, value: &dyn ToString| {
        [
            Write::new("blkio", cfq, value.to_string()).tolerate(Tolerate::Absent),
            Write::new("blkio", bfq, value.to_string()).when(When::Absent(cfq.to_owned())),
        ]
    };
    if let Some(weight) = nonzero(block_io.weight) {
        writes.extend(either("blkio.weight", "blkio.bfq.weight", &weight));
    }
    if let Some(weight) = nonzero(block_io.leaf_weight) {
        writes.push(Write::new("blkio", "blkio.leaf_weight", weight));
    }
    for device in &block_io.weight_device {
        let line = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = nonzero(device.weight) {
            writes.extend(either("blkio.weight_device", "blkio.bfq.weight_device", &line(weight)));
        }
        if let Some(weight) = nonzero(device.leaf_weight) {
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            writes.push(Write::new(
                "blkio",
                file,
                format!("{}:{} {}", device.major, device.minor, device.rate),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{HYBRID_MOUNTINFO, HYBRID_SELF};
    use super::super::tests::{request, texts};
    use super::super::{CgroupPlan, plan};
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

    fn hybrid_plan(resources: &Resources, path: Option<&str>) -> CgroupPlan {
        plan(&request(resources, path), &CgroupLayout::parse(HYBRID_MOUNTINFO, HYBRID_SELF)).unwrap()
    }

    #[test]
    fn groups_follow_the_order_of_runc_and_share_a_mount() {
        let plan = hybrid_plan(&Resources::default(), Some("/ketch/x"));
        let groups: Vec<_> = plan
            .groups
            .iter()
            .map(|group| format!("{} {}", group.controllers.join("+"), group.path))
            .collect();
        assert_eq!(
            groups,
            [
                "cpuset /sys/fs/cgroup/cpuset/ketch/x",
                "devices /sys/fs/cgroup/devices/ketch/x",
                "memory /sys/fs/cgroup/memory/ketch/x",
                "cpu+cpuacct /sys/fs/cgroup/cpu,cpuacct/ketch/x",
                "pids /sys/fs/cgroup/pids/ketch/x",
                "blkio /sys/fs/cgroup/blkio/ketch/x",
                "freezer /sys/fs/cgroup/freezer/ketch/x",
                "name=systemd /sys/fs/cgroup/systemd/ketch/x",
                " /sys/fs/cgroup/unified/ketch/x",
            ]
        );
        assert_eq!(plan.groups[0].inherit, Inherit::Cpuset);
        assert!(plan.groups.iter().all(|group| group.before_join.is_empty()));
        assert_eq!((plan.groups[6].join, plan.groups[7].join), (Join::Required, Join::IfPossible));
    }

    #[test]
    fn what_must_be_written_before_the_join() {
        let resources = parse(r#"{"cpu":{"cpus":"0","realtimeRuntime":9,"realtimePeriod":10}}"#);
        let plan = hybrid_plan(&resources, None);
        assert_eq!(texts(&plan.groups[0].before_join), ["cpuset.cpus=0"]);
        assert_eq!(
            texts(&plan.groups[3].before_join),
            ["cpu.rt_period_us=10 ~rejected", "cpu.rt_runtime_us=9", "cpu.rt_period_us=10 ?rejected"]
        );
    }

    #[test]
    fn devices_are_required() {
        let mountinfo: String = HYBRID_MOUNTINFO
            .lines()
            .filter(|line| !line.contains("devices"))
            .map(|l| format!("{l}\n"))
            .collect();
        let layout = CgroupLayout::parse(&mountinfo, HYBRID_SELF);
        let resources = Resources::default();
        let denied = request(&resources, None);
        assert_eq!(plan(&denied, &layout).unwrap_err(), CgroupPlanError::NoDevicesController);
        assert!(plan(&CgroupRequest { devices: Devices::Untouched, ..denied }, &layout).is_ok());
        let empty = CgroupLayout::parse("", HYBRID_SELF);
        assert_eq!(plan(&denied, &empty).unwrap_err(), CgroupPlanError::NoCgroupMount);
    }

    #[test]
    fn memory_limits_in_an_order_that_always_works() {
        assert_eq!(planned(r#"{"memory":{"limit":5}}"#), ["memory.limit_in_bytes=5"]);
        assert_eq!(
            planned(
                r#"{"memory":{"limit":5,"swap":9,"reservation":3,"swappiness":7,"disableOOMKiller":true}}"#
            ),
            [
                "memory.limit_in_bytes=5 ~rejected",
                "memory.memsw.limit_in_bytes=9",
                "memory.limit_in_bytes=5 ?rejected",
                "memory.soft_limit_in_bytes=3",
                "memory.oom_control=1",
                "memory.swappiness=7",
            ]
        );
        assert_eq!(
            planned(r#"{"memory":{"limit":-1}}"#),
            [
                "memory.limit_in_bytes=-1 ~rejected",
                "memory.memsw.limit_in_bytes=-1 ~absent",
                "memory.limit_in_bytes=-1 ?rejected"
            ]
        );
        assert_eq!(
            planned(r#"{"memory":{"limit":0,"swap":0,"kernel":5,"disableOOMKiller":false}}"#),
            [""; 0]
        );
        assert_eq!(planned(r#"{"memory":{"swappiness":18446744073709551615}}"#), [""; 0]);
        assert_eq!(
            failure(r#"{"memory":{"swappiness":101}}"#),
            "invalid memory swappiness value: 101 (valid range is 0-100)"
        );
    }

    #[test]
    fn cpu_period_and_burst_are_tried_again_after_the_quota() {
        assert_eq!(
            planned(r#"{"cpu":{"shares":100,"quota":-1,"period":1000,"burst":0,"idle":0,"mems":"0-1"}}"#),
            [
                "cpuset.mems=0-1",
                "cpu.shares=100",
                "cpu.cfs_period_us=1000 ~rejected",
                "cpu.cfs_burst_us=0 ~absentorrejected",
                "cpu.cfs_quota_us=-1",
                "cpu.cfs_period_us=1000 ?rejected",
                "cpu.cfs_burst_us=0 ?rejected",
                "cpu.idle=0",
            ]
        );
        assert_eq!(
            planned(r#"{"cpu":{"period":1000,"burst":3,"shares":0,"quota":0,"realtimePeriod":7}}"#),
            ["cpu.cfs_period_us=1000", "cpu.cfs_burst_us=3 ~absent", "cpu.rt_period_us=7"]
        );
        assert_eq!(failure(r#"{"cpu":{"shares":1}}"#), "the minimum allowed cpu-shares is 2");
        assert_eq!(failure(r#"{"cpu":{"shares":262145}}"#), "the maximum allowed cpu-shares is 262144");
    }

    #[test]
    fn the_other_controllers() {
        assert_eq!(planned(r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
        assert_eq!(planned(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
        assert_eq!(planned(r#"{"pids":{}}"#), [""; 0]);
        assert_eq!(
            planned(
                r#"{"blockIO":{"weight":500,"leafWeight":20,
                    "weightDevice":[{"major":8,"minor":0,"weight":30,"leafWeight":40}],
                    "throttleReadBpsDevice":[{"major":8,"minor":1,"rate":1}],
                    "throttleWriteBpsDevice":[{"major":8,"minor":1,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":3}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":4}]}}"#
            ),
            [
                "blkio.weight=500 ~absent",
                "blkio.bfq.weight=500 ?absent(blkio.weight)",
                "blkio.leaf_weight=20",
                "blkio.weight_device=8:0 30 ~absent",
                "blkio.bfq.weight_device=8:0 30 ?absent(blkio.weight_device)",
                "blkio.leaf_weight_device=8:0 40",
                "blkio.throttle.read_bps_device=8:1 1",
                "blkio.throttle.write_bps_device=8:1 2",
                "blkio.throttle.read_iops_device=8:1 3",
                "blkio.throttle.write_iops_device=8:1 4",
            ]
        );
        assert_eq!(
            planned(
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}],
                    "network":{"classID":1,"priorities":[{"name":"lo","priority":3}]},
                    "rdma":{"mlx5_1":{"hcaHandles":0,"hcaObjects":5}}}"#
            ),
            [
                "hugetlb.2MB.limit_in_bytes=4",
                "hugetlb.2MB.rsvd.limit_in_bytes=4 ~absent",
                "net_cls.classid=1",
                "net_prio.ifpriomap=lo 3",
                "rdma.max=mlx5_1 hca_handle=0 hca_object=5",
            ]
        );
        assert_eq!(
            failure(r#"{"unified":{"memory.max":"1"}}"#),
            "invalid configuration: cannot use unified on cgroup v1"
        );
    }
}
