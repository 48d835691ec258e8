//! `linux.resources` of config.json (OCI runtime-spec 1.3, config-linux.md "Control groups").
//!
//! Owns the types and their JSON, and how `update` lays a partial set of resources over the current one.
//! It checks nothing: what a value means on cgroup v1 or v2 is decided in [`crate::plan::cgroup`], its reader.
//!
//! The specification's Go types make an absent field differ from zero, and `null` equal to absent; so do these.
//! Unknown fields are tolerated.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::json::{null_is_default, object, objects};

/// `linux.resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Device rules, in order: a later rule wins over an earlier one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub devices: Vec<DeviceCgroup>,
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Go takes keys in any case and lays one over the other; runc's own suite writes this one. Part of `cpu` once
    /// [`Resources::join_cases`] was called.
    #[serde(rename = "CPU", deserialize_with = "object", skip_serializing)]
    pub cpu_in_capitals: Option<Cpu>,
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO", deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub hugepage_limits: Vec<HugepageLimit>,
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Device name -> limits.
    #[serde(skip_serializing_if = "OrderedMap::is_empty", deserialize_with = "null_is_default")]
    pub rdma: OrderedMap<Rdma>,
    /// cgroup v2 file name -> what to write, in the order of the file.
    #[serde(skip_serializing_if = "OrderedMap::is_empty", deserialize_with = "null_is_default")]
    pub unified: OrderedMap<String>,
}

/// One entry of `devices`: a rule of the device controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceCgroup {
    pub allow: bool,
    /// `a`, `b` or `c`; absent means `a`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Absent means every major number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Absent means every minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// A subset of `rwm`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub access: String,
}

/// `memory`; every size in bytes, -1 means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// Ignored with a warning: kernels no longer have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    /// Ignored with a warning.
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is in use (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

/// `cpu`; every time in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    #[serde(alias = "Cpus", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub cpus: String,
    #[serde(alias = "Mems", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub mems: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// `pids`. Absent leaves the limit as it is, below zero lifts it, zero is a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// `blockIO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleReadIOPSDevice",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "objects"
    )]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleWriteIOPSDevice",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "objects"
    )]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// A weight for one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

/// A rate for one block device: bytes or operations per second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

/// One entry of `hugepageLimits`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// As the kernel names it: `64KB`, `2MB`, `1GB`. The lower-case key is what runc, whose reader ignores case,
    /// is often given.
    #[serde(alias = "pagesize")]
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// `network`: v1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub priorities: Vec<InterfacePriority>,
}

/// The priority of an interface's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfacePriority {
    pub name: String,
    pub priority: u32,
}

/// Limits of one RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}

/// A JSON object that keeps the order of its keys. Of a repeated key the last value counts, in the first place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedMap<V>(Vec<(String, V)>);

impl<V> Default for OrderedMap<V> {
    fn default() -> Self {
        OrderedMap(Vec::new())
    }
}

impl<V> OrderedMap<V> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    pub fn insert(&mut self, key: String, value: V) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }
}

impl<V> FromIterator<(String, V)> for OrderedMap<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        let mut map = OrderedMap::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<V: Serialize> Serialize for OrderedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = OrderedMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = OrderedMap::default();
                while let Some((key, value)) = access.next_entry()? {
                    map.insert(key, value);
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl Resources {
    /// Makes one of `cpu` and `CPU`: what the latter has counts.
    pub fn join_cases(&mut self) {
        let Some(over) = self.cpu_in_capitals.take() else { return };
        let cpu = self.cpu.get_or_insert_default();
        let text = |over: String, under: &str| if over.is_empty() { under.to_owned() } else { over };
        *cpu = Cpu {
            shares: over.shares.or(cpu.shares),
            quota: over.quota.or(cpu.quota),
            burst: over.burst.or(cpu.burst),
            period: over.period.or(cpu.period),
            realtime_runtime: over.realtime_runtime.or(cpu.realtime_runtime),
            realtime_period: over.realtime_period.or(cpu.realtime_period),
            cpus: text(over.cpus, &cpu.cpus),
            mems: text(over.mems, &cpu.mems),
            idle: over.idle.or(cpu.idle),
        };
    }

    /// Lays `update` over these resources, by the rules of runc's `update` command:
    /// - a memory, share, realtime or weight value that is absent stays as it is;
    /// - `burst`, `cpus`, `mems`, `idle`, the pids limit and `unified` are taken over even when absent;
    /// - of quota and period, the one that is not given keeps its value, but giving neither forgets both;
    /// - block devices are updated one by one, by their number;
    /// - devices, huge pages, network and RDMA limits don't change.
    pub fn apply_update(&mut self, update: &Resources) {
        let memory = self.memory.get_or_insert_default();
        let new = update.memory.clone().unwrap_or_default();
        // An unlimited memory with no word on swap leaves a former swap limit without its base.
        let swap = if new.limit == Some(-1) { new.swap.or(Some(0)) } else { new.swap };
        memory.limit = new.limit.or(memory.limit);
        memory.reservation = new.reservation.or(memory.reservation);
        memory.swap = swap.or(memory.swap);
        memory.check_before_update = Some(new.check_before_update.unwrap_or(false));

        let cpu = self.cpu.get_or_insert_default();
        let new = update.cpu.clone().unwrap_or_default();
        // A weight can't be written to a cgroup that is idle, so a former one is forgotten.
        let shares = if new.idle.is_some() { new.shares.or(Some(0)) } else { new.shares };
        let period = new.period.filter(|&period| period != 0);
        let quota = new.quota.filter(|&quota| quota != 0);
        if period.is_none() == quota.is_none() {
            (cpu.period, cpu.quota) = (period, quota);
        } else {
            cpu.period = period.or(cpu.period);
            cpu.quota = quota.or(cpu.quota);
        }
        cpu.shares = shares.or(cpu.shares);
        cpu.realtime_period = new.realtime_period.or(cpu.realtime_period);
        cpu.realtime_runtime = new.realtime_runtime.or(cpu.realtime_runtime);
        cpu.burst = new.burst;
        cpu.idle = new.idle;
        cpu.cpus = new.cpus;
        cpu.mems = new.mems;

        if let Some(new) = &update.block_io {
            let block_io = self.block_io.get_or_insert_default();
            block_io.weight = new.weight.or(block_io.weight);
            block_io.leaf_weight = new.leaf_weight.or(block_io.leaf_weight);
            for device in &new.weight_device {
                upsert_weight(&mut block_io.weight_device, device);
            }
            let rates = [
                (&mut block_io.throttle_read_bps_device, &new.throttle_read_bps_device),
                (&mut block_io.throttle_write_bps_device, &new.throttle_write_bps_device),
                (&mut block_io.throttle_read_iops_device, &new.throttle_read_iops_device),
                (&mut block_io.throttle_write_iops_device, &new.throttle_write_iops_device),
            ];
            for (current, new) in rates {
                for device in new {
                    upsert_rate(current, device);
                }
            }
        }
        self.pids = update.pids.clone();
        self.unified = update.unified.clone();
    }
}

/// Of several entries for one device the last counts, so that one is updated.
fn upsert_weight(devices: &mut Vec<WeightDevice>, new: &WeightDevice) {
    match devices.iter_mut().rev().find(|old| (old.major, old.minor) == (new.major, new.minor)) {
        Some(old) => {
            old.weight = new.weight.or(old.weight);
            old.leaf_weight = new.leaf_weight.or(old.leaf_weight);
        }
        None => devices.push(new.clone()),
    }
}

fn upsert_rate(devices: &mut Vec<ThrottleDevice>, new: &ThrottleDevice) {
    match devices.iter_mut().rev().find(|old| (old.major, old.minor) == (new.major, new.minor)) {
        Some(old) => old.rate = new.rate,
        None => devices.push(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_go_s_other_case_are_laid_over() {
        let json = r#"{"cpu":{"shares":100,"cpus":"5"},"CPU":{"Cpus":"0","Mems":"1"}}"#;
        let mut resources: Resources = serde_json::from_str(json).unwrap();
        resources.join_cases();
        let cpu = resources.cpu.clone().unwrap();
        assert_eq!((cpu.shares, cpu.cpus.as_str(), cpu.mems.as_str()), (Some(100), "0", "1"));
        assert!(!serde_json::to_string(&resources).unwrap().contains("CPU"));
    }

    fn parse(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn absent_null_and_zero_differ_as_in_go() {
        assert_eq!(parse("{}"), Resources::default());
        assert_eq!(
            parse(r#"{"devices":null,"unified":null,"memory":null,"rdma":null}"#),
            Resources::default()
        );
        assert_eq!(parse(r#"{"pids":{"limit":0}}"#).pids, Some(Pids { limit: Some(0) }));
        assert_eq!(parse(r#"{"pids":{}}"#).pids, Some(Pids { limit: None }));
        assert_eq!(parse(r#"{"pids":{"limit":null}}"#).pids, Some(Pids { limit: None }));
    }

    #[test]
    fn unknown_fields_are_tolerated() {
        assert_eq!(parse(r#"{"future":1,"memory":{"limit":5,"new":[]}}"#).memory.unwrap().limit, Some(5));
    }

    #[test]
    fn every_field_survives_a_round_trip() {
        let json = r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}],"memory":{"limit":1,"reservation":2,"swap":3,"kernel":4,"kernelTCP":5,"swappiness":6,"disableOOMKiller":true,"useHierarchy":true,"checkBeforeUpdate":true},"cpu":{"shares":1,"quota":2,"burst":3,"period":4,"realtimeRuntime":5,"realtimePeriod":6,"cpus":"0-1","mems":"0","idle":1},"pids":{"limit":7},"blockIO":{"weight":10,"leafWeight":11,"weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":601}],"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":602}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":603}]},"hugepageLimits":[{"pageSize":"2MB","limit":9}],"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]},"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}},"unified":{"memory.high":"1","hugetlb.1GB.max":"2"}}"#;
        assert_eq!(serde_json::to_string(&parse(json)).unwrap(), json);
    }

    #[test]
    fn unified_keeps_the_order_of_the_file() {
        let unified = parse(r#"{"unified":{"z":"1","a":"2","z":"3"}}"#).unified;
        assert_eq!(
            unified.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            ["z=3", "a=2"]
        );
    }

    #[test]
    fn update_keeps_what_is_absent_and_forgets_what_runc_forgets() {
        let mut current = parse(
            r#"{"memory":{"limit":100,"swap":200},"cpu":{"shares":512,"quota":5000,"period":10000,"cpus":"0"},
                "pids":{"limit":9},"unified":{"memory.high":"5"}}"#,
        );
        current.apply_update(&parse(r#"{"memory":{"limit":300},"cpu":{"quota":6000}}"#));
        let expected = parse(
            r#"{"memory":{"limit":300,"swap":200,"checkBeforeUpdate":false},
                "cpu":{"shares":512,"quota":6000,"period":10000}}"#,
        );
        assert_eq!(current, expected);

        current.apply_update(&parse(r#"{"memory":{"limit":-1},"cpu":{"idle":1}}"#));
        let expected = parse(
            r#"{"memory":{"limit":-1,"swap":0,"checkBeforeUpdate":false},"cpu":{"shares":0,"idle":1}}"#,
        );
        assert_eq!(current, expected);
    }

    #[test]
    fn update_changes_the_last_entry_of_a_device_or_adds_one() {
        let mut current = parse(
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1},{"major":8,"minor":0,"weight":2}]}}"#,
        );
        current.apply_update(&parse(
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":7},{"major":9,"minor":1,"weight":3}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":4}]}}"#,
        ));
        let block_io = current.block_io.unwrap();
        let weights: Vec<_> =
            block_io.weight_device.iter().map(|d| (d.major, d.weight, d.leaf_weight)).collect();
        assert_eq!(weights, [(8, Some(1), None), (8, Some(2), Some(7)), (9, Some(3), None)]);
        assert_eq!(block_io.throttle_read_bps_device[0].rate, 4);
    }
}
