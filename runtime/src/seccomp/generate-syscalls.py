#!/usr/bin/env python3
"""Writes syscalls.rs from the kernel's own uapi headers.

Usage: generate-syscalls.py UAPI UAPI_S390 > syscalls.rs
  UAPI       the folder usr/lib/linux/uapi of Debian's linux-libc-dev (7.2.13-1 was used), which holds every architecture
  UAPI_S390  the same folder of an older one (6.12.107-1 was used): newer kernels have dropped the 31-bit table of s390

Both come with `apt-get download PACKAGE` and `dpkg -x PACKAGE.deb FOLDER`. Only names and numbers are taken.
"""

import re
import sys

uapi, s390 = sys.argv[1:3]

# Column order is that of `Column` in arch.rs. The last field is what the header's symbolic base stands for.
COLUMNS = [
    ("x86_64", f"{uapi}/x86/asm/unistd_64.h", 0),
    ("x86", f"{uapi}/x86/asm/unistd_32.h", 0),
    ("x32", f"{uapi}/x86/asm/unistd_x32.h", 0x40000000),
    ("arm", f"{uapi}/arm/asm/unistd-eabi.h", 0),
    ("aarch64", f"{uapi}/arm64/asm/unistd_64.h", 0),
    ("riscv64", f"{uapi}/riscv/asm/unistd_64.h", 0),
    ("loongarch64", f"{uapi}/loongarch/asm/unistd_64.h", 0),
    ("mips", f"{uapi}/mips/asm/unistd_o32.h", 4000),
    ("mips64", f"{uapi}/mips/asm/unistd_n64.h", 5000),
    ("mips64n32", f"{uapi}/mips/asm/unistd_n32.h", 6000),
    ("ppc", f"{uapi}/powerpc/asm/unistd_32.h", 0),
    ("ppc64", f"{uapi}/powerpc/asm/unistd_64.h", 0),
    ("s390", f"{s390}/s390/asm/unistd_32.h", 0),
    ("s390x", f"{uapi}/s390/asm/unistd_64.h", 0),
]

# asm/unistd.h of arm keeps these apart, under __ARM_NR_ and above every ordinary number.
ARM_PRIVATE = {"breakpoint": 1, "cacheflush": 2, "usr26": 3, "usr32": 4, "set_tls": 5, "get_tls": 6}


DEFINE = re.compile(r"#define __NR_(\w+)\s+(?:\(\w+ \+ (\d+)\)|(\d+))$")


def numbers(path, base):
    found = {}
    for line in open(path):
        match = DEFINE.match(line.strip())
        if match and not re.fullmatch(r"(reserved|unused)\d+", match[1]):
            name, offset, absolute = match.groups()
            found[name] = base + int(offset) if offset is not None else int(absolute)
    return found


tables = {arch: numbers(path, base) for arch, path, base in COLUMNS}
for name, offset in ARM_PRIVATE.items():
    tables["arm"][name] = 0xF0000 + offset

names = sorted(set().union(*tables.values()))

print("//! Names and numbers of every system call on every architecture. Written by generate-syscalls.py: change that.")
print("//! Nobody but `arch` reads it.")
print()
print("/// No such call on this architecture.")
print("pub(super) const NONE: u32 = u32::MAX;")
print("const X: u32 = NONE;")
print()
print("/// Sorted by name. Columns: " + ", ".join(arch for arch, _, _ in COLUMNS) + ".")
print("#[rustfmt::skip]")
print('#[expect(clippy::large_const_arrays, reason = "only its packed form is kept")]')
print(f"pub(super) const ROWS: [(&str, [u32; {len(COLUMNS)}]); {len(names)}] = [")
for name in names:
    cells = ", ".join(str(tables[arch].get(name, "X")) for arch, _, _ in COLUMNS)
    print(f'    ("{name}", [{cells}]),')
print("];")
