//! Runs a filter as the kernel would, to check programs by what they do.
//!
//! Knows the instructions that seccomp filters are made of (ours and libseccomp's) and faults on any other, and on all
//! that the kernel's verifier refuses. Called by tests and fuzz
//! targets, and by [`super::Program::allows`].

use thiserror::Error;

use super::arch::ByteOrder;
use super::bpf::{ALU_AND, JA, JEQ, JGE, JGT, JSET, LD_ABS, RET, SockFilter};

/// What a filter is asked about: `struct seccomp_data` of linux/seccomp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeccompData {
    /// The system call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where the call was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// The word at a byte offset, or `None` where the kernel lets no filter look.
    fn word(&self, offset: u32, order: ByteOrder) -> Option<u32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let wide = match offset / 4 {
            0 => return Some(self.number),
            1 => return Some(self.arch),
            2 | 3 => self.instruction_pointer,
            word => *self.args.get((word as usize - 4) / 2)?,
        };
        let high = (offset / 4) % 2 == u32::from(order == ByteOrder::Little);
        #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
        Some(if high { (wide >> 32) as u32 } else { wide as u32 })
    }
}

/// Why a program is none that the kernel would run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It has no end, or a jump leads past it.
    #[error("instruction {0} lies outside of the program")]
    OutOfProgram(usize),
    /// An instruction that no seccomp filter of ours or libseccomp's has.
    #[error("instruction {at} has the unknown code {code:#x}")]
    UnknownInstruction {
        /// Its place.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A load from where `seccomp_data` has no word.
    #[error("instruction {at} loads from offset {offset}")]
    BadLoad {
        /// Its place.
        at: usize,
        /// Its operand.
        offset: u32,
    },
}

/// The filter's verdict (`SECCOMP_RET_*`) on `data`.
pub fn run(filter: &[SockFilter], data: &SeccompData, order: ByteOrder) -> Result<u32, Fault> {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let instruction = filter.get(at).ok_or(Fault::OutOfProgram(at))?;
        let k = instruction.k;
        let holds = match instruction.code {
            RET => return Ok(k),
            LD_ABS => {
                accumulator = data.word(k, order).ok_or(Fault::BadLoad { at, offset: k })?;
                at += 1;
                continue;
            }
            ALU_AND => {
                accumulator &= k;
                at += 1;
                continue;
            }
            JA => {
                at += 1 + k as usize;
                continue;
            }
            JEQ => accumulator == k,
            JGT => accumulator > k,
            JGE => accumulator >= k,
            JSET => accumulator & k != 0,
            code => return Err(Fault::UnknownInstruction { at, code }),
        };
        at += 1 + usize::from(if holds { instruction.jt } else { instruction.jf });
    }
}

/// What the kernel checks before it takes a filter: known instructions, jumps inside of the program, a return at its
/// end, and all of it short enough.
pub fn verify(filter: &[SockFilter]) -> Result<(), Fault> {
    if filter.len() > super::MAX_INSTRUCTIONS {
        return Err(Fault::OutOfProgram(filter.len()));
    }
    for (at, instruction) in filter.iter().enumerate() {
        let farthest = match instruction.code {
            RET => at,
            LD_ABS if instruction.k < 64 && instruction.k.is_multiple_of(4) => at + 1,
            LD_ABS => return Err(Fault::BadLoad { at, offset: instruction.k }),
            ALU_AND => at + 1,
            JA => at + 1 + instruction.k as usize,
            JEQ | JGT | JGE | JSET => at + 1 + usize::from(instruction.jt.max(instruction.jf)),
            code => return Err(Fault::UnknownInstruction { at, code }),
        };
        if farthest >= filter.len() {
            return Err(Fault::OutOfProgram(farthest));
        }
    }
    match filter.last() {
        Some(last) if last.code == RET => Ok(()),
        _ => Err(Fault::OutOfProgram(filter.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: SeccompData = SeccompData {
        number: 1,
        arch: 2,
        instruction_pointer: 0x0000_0004_0000_0003,
        args: [0x0000_0006_0000_0005, 0, 0, 0, 0, 0x0000_0010_0000_000f],
    };

    fn load(k: u32) -> SockFilter {
        SockFilter { code: LD_ABS, jt: 0, jf: 0, k }
    }

    fn ret(k: u32) -> SockFilter {
        SockFilter { code: RET, jt: 0, jf: 0, k }
    }

    #[test]
    fn words_lie_where_the_kernel_puts_them() {
        let little = [(0, 1), (4, 2), (8, 3), (12, 4), (16, 5), (20, 6), (56, 15), (60, 16)];
        for (offset, value) in little {
            assert_eq!(DATA.word(offset, ByteOrder::Little), Some(value), "{offset}");
        }
        assert_eq!(DATA.word(16, ByteOrder::Big), Some(6));
        assert_eq!(DATA.word(20, ByteOrder::Big), Some(5));
        assert_eq!(DATA.word(64, ByteOrder::Little), None);
        assert_eq!(DATA.word(2, ByteOrder::Little), None);
    }

    #[test]
    fn jumps_are_relative_to_the_next_instruction() {
        let filter = [load(16), SockFilter { code: JGT, jt: 1, jf: 0, k: 4 }, ret(1), ret(2)];
        assert_eq!(run(&filter, &DATA, ByteOrder::Little), Ok(2));
        verify(&filter).unwrap();
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        assert!(verify(&[]).is_err());
        assert!(verify(&[load(0)]).is_err());
        assert!(verify(&[load(64), ret(0)]).is_err());
        assert!(verify(&[SockFilter { code: JA, jt: 0, jf: 0, k: 1 }, ret(0)]).is_err());
        assert!(verify(&[SockFilter { code: 0x61, jt: 0, jf: 0, k: 1 }, ret(0)]).is_err());
        assert!(verify(&vec![ret(0); 4097]).is_err());
        assert_eq!(run(&[load(0)], &DATA, ByteOrder::Little), Err(Fault::OutOfProgram(1)));
    }
}
