//! Limits as the runtime specification has them. Pure but for the numbers of devices, which are looked up.

use std::path::Path;

use ketch_engine_api::host_config::{Resources, ThrottleDevice};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The period of which `NanoCpus` is a share, in microseconds.
const PERIOD: i64 = 100_000;

/// The fields of `linux.resources`, without devices. Only what is asked for is there.
///
/// # Errors
/// A block device that there is not.
pub fn limits(asked: &Resources) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let mut put = |key: &str, fields: Map<String, Value>| {
        if !fields.is_empty() {
            let _none = all.insert(key.to_owned(), fields.into());
        }
    };
    put("memory", memory(asked));
    put("cpu", cpu(asked));
    put("blockIO", block_io(asked)?);
    let mut pids = Map::new();
    if let Some(limit) = asked.pids_limit {
        let _none = pids.insert("limit".to_owned(), limit.into());
    }
    put("pids", pids);
    Ok(all)
}

fn memory(asked: &Resources) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    if asked.memory > 0 {
        put("limit", asked.memory.into());
    }
    if asked.memory_reservation > 0 {
        put("reservation", asked.memory_reservation.into());
    }
    if asked.memory_swap != 0 {
        put("swap", asked.memory_swap.into());
    }
    if let Some(swappiness) = asked.memory_swappiness {
        put("swappiness", swappiness.into());
    }
    if let Some(disable) = asked.oom_kill_disable {
        put("disableOOMKiller", disable.into());
    }
    fields
}

fn cpu(asked: &Resources) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    if asked.cpu_shares > 0 {
        put("shares", asked.cpu_shares.into());
    }
    if asked.nano_cpus > 0 {
        put("period", PERIOD.into());
        put("quota", (asked.nano_cpus * PERIOD / 1_000_000_000).into());
    }
    if asked.cpu_period != 0 {
        put("period", asked.cpu_period.into());
    }
    if asked.cpu_quota != 0 {
        put("quota", asked.cpu_quota.into());
    }
    if asked.cpu_realtime_period != 0 {
        put("realtimePeriod", asked.cpu_realtime_period.into());
    }
    if asked.cpu_realtime_runtime != 0 {
        put("realtimeRuntime", asked.cpu_realtime_runtime.into());
    }
    if !asked.cpuset_cpus.is_empty() {
        put("cpus", asked.cpuset_cpus.clone().into());
    }
    if !asked.cpuset_mems.is_empty() {
        put("mems", asked.cpuset_mems.clone().into());
    }
    fields
}

fn block_io(asked: &Resources) -> Result<Map<String, Value>> {
    let mut fields = Map::new();
    if asked.blkio_weight != 0 {
        let _none = fields.insert("weight".to_owned(), asked.blkio_weight.into());
    }
    let weights = asked.blkio_weight_device.iter().flatten();
    let weights = weights
        .map(|device| {
            let (major, minor) = numbers(&device.path)?;
            Ok(json!({ "major": major, "minor": minor, "weight": device.weight }))
        })
        .collect::<Result<Vec<_>>>()?;
    if !weights.is_empty() {
        let _none = fields.insert("weightDevice".to_owned(), weights.into());
    }
    for (key, devices) in [
        ("throttleReadBpsDevice", &asked.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &asked.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &asked.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &asked.blkio_device_write_iops),
    ] {
        let devices = devices.iter().flatten().map(throttle).collect::<Result<Vec<_>>>()?;
        if !devices.is_empty() {
            let _none = fields.insert(key.to_owned(), devices.into());
        }
    }
    Ok(fields)
}

fn throttle(device: &ThrottleDevice) -> Result<Value> {
    let (major, minor) = numbers(&device.path)?;
    Ok(json!({ "major": major, "minor": minor, "rate": device.rate }))
}

fn numbers(path: &str) -> Result<(u32, u32)> {
    let stat = rustix::fs::stat(Path::new(path))
        .map_err(|error| Error::invalid(format!("stat {path}: {}", std::io::Error::from(error).kind())))?;
    Ok((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_there() {
        assert!(limits(&Resources::default()).unwrap().is_empty());
        let asked = Resources {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(7),
            ..Resources::default()
        };
        assert_eq!(
            Value::from(limits(&asked).unwrap()),
            json!({"memory":{"limit":67_108_864,"swap":134_217_728},"cpu":{"period":100_000,"quota":150_000},"pids":{"limit":7}})
        );
    }
}
