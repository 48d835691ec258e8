//! What a profile means, written as straight as possible and sharing nothing with the compiler but the table of calls:
//! the judge in this folder's tests.

use std::collections::HashMap;

use super::interpreter::SeccompData;
use super::{Arch, Syscall};
use crate::spec::{Seccomp, SeccompArg, SeccompRule};

const KILL: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | 38;

/// A profile, asked call by call.
pub(super) struct Reference<'a> {
    profile: &'a Seccomp,
    archs: Vec<Arch>,
    names: HashMap<(Arch, u32), Vec<&'static str>>,
}

impl<'a> Reference<'a> {
    pub(super) fn new(profile: &'a Seccomp, native: Arch) -> Self {
        let mut archs: Vec<Arch> =
            profile.architectures.iter().map(|name| Arch::from_oci(name).unwrap()).collect();
        archs.push(native);
        let mut names: HashMap<_, Vec<_>> = HashMap::new();
        for &arch in &archs {
            for call in Syscall::all() {
                if let Some(number) = arch.number(call) {
                    names.entry((arch, number)).or_default().push(call.name());
                }
            }
        }
        Reference { profile, archs, names }
    }

    pub(super) fn verdict(&self, data: &SeccompData) -> u32 {
        let default = action(&self.profile.default_action, self.profile.default_errno_ret);
        let has = |arch| self.archs.contains(&arch);
        let arch = if data.arch == Arch::X86_64.audit() {
            let x32_bit = data.number & 0x4000_0000 != 0;
            let above = data.number >= 0x4000_0000;
            if above && !x32_bit && has(Arch::X86_64) && self.newest(Arch::X86_64).is_some() {
                return ENOSYS;
            }
            match (above, has(Arch::X86_64), has(Arch::X32)) {
                (false, true, _) => Arch::X86_64,
                (true, _, true) if x32_bit => Arch::X32,
                (true, _, true) => return default,
                (true, true, false) if data.number == u32::MAX => return default,
                _ => return KILL,
            }
        } else {
            match Arch::ALL.into_iter().find(|&arch| arch.audit() == data.arch && has(arch)) {
                Some(arch) => arch,
                None => return KILL,
            }
        };
        if let Some(newest) = self.newest(arch) {
            let setup = matches!(arch, Arch::S390 | Arch::S390x) && data.number == 0;
            if setup || data.number > newest {
                return ENOSYS;
            }
        }
        let nothing = Vec::new();
        let names = self.names.get(&(arch, data.number)).unwrap_or(&nothing);
        let direct = |rule: &SeccompRule| rule.names.iter().any(|name| names.contains(&name.as_str()));
        let rules =
            || self.profile.syscalls.iter().filter(|rule| action(&rule.action, rule.errno_ret) != default);
        // Unconditional rules first.
        for rule in rules() {
            if direct(rule) && rule.args.iter().all(|arg| is_void(arg, arch)) && !split(rule) {
                return action(&rule.action, rule.errno_ret);
            }
            if direct(rule) && split(rule) && rule.args.iter().any(|arg| is_void(arg, arch)) {
                return action(&rule.action, rule.errno_ret);
            }
        }
        for rule in rules() {
            for name in &rule.names {
                let multiplexed = Syscall::from_name(name)
                    .and_then(|call| arch.multiplexed(call))
                    .is_some_and(|(number, selector)| {
                        number == data.number
                            && u64::from(data.args[0] as u32) == selector
                            && (is_32_bit(arch) || data.args[0] >> 32 == 0)
                    });
                let through_multiplexer = multiplexed && {
                    let rest: Vec<_> = rule.args.iter().filter(|arg| arg.index != 0).collect();
                    if split(rule) {
                        rule.args.iter().any(|arg| arg.index == 0 || holds(arg, data, arch))
                    } else {
                        rest.iter().all(|arg| holds(arg, data, arch))
                    }
                };
                let directly = names.contains(&name.as_str())
                    && if split(rule) {
                        rule.args.iter().any(|arg| holds(arg, data, arch))
                    } else {
                        rule.args.iter().all(|arg| holds(arg, data, arch))
                    };
                if through_multiplexer || directly {
                    return action(&rule.action, rule.errno_ret);
                }
            }
        }
        default
    }

    fn newest(&self, arch: Arch) -> Option<u32> {
        if matches!(
            self.profile.default_action.as_str(),
            "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE"
        ) {
            return None;
        }
        self.profile
            .syscalls
            .iter()
            .flat_map(|rule| &rule.names)
            .filter_map(|name| arch.number(Syscall::from_name(name)?))
            .max()
            .filter(|&number| number != 0)
    }

    /// Whether a rule with conditions, or one that a multiplexer serves, is about `number` on any architecture.
    pub(super) fn looks_at_arguments(&self, number: u32) -> bool {
        self.archs.iter().any(|&arch| {
            self.profile.syscalls.iter().any(|rule| {
                rule.names.iter().filter_map(|name| Syscall::from_name(name)).any(|call| {
                    arch.multiplexed(call).is_some_and(|(multiplexer, _)| multiplexer == number)
                        || !rule.args.is_empty() && arch.number(call) == Some(number)
                })
            })
        })
    }

    /// Numbers at which the verdict may change, and some beside them.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = vec![0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff];
        numbers.extend([0xc000_0000, 0xffff_fffe, 0xffff_ffff, 0xf_0000, 0xf_0010, 0x10_0000]);
        numbers.extend(0..600);
        numbers.extend(0x4000_0000..0x4000_0000 + 600);
        numbers
            .extend(self.names.keys().flat_map(|&(_, number)| [number - 1.min(number), number, number + 1]));
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Audit numbers of the profile's architectures and of one that it lacks.
    pub(super) fn audits(&self) -> Vec<u32> {
        let mut audits: Vec<u32> = self.archs.iter().map(|arch| arch.audit()).collect();
        audits.push(Arch::ALL.iter().find(|arch| !self.archs.contains(arch)).map_or(1, |arch| arch.audit()));
        audits.push(0);
        audits.sort_unstable();
        audits.dedup();
        audits
    }

    /// Values of each argument at which some condition may turn, for the calls that have conditions.
    pub(super) fn boundaries(&self) -> [Vec<u64>; 6] {
        let mut values: [Vec<u64>; 6] = Default::default();
        for arg in self.profile.syscalls.iter().flat_map(|rule| &rule.args) {
            let Some(values) = values.get_mut(arg.index as usize) else { continue };
            for value in [arg.value, arg.value_two, arg.value & arg.value_two, !arg.value] {
                for high in [value, value ^ (1 << 32), value & 0xffff_ffff, value | 0xffff_ffff_0000_0000] {
                    values.extend([high.wrapping_sub(1), high, high.wrapping_add(1)]);
                }
                values.extend([value.wrapping_sub(1 << 32), value.wrapping_add(1 << 32)]);
            }
        }
        for values in &mut values {
            values.extend([0, 1, 5, u64::from(u32::MAX), 1 << 32, u64::MAX]);
            values.sort_unstable();
            values.dedup();
        }
        values
    }
}

fn split(rule: &SeccompRule) -> bool {
    rule.args.iter().enumerate().any(|(at, arg)| rule.args[..at].iter().any(|other| other.index == arg.index))
}

fn is_32_bit(arch: Arch) -> bool {
    matches!(
        arch,
        Arch::X86
            | Arch::X32
            | Arch::Arm
            | Arch::Mips
            | Arch::Mipsel
            | Arch::Mips64n32
            | Arch::Mipsel64n32
            | Arch::Ppc
            | Arch::S390
    )
}

/// A mask that looks at no bit of the argument.
fn is_void(arg: &SeccompArg, arch: Arch) -> bool {
    let mask = if is_32_bit(arch) { arg.value & 0xffff_ffff } else { arg.value };
    arg.op == "SCMP_CMP_MASKED_EQ" && mask == 0
}

fn holds(arg: &SeccompArg, data: &SeccompData, arch: Arch) -> bool {
    let width = if is_32_bit(arch) { 0xffff_ffff } else { u64::MAX };
    let (actual, value, second) =
        (data.args[arg.index as usize] & width, arg.value & width, arg.value_two & width);
    match arg.op.as_str() {
        "SCMP_CMP_NE" => actual != value,
        "SCMP_CMP_LT" => actual < value,
        "SCMP_CMP_LE" => actual <= value,
        "SCMP_CMP_EQ" => actual == value,
        "SCMP_CMP_GE" => actual >= value,
        "SCMP_CMP_GT" => actual > value,
        "SCMP_CMP_MASKED_EQ" => actual & value == second & value,
        other => panic!("{other}"),
    }
}

fn action(name: &str, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1) & 0xffff;
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        other => panic!("{other}"),
    }
}
