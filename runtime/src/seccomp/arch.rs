//! The architectures that a profile can name, and what a system call's name means on each.
//!
//! Owns the facts of an architecture (audit number, byte order, width of an argument, multiplexed calls) and the look-up
//! in the generated tables, which are packed at compile time: nothing is built, relocated or allocated at run time.
//! Called by the rest of this folder; decides nothing about verdicts.

use serde::{Deserialize, Serialize};

use super::syscalls::{NONE, ROWS};

/// An architecture, by the kernel's seccomp(2) view: its audit number and its table of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Arch {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Mips,
    Mips64,
    Mips64n32,
    Mipsel,
    Mipsel64,
    Mipsel64n32,
    Ppc,
    Ppc64,
    Ppc64le,
    Riscv64,
    S390,
    S390x,
    Loongarch64,
}

/// Where the halves of a 64-bit argument lie in the kernel's `seccomp_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Low half first.
    Little,
    /// High half first.
    Big,
}

/// How much of an argument a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ArgWidth {
    /// The low 32 bits, on architectures (and x32 and n32) that libseccomp holds for 32-bit ones.
    Half,
    /// All 64 bits.
    Full,
}

/// The bit that tells an x32 call from an x86_64 one: they share an audit number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A column of the generated table, in its order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    X86_64,
    X86,
    X32,
    Arm,
    Aarch64,
    Riscv64,
    Loongarch64,
    Mips,
    Mips64,
    Mips64n32,
    Ppc,
    Ppc64,
    S390,
    S390x,
}

struct Facts {
    arch: Arch,
    oci: &'static str,
    go: &'static str,
    audit: u32,
    order: ByteOrder,
    width: ArgWidth,
    column: Column,
    /// The numbers of socketcall(2) and ipc(2), where these multiplex the calls of their families.
    multiplexers: Option<(u32, u32)>,
}

#[rustfmt::skip]
static FACTS: [Facts; 18] = {
    use ArgWidth::{Full, Half};
    use ByteOrder::{Big, Little};
    #[expect(clippy::too_many_arguments, reason = "a row of the table")]
    const fn facts(
        arch: Arch, oci: &'static str, go: &'static str, audit: u32,
        order: ByteOrder, width: ArgWidth, column: Column, multiplexers: Option<(u32, u32)>,
    ) -> Facts {
        Facts { arch, oci, go, audit, order, width, column, multiplexers }
    }
    const PLAIN: Option<(u32, u32)> = Some((102, 117));
    const O32: Option<(u32, u32)> = Some((4102, 4117));
    [
        facts(Arch::X86, "SCMP_ARCH_X86", "x86", 0x4000_0003, Little, Half, Column::X86, PLAIN),
        facts(Arch::X86_64, "SCMP_ARCH_X86_64", "amd64", 0xc000_003e, Little, Full, Column::X86_64, None),
        facts(Arch::X32, "SCMP_ARCH_X32", "x32", 0xc000_003e, Little, Half, Column::X32, None),
        facts(Arch::Arm, "SCMP_ARCH_ARM", "arm", 0x4000_0028, Little, Half, Column::Arm, None),
        facts(Arch::Aarch64, "SCMP_ARCH_AARCH64", "arm64", 0xc000_00b7, Little, Full, Column::Aarch64, None),
        facts(Arch::Mips, "SCMP_ARCH_MIPS", "mips", 0x0000_0008, Big, Half, Column::Mips, O32),
        facts(Arch::Mips64, "SCMP_ARCH_MIPS64", "mips64", 0x8000_0008, Big, Full, Column::Mips64, None),
        facts(Arch::Mips64n32, "SCMP_ARCH_MIPS64N32", "mips64n32", 0xa000_0008, Big, Half, Column::Mips64n32, None),
        facts(Arch::Mipsel, "SCMP_ARCH_MIPSEL", "mipsel", 0x4000_0008, Little, Half, Column::Mips, O32),
        facts(Arch::Mipsel64, "SCMP_ARCH_MIPSEL64", "mipsel64", 0xc000_0008, Little, Full, Column::Mips64, None),
        facts(Arch::Mipsel64n32, "SCMP_ARCH_MIPSEL64N32", "mipsel64n32", 0xe000_0008, Little, Half, Column::Mips64n32, None),
        facts(Arch::Ppc, "SCMP_ARCH_PPC", "ppc", 0x0000_0014, Big, Half, Column::Ppc, PLAIN),
        facts(Arch::Ppc64, "SCMP_ARCH_PPC64", "ppc64", 0x8000_0015, Big, Full, Column::Ppc64, PLAIN),
        facts(Arch::Ppc64le, "SCMP_ARCH_PPC64LE", "ppc64le", 0xc000_0015, Little, Full, Column::Ppc64, PLAIN),
        facts(Arch::Riscv64, "SCMP_ARCH_RISCV64", "riscv64", 0xc000_00f3, Little, Full, Column::Riscv64, None),
        facts(Arch::S390, "SCMP_ARCH_S390", "s390", 0x0000_0016, Big, Half, Column::S390, PLAIN),
        facts(Arch::S390x, "SCMP_ARCH_S390X", "s390x", 0x8000_0016, Big, Full, Column::S390x, PLAIN),
        facts(Arch::Loongarch64, "SCMP_ARCH_LOONGARCH64", "loong64", 0xc000_0102, Little, Full, Column::Loongarch64, None),
    ]
};

impl Arch {
    /// Every architecture.
    pub const ALL: [Arch; FACTS.len()] = {
        let mut all = [Arch::X86; FACTS.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = FACTS[at].arch;
            assert!(FACTS[at].arch as usize == at, "FACTS is indexed by Arch");
            at += 1;
        }
        all
    };

    /// The architecture that this binary was built for.
    pub const NATIVE: Arch = if cfg!(target_arch = "x86_64") {
        if cfg!(target_pointer_width = "32") { Arch::X32 } else { Arch::X86_64 }
    } else if cfg!(target_arch = "x86") {
        Arch::X86
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "arm") {
        Arch::Arm
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else if cfg!(target_arch = "powerpc64") {
        if cfg!(target_endian = "big") { Arch::Ppc64 } else { Arch::Ppc64le }
    } else if cfg!(target_arch = "s390x") {
        Arch::S390x
    } else if cfg!(target_arch = "loongarch64") {
        Arch::Loongarch64
    } else {
        panic!("ketch has no system call table for this architecture")
    };

    fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }

    /// By the name that a profile uses (`SCMP_ARCH_X86_64`).
    pub fn from_oci(name: &str) -> Option<Arch> {
        FACTS.iter().find(|facts| facts.oci == name).map(|facts| facts.arch)
    }

    /// The name that a profile uses.
    pub fn oci_name(self) -> &'static str {
        self.facts().oci
    }

    /// The name in runc's messages (`amd64`).
    pub fn name(self) -> &'static str {
        self.facts().go
    }

    /// `AUDIT_ARCH_*` of linux/audit.h, as a filter sees it.
    pub fn audit(self) -> u32 {
        self.facts().audit
    }

    /// Byte order of `seccomp_data`.
    pub fn byte_order(self) -> ByteOrder {
        self.facts().order
    }

    pub(super) fn arg_width(self) -> ArgWidth {
        self.facts().width
    }

    /// The call's number, unless the architecture lacks it.
    pub fn number(self, call: Syscall) -> Option<u32> {
        let column = self.facts().column;
        unpack(column, NUMBERS[usize::from(call.0)][column as usize])
    }

    /// The second way to the same call on architectures that multiplex its family: the number of socketcall(2) or
    /// ipc(2), and what it takes for its first argument.
    pub fn multiplexed(self, call: Syscall) -> Option<(u32, u64)> {
        let (socketcall, ipc) = self.facts().multiplexers?;
        match SELECTORS[usize::from(call.0)] {
            0 => None,
            selector if selector & IPC != 0 => Some((ipc, u64::from(selector & !IPC))),
            selector => Some((socketcall, u64::from(selector))),
        }
    }
}

/// Marks a selector of ipc(2) among those of socketcall(2).
const IPC: u8 = 0x80;

/// The selectors of linux/net.h and linux/ipc.h.
#[rustfmt::skip]
const MULTIPLEXED: [(&str, u8); 32] = [
    ("socket", 1), ("bind", 2), ("connect", 3), ("listen", 4), ("accept", 5), ("getsockname", 6), ("getpeername", 7),
    ("socketpair", 8), ("send", 9), ("recv", 10), ("sendto", 11), ("recvfrom", 12), ("shutdown", 13),
    ("setsockopt", 14), ("getsockopt", 15), ("sendmsg", 16), ("recvmsg", 17), ("accept4", 18), ("recvmmsg", 19),
    ("sendmmsg", 20),
    ("semop", IPC | 1), ("semget", IPC | 2), ("semctl", IPC | 3), ("semtimedop", IPC | 4), ("msgsnd", IPC | 11),
    ("msgrcv", IPC | 12), ("msgget", IPC | 13), ("msgctl", IPC | 14), ("shmat", IPC | 21), ("shmdt", IPC | 22),
    ("shmget", IPC | 23), ("shmctl", IPC | 24),
];

static SELECTORS: [u8; ROWS.len()] = {
    let mut selectors = [0; ROWS.len()];
    let mut at = 0;
    while at < MULTIPLEXED.len() {
        let mut row = 0;
        while !same(ROWS[row].0.as_bytes(), MULTIPLEXED[at].0.as_bytes()) {
            row += 1;
        }
        selectors[row] = MULTIPLEXED[at].1;
        at += 1;
    }
    selectors
};

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A system call's name that at least one architecture knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Syscall(u16);

impl Syscall {
    /// By name.
    pub fn from_name(name: &str) -> Option<Syscall> {
        let (mut low, mut high) = (0, ROWS.len());
        while low < high {
            let middle = low.midpoint(high);
            match name_at(middle).cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return u16::try_from(middle).ok().map(Syscall),
            }
        }
        None
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        std::str::from_utf8(name_at(usize::from(self.0))).unwrap_or_default()
    }

    /// Every name, in order.
    pub fn all() -> impl Iterator<Item = Syscall> {
        (0..u16::try_from(ROWS.len()).unwrap_or(u16::MAX)).map(Syscall)
    }
}

fn name_at(row: usize) -> &'static [u8] {
    &NAMES[usize::from(STARTS[row])..usize::from(STARTS[row + 1])]
}

const NAME_BYTES: usize = {
    let mut sum = 0;
    let mut row = 0;
    while row < ROWS.len() {
        sum += ROWS[row].0.len();
        row += 1;
    }
    sum
};

static NAMES: [u8; NAME_BYTES] = {
    let mut names = [0; NAME_BYTES];
    let (mut row, mut end) = (0, 0);
    while row < ROWS.len() {
        let name = ROWS[row].0.as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[end] = name[at];
            at += 1;
            end += 1;
        }
        row += 1;
    }
    names
};

static STARTS: [u16; ROWS.len() + 1] = {
    assert!(NAME_BYTES <= u16::MAX as usize);
    let mut starts = [0; ROWS.len() + 1];
    let mut row = 0;
    while row < ROWS.len() {
        starts[row + 1] = starts[row] + ROWS[row].0.len() as u16;
        row += 1;
    }
    starts
};

static NUMBERS: [[u16; 14]; ROWS.len()] = {
    let mut numbers = [[PACKED_NONE; 14]; ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        let mut column = 0;
        while column < 14 {
            numbers[row][column] = pack(ROWS[row].1[column], column == Column::X32 as usize);
            column += 1;
        }
        row += 1;
    }
    numbers
};

const PACKED_NONE: u16 = u16::MAX;
/// arm's private calls lie at 0xf0000; here they are folded down to 0xf000.
const ARM_PRIVATE: u32 = 0xf_0000;
const PACKED_ARM_PRIVATE: u16 = 0xf000;

const fn pack(number: u32, x32: bool) -> u16 {
    if number == NONE {
        return PACKED_NONE;
    }
    let number = if x32 { number - X32_BIT } else { number };
    if number >= ARM_PRIVATE {
        assert!(number < ARM_PRIVATE + 0xfff);
        return PACKED_ARM_PRIVATE + (number - ARM_PRIVATE) as u16;
    }
    assert!(number < PACKED_ARM_PRIVATE as u32);
    number as u16
}

fn unpack(column: Column, packed: u16) -> Option<u32> {
    let number = u32::from(packed);
    match (packed, column) {
        (PACKED_NONE, _) => None,
        (PACKED_ARM_PRIVATE.., _) => Some(ARM_PRIVATE + (number - u32::from(PACKED_ARM_PRIVATE))),
        (_, Column::X32) => Some(number | X32_BIT),
        _ => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packed_table_is_the_generated_one() {
        for (row, call) in ROWS.iter().zip(Syscall::all()) {
            assert_eq!(call.name(), row.0);
            assert_eq!(Syscall::from_name(row.0), Some(call));
            for arch in Arch::ALL {
                let number = row.1[arch.facts().column as usize];
                assert_eq!(
                    arch.number(call),
                    (number != NONE).then_some(number),
                    "{} {}",
                    row.0,
                    arch.name()
                );
            }
        }
        assert!(ROWS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_that_everybody_knows() {
        let number = |arch: Arch, name| Syscall::from_name(name).and_then(|call| arch.number(call));
        assert_eq!(number(Arch::X86_64, "read"), Some(0));
        assert_eq!(number(Arch::X86_64, "execve"), Some(59));
        assert_eq!(number(Arch::X86, "execve"), Some(11));
        assert_eq!(number(Arch::X32, "execve"), Some(0x4000_0000 + 520));
        assert_eq!(number(Arch::Aarch64, "openat"), Some(56));
        assert_eq!(number(Arch::Aarch64, "open"), None);
        assert_eq!(number(Arch::Arm, "set_tls"), Some(0xf_0005));
        assert_eq!(number(Arch::Mipsel, "read"), Some(4003));
        assert_eq!(number(Arch::Loongarch64, "clone3"), Some(435));
        assert_eq!(Syscall::from_name("no_such_call"), None);
        assert_eq!(Syscall::from_name(""), None);
    }

    #[test]
    fn names_of_architectures_are_unique() {
        for arch in Arch::ALL {
            assert_eq!(Arch::from_oci(arch.oci_name()), Some(arch));
        }
        assert_eq!(Arch::from_oci("SCMP_ARCH_Z80"), None);
    }

    #[test]
    fn multiplexed_calls_have_their_selectors() {
        for (name, selector) in MULTIPLEXED {
            let call = Syscall::from_name(name).unwrap();
            let number = if selector & IPC == 0 { 102 } else { 117 };
            assert_eq!(Arch::X86.multiplexed(call), Some((number, u64::from(selector & !IPC))), "{name}");
            assert_eq!(Arch::X86_64.multiplexed(call), None);
        }
        assert_eq!(Syscall::all().filter(|&call| Arch::X86.multiplexed(call).is_some()).count(), 32);
        assert_eq!(Arch::Mipsel.multiplexed(Syscall::from_name("socket").unwrap()), Some((4102, 1)));
    }
}
