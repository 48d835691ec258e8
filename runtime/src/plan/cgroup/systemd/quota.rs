//! CPU time: systemd counts it in hundredths of a CPU, so that a quota may come out a little larger than asked for.

use super::super::nonzero;
use super::{Property, SystemdFacts};
use crate::dbus::Value;
use crate::spec::resources::Cpu;

/// Microseconds: the kernel's default.
const DEFAULT_PERIOD: u64 = 100_000;
const SECOND: u128 = 1_000_000;
/// A hundredth of a CPU, in microseconds for a second.
const STEP: u128 = 10_000;

fn exact(quota: u64, period: u64) -> u128 {
    u128::from(quota) * SECOND / u128::from(period.max(1))
}

/// The microseconds of each second that a quota comes to, in whole hundredths of a CPU, rounded up.
fn per_second(quota: u64, period: u64) -> u64 {
    u64::try_from(exact(quota, period).next_multiple_of(STEP)).unwrap_or(u64::MAX)
}

/// The quota that systemd makes of one, so that what is written to the cgroup is the same.
fn rounded(quota: i64, period: u64) -> i64 {
    match u64::try_from(quota) {
        Ok(positive) if positive > 0 && !exact(positive, period).is_multiple_of(STEP) => {
            let quota = u128::from(per_second(positive, period)) * u128::from(period) / SECOND;
            i64::try_from(quota).unwrap_or(i64::MAX)
        }
        _ => quota,
    }
}

/// A quota that systemd can have.
pub(super) fn round(cpu: &mut Cpu) {
    let period = nonzero(cpu.period).unwrap_or(DEFAULT_PERIOD);
    cpu.quota = cpu.quota.map(|quota| rounded(quota, period));
}

/// `cpu.quota` and `cpu.period`.
pub(super) fn of_cpu(cpu: &Cpu, facts: &SystemdFacts, properties: &mut Vec<Property>) {
    let (quota, period) = (nonzero(cpu.quota), nonzero(cpu.period));
    if quota.is_some() || period.is_some() {
        push(quota.unwrap_or(0), period, facts, properties);
    }
}

/// Below 1, the quota is no limit.
pub(super) fn push(quota: i64, period: Option<u64>, facts: &SystemdFacts, properties: &mut Vec<Property>) {
    if let Some(period) = period.filter(|_| facts.version >= 242) {
        properties.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    let per_second = match u64::try_from(quota) {
        Ok(quota) if quota > 0 => per_second(quota, period.unwrap_or(DEFAULT_PERIOD)),
        _ => u64::MAX,
    };
    properties.push(Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_rounded_up_to_hundredths() {
        assert_eq!(per_second(500_000, 1_000_000), 500_000);
        assert_eq!(per_second(4_000, 10_000), 400_000);
        assert_eq!(per_second(12_345, 100_000), 130_000);
        assert_eq!(per_second(u64::MAX, 1), u64::MAX);
        assert_eq!(rounded(12_345, 100_000), 13_000);
        assert_eq!(rounded(50_000, 100_000), 50_000);
        assert_eq!(rounded(-1, 100_000), -1);
        assert_eq!(rounded(0, 100_000), 0);
        assert_eq!(rounded(i64::MAX, 1), i64::MAX);
    }
}
