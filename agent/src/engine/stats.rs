//! What a container uses: the shim's metrics in the shape of Docker's statistics, one a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ketch_shim_api::cgroup1::{self, BlkIoEntry};
use ketch_shim_api::cgroup2;
use ketch_shim_api::wire::Any;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::container::Container;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::timestamp::Timestamp;

const PERIOD: Duration = Duration::from_secs(1);
/// The kernel's unit in /proc/stat, in nanoseconds; it is 100 a second on every machine there is.
const TICK: u64 = 10_000_000;

/// One sample; with the one before it unless `one_shot`.
///
/// # Errors
/// The shim's words.
pub async fn once(daemon: &Arc<Daemon>, container: &Arc<Container>, one_shot: bool) -> Result<Value> {
    let first = sample(daemon, container).await?;
    if one_shot || !is_sampled(container) {
        return Ok(joined(container, &Sample::default(), &first));
    }
    tokio::time::sleep(PERIOD).await;
    let second = sample(daemon, container).await?;
    Ok(joined(container, &first, &second))
}

/// One sample a second, until the client goes or the container does.
pub async fn stream(daemon: &Arc<Daemon>, container: &Arc<Container>, sender: mpsc::Sender<Bytes>) {
    let mut before = Sample::default();
    let mut life = container.life.subscribe();
    loop {
        let Ok(now) = sample(daemon, container).await else { return };
        let mut bytes = serde_json::to_vec(&joined(container, &before, &now)).unwrap_or_default();
        bytes.push(b'\n');
        if sender.send(bytes.into()).await.is_err() {
            return;
        }
        before = now;
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = life.wait_for(|life| life.removed) => return,
            () = sender.closed() => return,
        }
    }
}

fn is_sampled(container: &Container) -> bool {
    container.read(|record| record.state.running && !record.state.restarting)
}

/// The parts of one moment.
#[derive(Clone, Debug)]
struct Sample {
    read: Timestamp,
    pids: Value,
    blkio: Value,
    cpu: Value,
    memory: Value,
    networks: Option<Value>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            read: Timestamp::NEVER,
            pids: json!({}),
            blkio: no_blkio(),
            cpu: no_cpu(),
            memory: json!({}),
            networks: None,
        }
    }
}

fn no_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

fn joined(container: &Container, before: &Sample, now: &Sample) -> Value {
    let mut shown = json!({
        "name": format!("/{}", container.name()),
        "id": container.id,
        "read": now.read,
        "preread": before.read,
        "pids_stats": now.pids,
        "blkio_stats": now.blkio,
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": now.cpu,
        "precpu_stats": before.cpu,
        "memory_stats": now.memory,
    });
    if let Some(networks) = &now.networks {
        shown["networks"] = networks.clone();
    }
    shown
}

async fn sample(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<Sample> {
    let Some(task) = container.task().filter(|_| is_sampled(container)) else { return Ok(Sample::default()) };
    let (metrics, pid) = match task.stats().await {
        Ok(metrics) => (metrics, container.read(|record| record.state.pid)),
        // It has just ended.
        Err(_) => return Ok(Sample::default()),
    };
    let mut sample = decode(&metrics)?;
    sample.read = Timestamp::now();
    let host = &daemon.engine.host;
    if let Some(limit) = sample.memory.get_mut("limit")
        && limit.as_u64().is_none_or(|bytes| bytes == 0 || bytes > host.memory)
    {
        *limit = host.memory.into();
    }
    sample.cpu["system_cpu_usage"] = system_cpu().into();
    sample.cpu["online_cpus"] = host.processors.into();
    if !container.read(|record| record.host_config.network_mode == "host") {
        sample.networks = networks(pid);
    }
    Ok(sample)
}

fn decode(metrics: &Any) -> Result<Sample> {
    let failed = |error| Error::internal("reading the shim's metrics", &error);
    if let Some(metrics) = metrics.unpack::<cgroup2::Metrics>().map_err(failed)? {
        return Ok(unified(&metrics));
    }
    match metrics.unpack::<cgroup1::Metrics>().map_err(failed)? {
        Some(metrics) => Ok(legacy(&metrics)),
        None => {
            Err(Error::new(Kind::Internal, format!("metrics of type {} are not known", metrics.type_url)))
        }
    }
}

fn unified(metrics: &cgroup2::Metrics) -> Sample {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let memory = metrics.memory.clone().unwrap_or_default();
    let pids = metrics.pids.clone().unwrap_or_default();
    let entries: Vec<_> = metrics.io.iter().flat_map(|io| &io.usage).collect();
    let bytes: Vec<_> = entries
        .iter()
        .flat_map(|one| {
            [("read", one.rbytes), ("write", one.wbytes)]
                .map(|(op, value)| entry(one.major, one.minor, op, value))
        })
        .collect();
    Sample {
        pids: json!({ "current": pids.current, "limit": limit(pids.limit) }),
        blkio: blkio_of(bytes.into(), Value::Null),
        cpu: json!({
            "cpu_usage": {
                "total_usage": cpu.usage_usec * 1000,
                "usage_in_kernelmode": cpu.system_usec * 1000,
                "usage_in_usermode": cpu.user_usec * 1000,
            },
            "throttling_data": {
                "periods": cpu.nr_periods,
                "throttled_periods": cpu.nr_throttled,
                "throttled_time": cpu.throttled_usec * 1000,
            },
        }),
        memory: json!({
            "usage": memory.usage,
            "stats": {
                "active_anon": memory.active_anon,
                "active_file": memory.active_file,
                "anon": memory.anon,
                "anon_thp": memory.anon_thp,
                "file": memory.file,
                "file_dirty": memory.file_dirty,
                "file_mapped": memory.file_mapped,
                "file_writeback": memory.file_writeback,
                "inactive_anon": memory.inactive_anon,
                "inactive_file": memory.inactive_file,
                "kernel_stack": memory.kernel_stack,
                "pgactivate": memory.pgactivate,
                "pgdeactivate": memory.pgdeactivate,
                "pgfault": memory.pgfault,
                "pglazyfree": memory.pglazyfree,
                "pglazyfreed": memory.pglazyfreed,
                "pgmajfault": memory.pgmajfault,
                "pgrefill": memory.pgrefill,
                "pgscan": memory.pgscan,
                "pgsteal": memory.pgsteal,
                "shmem": memory.shmem,
                "slab": memory.slab,
                "slab_reclaimable": memory.slab_reclaimable,
                "slab_unreclaimable": memory.slab_unreclaimable,
                "sock": memory.sock,
                "thp_collapse_alloc": memory.thp_collapse_alloc,
                "thp_fault_alloc": memory.thp_fault_alloc,
                "unevictable": memory.unevictable,
                "workingset_activate": memory.workingset_activate,
                "workingset_nodereclaim": memory.workingset_nodereclaim,
                "workingset_refault": memory.workingset_refault,
            },
            "limit": memory.usage_limit,
        }),
        ..Sample::default()
    }
}

fn legacy(metrics: &cgroup1::Metrics) -> Sample {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let usage = cpu.usage.unwrap_or_default();
    let throttling = cpu.throttling.unwrap_or_default();
    let memory = metrics.memory.clone().unwrap_or_default();
    let entries = memory.usage.unwrap_or_default();
    let pids = metrics.pids.clone().unwrap_or_default();
    Sample {
        pids: legacy_pids(&pids),
        blkio: metrics.blkio.as_ref().map_or_else(no_blkio, legacy_blkio),
        cpu: json!({
            "cpu_usage": {
                "total_usage": usage.total,
                "percpu_usage": usage.per_cpu,
                "usage_in_kernelmode": usage.kernel,
                "usage_in_usermode": usage.user,
            },
            "throttling_data": {
                "periods": throttling.periods,
                "throttled_periods": throttling.throttled_periods,
                "throttled_time": throttling.throttled_time,
            },
        }),
        memory: json!({
            "usage": entries.usage,
            "max_usage": entries.max,
            "stats": {
                "active_anon": memory.active_anon,
                "active_file": memory.active_file,
                "cache": memory.cache,
                "dirty": memory.dirty,
                "hierarchical_memory_limit": memory.hierarchical_memory_limit,
                "hierarchical_memsw_limit": memory.hierarchical_swap_limit,
                "inactive_anon": memory.inactive_anon,
                "inactive_file": memory.inactive_file,
                "mapped_file": memory.mapped_file,
                "pgfault": memory.pg_fault,
                "pgmajfault": memory.pg_maj_fault,
                "pgpgin": memory.pg_pg_in,
                "pgpgout": memory.pg_pg_out,
                "rss": memory.rss,
                "rss_huge": memory.rss_huge,
                "total_active_anon": memory.total_active_anon,
                "total_active_file": memory.total_active_file,
                "total_cache": memory.total_cache,
                "total_dirty": memory.total_dirty,
                "total_inactive_anon": memory.total_inactive_anon,
                "total_inactive_file": memory.total_inactive_file,
                "total_mapped_file": memory.total_mapped_file,
                "total_pgfault": memory.total_pg_fault,
                "total_pgmajfault": memory.total_pg_maj_fault,
                "total_pgpgin": memory.total_pg_pg_in,
                "total_pgpgout": memory.total_pg_pg_out,
                "total_rss": memory.total_rss,
                "total_rss_huge": memory.total_rss_huge,
                "total_unevictable": memory.total_unevictable,
                "total_writeback": memory.total_writeback,
                "unevictable": memory.unevictable,
                "writeback": memory.writeback,
            },
            "limit": entries.limit,
        }),
        ..Sample::default()
    }
}

/// Of v2: without a bound the shim says 0; Docker shows the largest number. Of v1 it shows none.
fn limit(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

fn entry(major: u64, minor: u64, op: &str, value: u64) -> Value {
    json!({ "major": major, "minor": minor, "op": op, "value": value })
}

fn legacy_pids(pids: &cgroup1::PidsStat) -> Value {
    match pids.limit {
        0 => json!({ "current": pids.current }),
        limit => json!({ "current": pids.current, "limit": limit }),
    }
}

/// Lists, also where nothing was read or written yet: clients go through them.
fn legacy_blkio(io: &cgroup1::BlkIoStat) -> Value {
    let kinds = [
        &io.io_service_bytes_recursive,
        &io.io_serviced_recursive,
        &io.io_queued_recursive,
        &io.io_service_time_recursive,
        &io.io_wait_time_recursive,
        &io.io_merged_recursive,
        &io.io_time_recursive,
        &io.sectors_recursive,
    ];
    let one = |one: &BlkIoEntry| entry(one.major, one.minor, &one.op.to_lowercase(), one.value);
    let list = |entries: &Vec<BlkIoEntry>| entries.iter().map(one).collect::<Value>();
    BLKIO.into_iter().zip(kinds).map(|(name, entries)| (name.to_owned(), list(entries))).collect()
}

fn no_blkio() -> Value {
    BLKIO.into_iter().map(|name| (name.to_owned(), Value::Null)).collect()
}

const BLKIO: [&str; 8] = [
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
];

fn blkio_of(bytes: Value, serviced: Value) -> Value {
    let mut fields = no_blkio();
    if bytes.as_array().is_some_and(|all| !all.is_empty()) {
        fields["io_service_bytes_recursive"] = bytes;
        fields["io_serviced_recursive"] = serviced;
    }
    fields
}

/// What all processors have done since the boot, in nanoseconds.
fn system_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    // Guests' time is in user time already.
    let ticks: u64 =
        first.split_whitespace().skip(1).take(7).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * TICK
}

/// The interfaces of a container, by a process in it.
fn networks(pid: u32) -> Option<Value> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let mut all = Map::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let name = name.trim();
        if name == "lo" || numbers.len() < 12 {
            continue;
        }
        let counts = json!({
            "rx_bytes": numbers[0], "rx_packets": numbers[1], "rx_errors": numbers[2], "rx_dropped": numbers[3],
            "tx_bytes": numbers[8], "tx_packets": numbers[9], "tx_errors": numbers[10], "tx_dropped": numbers[11],
        });
        let _none = all.insert(name.to_owned(), counts);
    }
    (!all.is_empty()).then(|| all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_dockers_shape() {
        let memory = cgroup1::MemoryStat {
            usage: Some(cgroup1::MemoryEntry { usage: 5, limit: 9, ..Default::default() }),
            ..Default::default()
        };
        let metrics = cgroup1::Metrics { memory: Some(memory), ..Default::default() };
        let sample = decode(&Any::pack(&metrics)).unwrap();
        assert_eq!((&sample.memory["usage"], &sample.memory["limit"]), (&json!(5), &json!(9)));
        assert_eq!(sample.blkio["io_service_bytes_recursive"], Value::Null);
        assert_eq!(sample.pids, json!({ "current": 0 }));
        let metrics = cgroup1::Metrics { blkio: Some(cgroup1::BlkIoStat::default()), ..metrics };
        assert_eq!(decode(&Any::pack(&metrics)).unwrap().blkio["sectors_recursive"], json!([]));
        let sample = decode(&Any::pack(&cgroup2::Metrics::default())).unwrap();
        assert_eq!(
            (&sample.blkio["sectors_recursive"], &sample.pids["limit"]),
            (&Value::Null, &json!(u64::MAX))
        );
    }
}
