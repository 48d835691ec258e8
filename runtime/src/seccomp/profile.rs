//! A profile with its names understood: actions, operators, architectures and flags as types, refused where runc
//! refuses them and in runc's words.
//!
//! Also owns the lists that the `features` command prints. Called by `compile`; knows nothing of numbers and BPF.

use super::arch::{Arch, Syscall};
use super::{FilterFlags, SeccompError};
use crate::spec::{Seccomp, SeccompRule};

/// Actions, in the order of `runc features`.
pub const KNOWN_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Operators, in the order of `runc features`.
pub const KNOWN_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Architectures, in the order of `runc features`.
pub const KNOWN_ARCHS: [&str; 18] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Flags, in the order of `runc features`.
pub const KNOWN_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Those of [`KNOWN_FLAGS`] that a profile may ask for on a kernel that takes `supported`.
pub fn supported_flags(supported: FilterFlags) -> impl Iterator<Item = &'static str> {
    KNOWN_FLAGS.into_iter().filter(move |name| {
        flag_from_oci(name).is_some_and(|flag| flag.is_none_or(|flag| supported.contains(flag)))
    })
}

/// What a filter does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno,
    Trace,
    Log,
    Allow,
    Notify,
}

const EPERM: u32 = 1;

impl Action {
    fn from_oci(name: &str) -> Result<Action, SeccompError> {
        Ok(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
            "SCMP_ACT_TRAP" => Action::Trap,
            "SCMP_ACT_ERRNO" => Action::Errno,
            "SCMP_ACT_TRACE" => Action::Trace,
            "SCMP_ACT_LOG" => Action::Log,
            "SCMP_ACT_ALLOW" => Action::Allow,
            "SCMP_ACT_NOTIFY" => Action::Notify,
            _ => return Err(SeccompError::UnknownAction(name.to_owned())),
        })
    }

    /// `SECCOMP_RET_*` of linux/seccomp.h, with the data that errno and trace carry.
    fn verdict(self, errno_ret: Option<u32>) -> u32 {
        let data = errno_ret.unwrap_or(EPERM) & 0xffff;
        match self {
            Action::KillThread => super::RET_KILL_THREAD,
            Action::KillProcess => 0x8000_0000,
            Action::Trap => 0x0003_0000,
            Action::Errno => super::RET_ERRNO | data,
            Action::Trace => 0x7ff0_0000 | data,
            Action::Log => 0x7ffc_0000,
            Action::Allow => 0x7fff_0000,
            Action::Notify => 0x7fc0_0000,
        }
    }

    /// Whether a call that the profile's author could not know gets past the default action.
    fn is_permissive(self) -> bool {
        // A tracer answers unknown calls by itself.
        matches!(self, Action::Allow | Action::Log | Action::Trace)
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operator {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq,
}

impl Operator {
    fn from_oci(name: &str) -> Result<Operator, SeccompError> {
        Ok(match name {
            "SCMP_CMP_NE" => Operator::Ne,
            "SCMP_CMP_LT" => Operator::Lt,
            "SCMP_CMP_LE" => Operator::Le,
            "SCMP_CMP_EQ" => Operator::Eq,
            "SCMP_CMP_GE" => Operator::Ge,
            "SCMP_CMP_GT" => Operator::Gt,
            "SCMP_CMP_MASKED_EQ" => Operator::MaskedEq,
            _ => return Err(SeccompError::UnknownOperator(name.to_owned())),
        })
    }
}

/// The flag behind a profile's name; `Some(None)` for the one that is known and ignored: a runtime has one thread, and
/// whatever others there were would not survive the exec.
#[expect(clippy::option_option, reason = "known, ignored and unknown are three cases")]
fn flag_from_oci(name: &str) -> Option<Option<FilterFlags>> {
    match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => Some(None),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Some(Some(FilterFlags::SPEC_ALLOW)),
        "SECCOMP_FILTER_FLAG_LOG" => Some(Some(FilterFlags::LOG)),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Some(Some(FilterFlags::WAIT_KILLABLE_RECV)),
        _ => None,
    }
}

/// One condition; `mask` is all ones except for [`Operator::MaskedEq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) operator: Operator,
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// One rule that differs from the default: the calls, and when they get the verdict: any of the alternatives, all of
/// an alternative's conditions. Without alternatives the verdict is unconditional.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) calls: Vec<Syscall>,
    pub(super) verdict: u32,
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// A profile that can be compiled.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    pub(super) default: u32,
    pub(super) permissive: bool,
    /// Native first, then in the profile's order, each once.
    pub(super) archs: Vec<Arch>,
    pub(super) flags: FilterFlags,
    pub(super) rules: Vec<Rule>,
    /// Every call that the profile names, in rules like the default too: they tell what its author knew.
    pub(super) named: Vec<Syscall>,
    pub(super) unknown: Vec<&'a str>,
    pub(super) notify: bool,
}

impl<'a> Profile<'a> {
    /// Understands `profile`; the order of the checks is runc's, so that of several faults both name the same.
    pub(super) fn check(
        profile: &'a Seccomp,
        native: Arch,
        supported: FilterFlags,
    ) -> Result<Self, SeccompError> {
        let mut flags = requested_flags(profile, supported)?;
        let listed = profile
            .architectures
            .iter()
            .map(|name| Arch::from_oci(name).ok_or_else(|| SeccompError::UnknownArch(name.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        let default = Action::from_oci(&profile.default_action)?;
        let mut rules = Vec::with_capacity(profile.syscalls.len());
        for rule in &profile.syscalls {
            let action = Action::from_oci(&rule.action)?;
            if !rule.names.is_empty() {
                let operators =
                    rule.args.iter().map(|arg| Operator::from_oci(&arg.op)).collect::<Result<Vec<_>, _>>()?;
                rules.push((rule, action, operators));
            }
        }
        let mut notify = false;
        for (rule, action, _) in &rules {
            if *action == Action::Notify {
                notify = true;
                // The runtime itself writes the listener's number to its parent after the filter is in force.
                if rule.names.iter().any(|name| name == "write") {
                    return Err(SeccompError::NotifyWrite);
                }
            }
        }
        if default == Action::Notify {
            return Err(SeccompError::NotifyDefault);
        }
        if notify {
            flags = flags.with(FilterFlags::NEW_LISTENER);
        }
        let mut checked = Profile {
            default: default.verdict(profile.default_errno_ret),
            permissive: default.is_permissive(),
            archs: architectures(native, listed)?,
            flags,
            rules: Vec::with_capacity(rules.len()),
            named: Vec::new(),
            unknown: Vec::new(),
            notify,
        };
        for (rule, action, operators) in rules {
            checked.add(rule, action, &operators)?;
        }
        Ok(checked)
    }

    fn add(
        &mut self,
        rule: &'a SeccompRule,
        action: Action,
        operators: &[Operator],
    ) -> Result<(), SeccompError> {
        let verdict = action.verdict(rule.errno_ret);
        let is_default = verdict == self.default;
        let mut calls = Vec::with_capacity(rule.names.len());
        for name in &rule.names {
            if name.is_empty() {
                return Err(SeccompError::EmptyName);
            }
            match Syscall::from_name(name) {
                Some(call) => calls.push(call),
                None if is_default => {}
                None => self.unknown.push(name),
            }
        }
        self.named.extend_from_slice(&calls);
        // A rule like the default changes nothing, whatever its conditions say.
        if let (false, Some(first)) = (is_default, calls.first()) {
            let alternatives = alternatives(rule, operators, *first)?;
            self.rules.push(Rule { calls, verdict, alternatives });
        }
        Ok(())
    }
}

fn requested_flags(profile: &Seccomp, supported: FilterFlags) -> Result<FilterFlags, SeccompError> {
    let Some(names) = &profile.flags else {
        return Ok(if supported.contains(FilterFlags::SPEC_ALLOW) {
            FilterFlags::SPEC_ALLOW
        } else {
            FilterFlags::NONE
        });
    };
    names.iter().try_fold(FilterFlags::NONE, |flags, name| match flag_from_oci(name) {
        None => Err(SeccompError::UnknownFlag(name.clone())),
        Some(None) => Ok(flags),
        Some(Some(flag)) if supported.contains(flag) => Ok(flags.with(flag)),
        Some(Some(_)) => Err(SeccompError::UnsupportedFlag(name.clone())),
    })
}

fn architectures(native: Arch, listed: Vec<Arch>) -> Result<Vec<Arch>, SeccompError> {
    let mut archs = vec![native];
    for arch in listed {
        if arch.byte_order() != native.byte_order() {
            return Err(SeccompError::ForeignByteOrder { arch, native });
        }
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    Ok(archs)
}

/// The conditions of a rule. All must hold, unless two of them look at the same argument: libseccomp can't have that in
/// one rule, so runc makes a rule of each, and with it an "or" out of the "and".
fn alternatives(
    rule: &SeccompRule,
    operators: &[Operator],
    call: Syscall,
) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let mut seen = [false; 6];
    let mut repeated = false;
    let mut conditions = Vec::with_capacity(rule.args.len());
    for (arg, &operator) in rule.args.iter().zip(operators) {
        let (Ok(index), Some(seen)) = (u8::try_from(arg.index), seen.get_mut(arg.index as usize)) else {
            return Err(SeccompError::ArgumentIndex { syscall: call.name(), index: arg.index });
        };
        repeated |= std::mem::replace(seen, true);
        let (mask, value) = match operator {
            Operator::MaskedEq => (arg.value, arg.value_two & arg.value),
            _ => (u64::MAX, arg.value),
        };
        conditions.push(Condition { index, operator, mask, value });
    }
    Ok(if conditions.is_empty() {
        Vec::new()
    } else if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    })
}
