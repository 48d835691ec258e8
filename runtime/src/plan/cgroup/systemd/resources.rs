//! `linux.resources` as properties, for both versions of cgroups, and the keys of `unified` that have one.

use super::super::v2;
use super::super::{CgroupPlanError, nonzero};
use super::{Property, SystemdFacts, quota};
use crate::dbus::Value;
use crate::spec::resources::{Cpu, Resources};

/// The versions in which systemd learned of a property.
const CPUSET_SINCE: u32 = 244;
const IDLE_SINCE: u32 = 252;
const ZSWAP_SINCE: u32 = 253;
/// More CPUs than any kernel is built for.
const CPU_LIMIT: u32 = 1 << 16;

pub(super) fn v1(
    resources: &Resources,
    facts: &SystemdFacts,
    properties: &mut Vec<Property>,
) -> Result<(), CgroupPlanError> {
    let mut push = |name: &str, value: Option<u64>| {
        properties.extend(value.map(|value| Property::new(name, Value::U64(value))));
    };
    push("MemoryLimit", resources.memory.as_ref().and_then(|memory| size(memory.limit)));
    push("CPUShares", resources.cpu.as_ref().and_then(|cpu| nonzero(cpu.shares)));
    let weight = resources.block_io.as_ref().and_then(|block_io| nonzero(block_io.weight));
    push("BlockIOWeight", weight.map(u64::from));
    push("TasksMax", tasks(resources));
    if let Some(cpu) = &resources.cpu {
        quota::of_cpu(cpu, facts, properties);
        cpuset(cpu, facts, properties)?;
    }
    Ok(())
}

pub(super) fn v2(
    resources: &Resources,
    facts: &SystemdFacts,
    properties: &mut Vec<Property>,
    warnings: &mut Vec<String>,
) -> Result<(), CgroupPlanError> {
    let mut push = |name: &str, value: Option<u64>| {
        properties.extend(value.map(|value| Property::new(name, Value::U64(value))));
    };
    if let Some(memory) = &resources.memory {
        push("MemoryMax", size(memory.limit));
        push("MemoryLow", size(memory.reservation));
        // Zero is a limit here: it is what is left of memory and swap together.
        let swap = v2::swap_max(memory)?;
        push("MemorySwapMax", swap.map(|swap| u64::try_from(swap).unwrap_or(u64::MAX)));
    }
    push("TasksMax", tasks(resources));
    let weight = resources.block_io.as_ref().and_then(|block_io| nonzero(block_io.weight));
    push("IOWeight", weight.map(v2::io_weight));
    if let Some(cpu) = &resources.cpu {
        quota::of_cpu(cpu, facts, properties);
        cpuset(cpu, facts, properties)?;
    }
    let shares = resources.cpu.as_ref().and_then(|cpu| cpu.shares);
    let weight = unified(resources, facts, properties)?.or(shares.and_then(v2::weight));
    let weight = cpu_weight(is_idle(resources), weight, facts, warnings);
    properties.extend(weight.map(|weight| Property::new("CPUWeight", Value::U64(weight))));
    Ok(())
}

/// -1 is no limit to us, and the largest number is none to systemd.
fn size(bytes: Option<i64>) -> Option<u64> {
    nonzero(bytes).map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// systemd takes no limit of zero.
fn tasks(resources: &Resources) -> Option<u64> {
    let limit = resources.pids.as_ref().and_then(|pids| pids.limit)?;
    Some(u64::try_from(limit).map_or(u64::MAX, |limit| limit.max(1)))
}

/// Whether an idle cgroup is asked for.
pub(super) fn is_idle(resources: &Resources) -> bool {
    let mut unified = resources.unified.iter();
    resources.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1))
        || unified.any(|(file, value)| file == "cpu.idle" && value.trim() == "1")
}

/// Whether this systemd makes a cgroup idle, which then has no weight.
pub(super) fn has_no_weight(idle: bool, facts: &SystemdFacts) -> bool {
    idle && facts.version >= IDLE_SINCE
}

/// A weight of zero makes the cgroup an idle one, and so there is no other.
fn cpu_weight(
    idle: bool,
    weight: Option<u64>,
    facts: &SystemdFacts,
    warnings: &mut Vec<String>,
) -> Option<u64> {
    if !has_no_weight(idle, facts) {
        return weight;
    }
    if weight.is_some() {
        warnings.push("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight".to_owned());
    }
    Some(0)
}

fn cpuset(cpu: &Cpu, facts: &SystemdFacts, properties: &mut Vec<Property>) -> Result<(), CgroupPlanError> {
    let lists = [
        ("AllowedCPUs", "resources.CPU.Cpus", &cpu.cpus),
        ("AllowedMemoryNodes", "resources.CPU.Mems", &cpu.mems),
    ];
    for (property, field, list) in lists {
        if !list.is_empty() && facts.version >= CPUSET_SINCE {
            let bits = bits(list).ok_or_else(|| not_a_list(field, list))?;
            properties.push(Property::new(property, Value::bytes(&bits)));
        }
    }
    Ok(())
}

fn not_a_list(field: &str, list: &str) -> CgroupPlanError {
    CgroupPlanError::NotAList { field: field.to_owned(), list: list.to_owned() }
}

/// A list of numbers and ranges (`0,2-4`) as a set of bits, the lowest number in the lowest bit of the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < CPU_LIMIT);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        for number in first..=last {
            let byte = usize::try_from(number / 8).ok()?;
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            bits[byte] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

/// A number of a file of `unified`.
pub(super) fn unified_number(file: &str, value: &str) -> Result<u64, CgroupPlanError> {
    let failed = |_| CgroupPlanError::UnifiedValue { file: file.to_owned(), value: value.to_owned() };
    value.trim().parse().map_err(failed)
}

/// The same, where `max` stands for no limit.
fn unified_limit(file: &str, value: &str) -> Result<u64, CgroupPlanError> {
    if value.trim() == "max" { Ok(u64::MAX) } else { unified_number(file, value) }
}

/// What has no property here is only written to its file. Gives the weight, which goes with that of other fields.
fn unified(
    resources: &Resources,
    facts: &SystemdFacts,
    properties: &mut Vec<Property>,
) -> Result<Option<u64>, CgroupPlanError> {
    let mut weight = None;
    for (file, value) in resources.unified.iter() {
        if file.find('.').is_none_or(|at| at == 0) {
            return Err(CgroupPlanError::UnifiedForm { file: file.to_owned() });
        }
        let limit = match file {
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "memory.zswap.max" if facts.version >= ZSWAP_SINCE => "MemoryZSwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => {
                weight = Some(unified_number(file, value)?);
                continue;
            }
            "io.weight" => {
                properties.extend(io_weight(file, value)?);
                continue;
            }
            "cpu.max" => {
                cpu_max(file, value, facts, properties)?;
                continue;
            }
            "cpuset.cpus" | "cpuset.mems" => {
                if facts.version >= CPUSET_SINCE {
                    let property = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                    let bits = bits(value).ok_or_else(|| not_a_list(file, value))?;
                    properties.push(Property::new(property, Value::bytes(&bits)));
                }
                continue;
            }
            _ => continue,
        };
        let least = u64::from(file == "pids.max");
        let value = unified_limit(file, value)?.max(least);
        properties.push(Property::new(limit, Value::U64(value)));
    }
    Ok(weight)
}

/// `[default] weight`, and lines of single devices. These are only written, as `io.max` is: systemd puts what is asked for a device
/// on the disk that it finds below it, where it would bind other devices as well.
fn io_weight(file: &str, value: &str) -> Result<Option<Property>, CgroupPlanError> {
    let of_device = |line: &&str| line.split_whitespace().next().is_none_or(|word| word.contains(':'));
    let Some(line) = value.lines().rfind(|line| !of_device(line)) else { return Ok(None) };
    let line = line.trim();
    let weight = unified_number(file, line.strip_prefix("default").unwrap_or(line))?;
    Ok(Some(Property::new("IOWeight", Value::U64(weight))))
}

/// `quota [period]`
fn cpu_max(
    file: &str,
    value: &str,
    facts: &SystemdFacts,
    properties: &mut Vec<Property>,
) -> Result<(), CgroupPlanError> {
    let failed = || CgroupPlanError::UnifiedValue { file: file.to_owned(), value: value.to_owned() };
    let mut fields = value.split_whitespace();
    let quota = match fields.next().ok_or_else(failed)? {
        "max" => 0,
        quota => quota.parse().map_err(|_| failed())?,
    };
    let period = fields.next().map(str::parse).transpose().map_err(|_| failed())?.unwrap_or(100_000);
    if fields.next().is_some() {
        return Err(failed());
    }
    quota::push(quota, Some(period), facts, properties);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: u32) -> SystemdFacts {
        SystemdFacts { version, ..SystemdFacts::default() }
    }

    fn made(json: &str, version: u32) -> (Vec<String>, Vec<String>) {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let (mut properties, mut warnings) = (Vec::new(), Vec::new());
        v2(&resources, &facts(version), &mut properties, &mut warnings).unwrap();
        (properties.iter().map(|it| format!("{}={}", it.name, it.value)).collect(), warnings)
    }

    fn refused(json: &str) -> String {
        let resources: Resources = serde_json::from_str(json).unwrap();
        v2(&resources, &facts(252), &mut Vec::new(), &mut Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn resources_of_v2() {
        let json = r#"{"memory":{"limit":33554432,"reservation":25165824,"swap":50331648},"pids":{"limit":0},
            "cpu":{"shares":100,"quota":500000,"period":1000000,"cpus":"0,8-9","mems":"0"},"blockIO":{"weight":10}}"#;
        let expected = [
            "MemoryMax=uint64 33554432",
            "MemoryLow=uint64 25165824",
            "MemorySwapMax=uint64 16777216",
            "TasksMax=uint64 1",
            "IOWeight=uint64 1",
            "CPUQuotaPeriodUSec=uint64 1000000",
            "CPUQuotaPerSecUSec=uint64 500000",
            "AllowedCPUs=[byte 1, byte 3]",
            "AllowedMemoryNodes=[byte 1]",
            "CPUWeight=uint64 17",
        ];
        assert_eq!(made(json, 252).0, expected);
        // What this version does not know yet is only written.
        let old = expected.iter().filter(|text| !text.contains("Period") && !text.contains("Allowed"));
        assert_eq!(made(json, 241).0, old.copied().collect::<Vec<_>>());
        let unlimited = made(r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"quota":-1}}"#, 252).0;
        let none = u64::MAX;
        assert_eq!(
            unlimited,
            [
                format!("MemoryMax=uint64 {none}"),
                format!("MemorySwapMax=uint64 {none}"),
                format!("TasksMax=uint64 {none}"),
                format!("CPUQuotaPerSecUSec=uint64 {none}"),
            ]
        );
        assert!(made("{}", 252).0.is_empty());
    }

    #[test]
    fn idle_has_no_other_weight() {
        assert_eq!(made(r#"{"cpu":{"idle":1}}"#, 252), (vec!["CPUWeight=uint64 0".to_owned()], vec![]));
        assert!(made(r#"{"cpu":{"idle":0}}"#, 252).0.is_empty());
        assert!(made(r#"{"cpu":{"idle":1}}"#, 251).0.is_empty());
        let (properties, warnings) = made(r#"{"cpu":{"idle":1,"shares":200}}"#, 252);
        assert_eq!(properties, ["CPUWeight=uint64 0"]);
        assert!(warnings[0].starts_with("unable to apply both"), "{warnings:?}");
        let (properties, warnings) = made(r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#, 252);
        assert_eq!((properties, warnings.len()), (vec!["CPUWeight=uint64 0".to_owned()], 1));
        let (properties, warnings) = made(r#"{"cpu":{"shares":200},"unified":{"cpu.idle":"1"}}"#, 252);
        assert_eq!((properties, warnings.len()), (vec!["CPUWeight=uint64 0".to_owned()], 1));
        assert_eq!(
            made(r#"{"cpu":{"shares":200},"unified":{"cpu.weight":"8"}}"#, 252).0,
            ["CPUWeight=uint64 8"]
        );
    }

    #[test]
    fn keys_of_unified_that_are_properties() {
        let (properties, warnings) = made(
            r#"{"unified":{"memory.min":"1","memory.low":"2","memory.high":" 3\n","memory.max":"max","memory.swap.max":"5",
                "pids.max":"0","cpu.max":"5000 50000","cpu.weight":"42","cpuset.cpus":"1","hugetlb.2MB.max":"1"}}"#,
            252,
        );
        assert_eq!(
            properties,
            [
                "MemoryMin=uint64 1",
                "MemoryLow=uint64 2",
                "MemoryHigh=uint64 3",
                "MemoryMax=uint64 18446744073709551615",
                "MemorySwapMax=uint64 5",
                "TasksMax=uint64 1",
                "CPUQuotaPeriodUSec=uint64 50000",
                "CPUQuotaPerSecUSec=uint64 100000",
                "AllowedCPUs=[byte 2]",
                "CPUWeight=uint64 42",
            ]
        );
        assert!(warnings.is_empty());
        let cpu_max = |value: &str| made(&format!(r#"{{"unified":{{"cpu.max":"{value}"}}}}"#), 252).0;
        assert_eq!(cpu_max("max")[1], "CPUQuotaPerSecUSec=uint64 18446744073709551615");
        assert_eq!(cpu_max("10000")[0], "CPUQuotaPeriodUSec=uint64 100000");
    }

    #[test]
    fn weights_and_limits_of_devices_are_only_written() {
        let io = |value: &str| made(&format!(r#"{{"unified":{{"io.weight":"{value}"}}}}"#), 252).0;
        assert_eq!(io("200"), ["IOWeight=uint64 200"]);
        assert_eq!(io("8:0 50\\ndefault 300\\n"), ["IOWeight=uint64 300"]);
        assert!(io("8:0 50").is_empty());
        let throttled = r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":30}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},"unified":{"io.max":"8:0 wbps=1"}}"#;
        assert!(made(throttled, 252).0.is_empty());
    }

    #[test]
    fn a_limit_of_zswap_is_a_property_from_253_on() {
        let json = r#"{"unified":{"memory.zswap.max":"4096"}}"#;
        assert_eq!(made(json, 253).0, ["MemoryZSwapMax=uint64 4096"]);
        assert!(made(json, 252).0.is_empty());
    }

    #[test]
    fn what_makes_no_sense_names_its_key() {
        for (json, text) in [
            (r#"{"unified":{"cpu.max":"1 2 3"}}"#, r#"unified resource "cpu.max" value invalid: "1 2 3""#),
            (r#"{"unified":{"cpu.max":""}}"#, r#"unified resource "cpu.max" value invalid: """#),
            (r#"{"unified":{"pids.max":"-1"}}"#, r#"unified resource "pids.max" value invalid: "-1""#),
            (
                r#"{"unified":{"io.weight":"default x"}}"#,
                r#"unified resource "io.weight" value invalid: " x""#,
            ),
            (r#"{"unified":{"x":"1"}}"#, r#"unified resource "x" must be in the form CONTROLLER.PARAMETER"#),
            (
                r#"{"unified":{".x":"1"}}"#,
                r#"unified resource ".x" must be in the form CONTROLLER.PARAMETER"#,
            ),
            (r#"{"cpu":{"cpus":"3-1"}}"#, r#"resources.CPU.Cpus="3-1" is no list of numbers"#),
            (r#"{"cpu":{"mems":","}}"#, r#"resources.CPU.Mems="," is no list of numbers"#),
            (
                r#"{"unified":{"cpuset.cpus":"0-4294967295"}}"#,
                r#"cpuset.cpus="0-4294967295" is no list of numbers"#,
            ),
        ] {
            assert_eq!(refused(json), text);
        }
    }
}
