//! Classic BPF: the instruction, and an assembler that writes a program from its end to its start.
//!
//! Backwards, because every jump of classic BPF goes forwards: its target then lies where it will stay. Conditional
//! jumps reach 255 instructions; the assembler bridges what is farther. Called by `tree`; knows nothing of seccomp.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instruction, `struct sock_filter` of linux/filter.h. In JSON it is the text `code jt jf k`, the code and the
/// operand in hexadecimal, as in `15 0 3 c000003e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl fmt::Display for SockFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x} {} {} {:x}", self.code, self.jt, self.jf, self.k)
    }
}

impl FromStr for SockFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an instruction as `code jt jf k`";
        let mut fields = text.split(' ');
        let mut next = || fields.next().ok_or(EXPECTED);
        let instruction = SockFilter {
            code: u16::from_str_radix(next()?, 16).map_err(|_| EXPECTED)?,
            jt: next()?.parse().map_err(|_| EXPECTED)?,
            jf: next()?.parse().map_err(|_| EXPECTED)?,
            k: u32::from_str_radix(next()?, 16).map_err(|_| EXPECTED)?,
        };
        if fields.next().is_some() { Err(EXPECTED) } else { Ok(instruction) }
    }
}

impl Serialize for SockFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SockFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

// linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS and so on.
pub(super) const LD_ABS: u16 = 0x20;
pub(super) const ALU_AND: u16 = 0x54;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const JSET: u16 = 0x45;
pub(super) const RET: u16 = 0x06;

/// An unsigned comparison of the accumulator with the operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Test {
    fn code(self) -> u16 {
        match self {
            Test::Equal => JEQ,
            Test::Greater => JGT,
            Test::GreaterOrEqual => JGE,
        }
    }
}

/// An instruction that has been written, by its distance from the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Writes a program from its end to its start: whatever is written lies before all that was written earlier.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<SockFilter>,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// How many instructions stand between the next one and its jump's target, at most.
    const REACH: usize = 255;

    /// `return value`. One instruction serves all jumps that reach it.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(known, _)| *known == value);
        if let Some(at) = known {
            let label = self.returns[at].1;
            // Half the reach, so that what is placed between here and the jump seldom makes it too far after all.
            if self.reversed.len() - label.0 <= Self::REACH / 2 {
                return label;
            }
        }
        let label = self.push(RET, 0, 0, value);
        match known {
            Some(at) => self.returns[at].1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Loads the word of `seccomp_data` at `offset`, then goes on with what was written last.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(LD_ABS, 0, 0, offset)
    }

    /// Masks the accumulator, then goes on with what was written last.
    pub(super) fn and(&mut self, mask: u32) -> Label {
        self.push(ALU_AND, 0, 0, mask)
    }

    /// Goes to `yes` when the test of the accumulator against `k` holds, else to `no`.
    pub(super) fn branch(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.within(yes, Self::REACH - 1);
        let no = self.within(no, Self::REACH);
        let (jt, jf) = (self.short(yes), self.short(no));
        self.push(test.code(), jt, jf, k)
    }

    /// Makes `target` what was written last.
    pub(super) fn go_on_with(&mut self, target: Label) {
        self.within(target, 0);
    }

    /// `target`, or a bridge to it when more than `reach` instructions lie between it and the next one.
    fn within(&mut self, target: Label, reach: usize) -> Label {
        let distance = self.distance(target);
        if distance <= reach {
            return target;
        }
        let instruction = self.reversed[target.0];
        if instruction.code == RET {
            // As short as a jump to it, and one step less to run.
            return self.push(RET, 0, 0, instruction.k);
        }
        self.push(JA, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX))
    }

    /// Instructions between the next one and `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    fn short(&self, target: Label) -> u8 {
        u8::try_from(self.distance(target)).unwrap_or(u8::MAX)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// The program, which starts with what was written last.
    pub(super) fn finish(self) -> Vec<SockFilter> {
        let mut program = self.reversed;
        program.reverse();
        program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_survive_json() {
        let instruction = SockFilter { code: JEQ, jt: 0, jf: 255, k: 0xc000_003e };
        let text = serde_json::to_string(&instruction).unwrap();
        assert_eq!(text, r#""15 0 255 c000003e""#);
        assert_eq!(serde_json::from_str::<SockFilter>(&text).unwrap(), instruction);
        for wrong in ["", "15 0 255", "15 0 255 c000003e 1", "15 0 256 0", "x 0 0 0"] {
            assert!(wrong.parse::<SockFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn far_targets_are_bridged() {
        let mut asm = Assembler::default();
        let far_no = asm.ret(1);
        asm.go_on_with(far_no);
        let far_yes = asm.load(7);
        for _ in 0..600 {
            asm.load(0);
        }
        asm.branch(Test::Equal, 9, far_yes, far_no);
        let program = asm.finish();
        assert_eq!(program[0], SockFilter { code: JEQ, jt: 1, jf: 0, k: 9 });
        assert_eq!(program[1], SockFilter { code: RET, jt: 0, jf: 0, k: 1 });
        assert_eq!(program[2].code, JA);
        assert_eq!(program[3 + program[2].k as usize].k, 7);
    }

    #[test]
    fn the_longest_short_jump_is_taken() {
        for between in 250..260 {
            let mut asm = Assembler::default();
            let end = asm.load(7);
            for _ in 0..between {
                asm.load(0);
            }
            asm.branch(Test::Greater, 1, end, end);
            let program = asm.finish();
            let target = |offset: u8| {
                let at = 1 + usize::from(offset);
                if program[at].code == JA { at + 1 + program[at].k as usize } else { at }
            };
            assert_eq!(program[target(program[0].jt)].k, 7, "{between}");
            assert_eq!(program[target(program[0].jf)].k, 7, "{between}");
        }
    }
}
