//! The device policy as an eBPF program for cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! Pure: an assembler for the few instructions that it takes (kernel: Documentation/bpf/standardization/
//! instruction-set.rst; `struct bpf_cgroup_dev_ctx` in include/uapi/linux/bpf.h). `cgroup::devices` loads the result.
//! The program answers 1 to let an access pass and 0 to refuse it.
//!
//! It has not one jump: each exception's difference from the access is worked out, and the answer is whether one of them
//! is zero. The kernel's verifier follows both ways of every jump, which took 0.4 ms of each start for the default rules
//! with a jump per comparison. It still looks at each instruction, so there are to be few: what differs from the access is
//! a number of 32 bits, of which one less than zero alone sets the highest bit of 64, and exceptions that differ in a small
//! minor number only are one set of bits. The default rules take 59 instructions.

use super::devices::{Access, DeviceKind, DevicePolicy, Exception, Verdict};

/// One instruction, in the kernel's layout but for the register nibbles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub opcode: u8,
    pub destination: u8,
    pub source: u8,
    pub offset: i16,
    pub immediate: i32,
}

impl Instruction {
    /// The eight bytes that bpf(2) takes.
    #[must_use]
    pub fn encode(self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.destination
        } else {
            self.destination << 4 | self.source
        };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_ne_bytes();
        [self.opcode, registers, o0, o1, i0, i1, i2, i3]
    }
}

/// Load a 32-bit word from memory.
pub const LOAD_WORD: u8 = 0x61;
/// 32-bit `destination = immediate`. All of 32 bits clear the upper half of the register.
pub const MOVE_IMMEDIATE: u8 = 0xb4;
/// 32-bit `destination = source`.
pub const MOVE_REGISTER: u8 = 0xbc;
/// 32-bit `destination &= immediate`.
pub const AND_IMMEDIATE: u8 = 0x54;
/// 32-bit `destination |= source`.
pub const OR_REGISTER: u8 = 0x4c;
/// 32-bit `destination ^= immediate`.
pub const XOR_IMMEDIATE: u8 = 0xa4;
/// 32-bit `destination >>= immediate`.
pub const SHIFT_RIGHT_IMMEDIATE: u8 = 0x74;
/// 32-bit `destination >>= source`, by the lowest five bits of it.
pub const SHIFT_RIGHT_REGISTER: u8 = 0x7c;
/// 64-bit `destination += immediate`, its sign extended.
pub const ADD_IMMEDIATE_WIDE: u8 = 0x07;
/// 64-bit `destination |= source`.
pub const OR_REGISTER_WIDE: u8 = 0x4f;
/// 64-bit `destination ^= immediate`, its sign extended.
pub const XOR_IMMEDIATE_WIDE: u8 = 0xa7;
/// 64-bit `destination >>= immediate`.
pub const SHIFT_RIGHT_IMMEDIATE_WIDE: u8 = 0x77;
/// Return r0.
pub const EXIT: u8 = 0x95;

/// The registers: the answer, the context, what the program takes from it, and scratch.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// Zero for a block device.
const NOT_BLOCK: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const DIFFERENCE: u8 = 6;
const SCRATCH: u8 = 7;
/// Zero for a character device.
const NOT_CHAR: u8 = 8;
/// Zero for a minor number that a [`Minors::Set`] can hold.
const BEYOND_SETS: u8 = 9;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// Minor numbers below this can be in a set.
const SET_SIZE: u32 = 32;

/// What the program looks for in one step: the exceptions that differ in nothing but a small minor number.
struct Step {
    kind: DeviceKind,
    access: Access,
    major: Option<u32>,
    minors: Minors,
}

enum Minors {
    Any,
    One(u32),
    /// A bit for each.
    Set(u32),
}

impl Step {
    fn of(Exception { device, access }: &Exception) -> Self {
        let minors = device.minor.map_or(Minors::Any, Minors::One);
        Self { kind: device.kind, access: *access, major: device.major, minors }
    }

    /// Makes this step look for `exception` as well, if it can.
    fn take(&mut self, Exception { device, access }: &Exception) -> bool {
        let bit = |minor: u32| (minor < SET_SIZE).then(|| 1 << minor);
        let set = match self.minors {
            Minors::Any => None,
            Minors::One(minor) => bit(minor),
            Minors::Set(bits) => Some(bits),
        };
        if (self.kind, self.access, self.major) != (device.kind, *access, device.major) {
            return false;
        }
        let (Some(set), Some(one)) = (set, device.minor.and_then(bit)) else { return false };
        self.minors = Minors::Set(set | one);
        true
    }
}

fn steps(policy: &DevicePolicy) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for exception in &policy.exceptions {
        // Those of one major number stand together.
        let mut near = steps.iter_mut().rev().take_while(|step| step.major == exception.device.major);
        if !near.any(|step| step.take(exception)) {
            steps.push(Step::of(exception));
        }
    }
    steps
}

/// The program for a policy.
#[must_use]
pub fn assemble(policy: &DevicePolicy) -> Vec<Instruction> {
    let steps = steps(policy);
    let mut program = vec![
        load(NOT_BLOCK, 0),
        register(MOVE_REGISTER, ACCESS, NOT_BLOCK),
        // The type is in the lower half of the first word, the access in the upper.
        immediate(AND_IMMEDIATE, NOT_BLOCK, 0xffff),
        immediate(SHIFT_RIGHT_IMMEDIATE, ACCESS, 16),
        register(MOVE_REGISTER, NOT_CHAR, NOT_BLOCK),
        immediate(XOR_IMMEDIATE, NOT_CHAR, CHAR),
        immediate(XOR_IMMEDIATE, NOT_BLOCK, BLOCK),
        load(MAJOR, 4),
        load(MINOR, 8),
        // Its highest bit: whether an exception was the access's.
        immediate(MOVE_IMMEDIATE, ANSWER, 0),
    ];
    if steps.iter().any(|step| matches!(step.minors, Minors::Set(_))) {
        program.push(register(MOVE_REGISTER, BEYOND_SETS, MINOR));
        program.push(immediate(SHIFT_RIGHT_IMMEDIATE, BEYOND_SETS, SET_SIZE.ilog2().cast_signed()));
    }
    for step in &steps {
        push_difference(&mut program, step, policy.default);
        program.push(immediate(ADD_IMMEDIATE_WIDE, DIFFERENCE, -1));
        program.push(register(OR_REGISTER_WIDE, ANSWER, DIFFERENCE));
    }
    if policy.default == Verdict::Allow {
        program.push(immediate(XOR_IMMEDIATE_WIDE, ANSWER, -1));
    }
    program.push(immediate(SHIFT_RIGHT_IMMEDIATE_WIDE, ANSWER, 63));
    program.push(immediate(EXIT, 0, 0));
    program
}

/// Leaves in [`DIFFERENCE`] zero if the access is one of the step's, else something of 32 bits.
fn push_difference(program: &mut Vec<Instruction>, step: &Step, default: Verdict) {
    let not_of_kind = match step.kind {
        DeviceKind::Block => NOT_BLOCK,
        DeviceKind::Char => NOT_CHAR,
    };
    match step.major {
        None => program.push(register(MOVE_REGISTER, DIFFERENCE, not_of_kind)),
        Some(major) => program.extend([
            register(MOVE_REGISTER, DIFFERENCE, MAJOR),
            immediate(XOR_IMMEDIATE, DIFFERENCE, major.cast_signed()),
            register(OR_REGISTER, DIFFERENCE, not_of_kind),
        ]),
    }
    match step.minors {
        Minors::Any => {}
        Minors::One(minor) => program.extend([
            register(MOVE_REGISTER, SCRATCH, MINOR),
            immediate(XOR_IMMEDIATE, SCRATCH, minor.cast_signed()),
            register(OR_REGISTER, DIFFERENCE, SCRATCH),
        ]),
        // The minor number's bit of those that are not in the set. A larger number finds one by the lowest bits of it.
        Minors::Set(bits) => program.extend([
            register(OR_REGISTER, DIFFERENCE, BEYOND_SETS),
            immediate(MOVE_IMMEDIATE, SCRATCH, (!bits).cast_signed()),
            register(SHIFT_RIGHT_REGISTER, SCRATCH, MINOR),
            immediate(AND_IMMEDIATE, SCRATCH, 1),
            register(OR_REGISTER, DIFFERENCE, SCRATCH),
        ]),
    }
    if step.access == Access::ALL {
        return;
    }
    let exempt = i32::from(step.access.bits());
    program.push(register(MOVE_REGISTER, SCRATCH, ACCESS));
    match default {
        // Allowed is what asks for nothing beyond the exception.
        Verdict::Deny => program.push(immediate(AND_IMMEDIATE, SCRATCH, !exempt)),
        // Denied is what asks for anything in it, as in v1's controller: "deny reading" also stops an open for
        // reading and writing. (runc 1.5 lets that one pass on v2.)
        Verdict::Allow => program.extend([
            immediate(AND_IMMEDIATE, SCRATCH, exempt),
            immediate(ADD_IMMEDIATE_WIDE, SCRATCH, -1),
            immediate(SHIFT_RIGHT_IMMEDIATE_WIDE, SCRATCH, 63),
        ]),
    }
    program.push(register(OR_REGISTER, DIFFERENCE, SCRATCH));
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction { opcode: LOAD_WORD, destination, source: CONTEXT, offset, immediate: 0 }
}

fn register(opcode: u8, destination: u8, source: u8) -> Instruction {
    Instruction { opcode, destination, source, offset: 0, immediate: 0 }
}

fn immediate(opcode: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { opcode, destination, source: 0, offset: 0, immediate }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::devices::{DeviceMatch, DeviceRule, default_rules};
    use super::*;

    /// An access as the kernel asks about it.
    #[derive(Debug, Clone, Copy)]
    struct Ask {
        kind: DeviceKind,
        major: u32,
        minor: u32,
        access: Access,
    }

    /// An interpreter of the instructions above, with the kernel's 64-bit registers; panics on anything else, on
    /// reading an unset register and on running off the end.
    fn run(program: &[Instruction], ask: Ask) -> bool {
        let kind = match ask.kind {
            DeviceKind::Block => 1,
            DeviceKind::Char => 2,
        };
        let context = [u32::from(ask.access.bits()) << 16 | kind, ask.major, ask.minor];
        let mut registers: [Option<u64>; 11] = [None; 11];
        registers[1] = Some(0);
        for &Instruction { opcode, destination, source, offset, immediate } in program {
            let wide = |register: u8| registers[usize::from(register)].unwrap();
            let read = |register: u8| wide(register) as u32;
            let extended = i64::from(immediate).cast_unsigned();
            let immediate = immediate as u32;
            let result = match opcode {
                LOAD_WORD => {
                    assert_eq!(source, 1);
                    u64::from(context[usize::try_from(offset).unwrap() / 4])
                }
                MOVE_IMMEDIATE => u64::from(immediate),
                MOVE_REGISTER => u64::from(read(source)),
                AND_IMMEDIATE => u64::from(read(destination) & immediate),
                OR_REGISTER => u64::from(read(destination) | read(source)),
                XOR_IMMEDIATE => u64::from(read(destination) ^ immediate),
                SHIFT_RIGHT_IMMEDIATE => u64::from(read(destination) >> immediate),
                SHIFT_RIGHT_REGISTER => u64::from(read(destination) >> (read(source) & 31)),
                ADD_IMMEDIATE_WIDE => wide(destination).wrapping_add(extended),
                OR_REGISTER_WIDE => wide(destination) | wide(source),
                XOR_IMMEDIATE_WIDE => wide(destination) ^ extended,
                SHIFT_RIGHT_IMMEDIATE_WIDE => wide(destination) >> immediate,
                EXIT => match wide(0) {
                    answer @ (0 | 1) => return answer == 1,
                    other => panic!("the kernel refuses to load a program that may answer {other}"),
                },
                other => panic!("opcode {other:#x}"),
            };
            registers[usize::from(destination)] = Some(result);
        }
        panic!("no end")
    }

    /// The reference: v1's words. By default denied, an access passes if one exception covers all of it; by default
    /// allowed, it is refused if one exception touches any of it.
    fn evaluate(policy: &DevicePolicy, ask: Ask) -> bool {
        let about = |device: &DeviceMatch| {
            device.kind == ask.kind
                && device.major.is_none_or(|major| major == ask.major)
                && device.minor.is_none_or(|minor| minor == ask.minor)
        };
        let mut exceptions = policy.exceptions.iter().filter(|exception| about(&exception.device));
        match policy.default {
            Verdict::Deny => exceptions.any(|exception| ask.access.without(exception.access).is_empty()),
            Verdict::Allow => !exceptions.any(|exception| exception.access.intersects(ask.access)),
        }
    }

    fn access() -> impl Strategy<Value = Access> {
        prop::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"]).prop_map(Access::parse)
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0..4_u32, 2 => 30..35_u32, 1 => 62..66_u32, 1 => Just(0x7fff_ffff), 1 => Just(0x8000_0000), 1 => Just(u32::MAX)]
    }

    fn kind() -> impl Strategy<Value = DeviceKind> {
        prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)]
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let wild = || prop_oneof![1 => Just(None), 2 => number().prop_map(Some)];
        let device =
            (wild(), wild(), kind()).prop_map(|(major, minor, kind)| DeviceMatch { major, minor, kind });
        let device = prop_oneof![1 => Just(None), 8 => device.prop_map(Some)];
        let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)];
        (verdict, device, access()).prop_map(|(verdict, device, access)| DeviceRule {
            verdict,
            device,
            access,
        })
    }

    fn ask() -> impl Strategy<Value = Ask> {
        (kind(), number(), number(), access()).prop_map(|(kind, major, minor, access)| Ask {
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_policy_says(
            rules in prop::collection::vec(rule(), 0..12),
            asks in prop::collection::vec(ask(), 1..40),
        ) {
            if let Ok(policy) = DevicePolicy::from_rules(&rules) {
                let program = assemble(&policy);
                for ask in asks {
                    prop_assert_eq!(run(&program, ask), evaluate(&policy, ask), "{:?} {:?}", policy, ask);
                }
            }
        }

        #[test]
        fn a_transition_ends_at_its_target(
            old in prop::collection::vec(rule(), 0..8),
            new in prop::collection::vec(rule(), 0..8),
        ) {
            if let (Ok(old), Ok(new)) = (DevicePolicy::from_rules(&old), DevicePolicy::from_rules(&new)) {
                // devices.list doesn't show what a policy that allows by default denies.
                let seen = match old.default {
                    Verdict::Allow => DevicePolicy { exceptions: vec![], ..old.clone() },
                    Verdict::Deny => old.clone(),
                };
                prop_assert_eq!(old.after(&seen.transition(&new)), new);
            }
        }
    }

    #[test]
    fn the_program_of_an_empty_policy() {
        let words: Vec<_> = assemble(&DevicePolicy::default()).into_iter().map(Instruction::encode).collect();
        assert_eq!(
            words,
            [
                [0x61, 0x12, 0, 0, 0, 0, 0, 0],
                [0xbc, 0x23, 0, 0, 0, 0, 0, 0],
                [0x54, 0x02, 0, 0, 0xff, 0xff, 0, 0],
                [0x74, 0x03, 0, 0, 16, 0, 0, 0],
                [0xbc, 0x28, 0, 0, 0, 0, 0, 0],
                [0xa4, 0x08, 0, 0, 2, 0, 0, 0],
                [0xa4, 0x02, 0, 0, 1, 0, 0, 0],
                [0x61, 0x14, 4, 0, 0, 0, 0, 0],
                [0x61, 0x15, 8, 0, 0, 0, 0, 0],
                [0xb4, 0x00, 0, 0, 0, 0, 0, 0],
                [0x77, 0x00, 0, 0, 63, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn the_default_rules_allow_what_they_name() {
        let policy = DevicePolicy::from_rules(&default_rules(&[])).unwrap();
        let program = assemble(&policy);
        let ask = |kind, major, minor, access| {
            run(&program, Ask { kind, major, minor, access: Access::parse(access) })
        };
        assert!(ask(DeviceKind::Char, 1, 3, "rw"));
        assert!(ask(DeviceKind::Char, 136, 77, "rw"));
        assert!(ask(DeviceKind::Block, 8, 0, "m"));
        assert!(!ask(DeviceKind::Block, 8, 0, "r"));
        assert!(!ask(DeviceKind::Char, 1, 11, "w"));
        assert!(!ask(DeviceKind::Char, 1, 11, "rm"));
        // A set of minor numbers has the lowest bits of larger ones as well.
        assert!(!ask(DeviceKind::Char, 1, 32 + 3, "rw") && !ask(DeviceKind::Char, 5, 256, "rw"));
        assert_eq!(program.len(), 59);
    }

    #[test]
    fn denying_a_part_stops_every_access_that_has_it() {
        let rules = [
            DeviceRule { verdict: Verdict::Allow, device: None, access: Access::ALL },
            DeviceRule {
                verdict: Verdict::Deny,
                device: Some(DeviceMatch { major: Some(1), minor: None, kind: DeviceKind::Char }),
                access: Access::READ,
            },
        ];
        let program = assemble(&DevicePolicy::from_rules(&rules).unwrap());
        let ask = |access| {
            run(&program, Ask { kind: DeviceKind::Char, major: 1, minor: 1, access: Access::parse(access) })
        };
        assert_eq!((ask("r"), ask("rw"), ask("w")), (false, false, true));
    }
}
