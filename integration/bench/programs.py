"""The programs under measurement, and the command lines of each step of each case.

Owns: how a program is found, named and driven. Must not measure or judge. Called by bench.py.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field


@dataclass
class Program:
    """One column of the tables: a runtime or the floor."""

    key: str  # "ketch", "floor", "runc-old", "crun-old", "runc-new", "crun-new"
    path: str
    version: str = ""
    left_out: dict = field(default_factory=dict)  # layout -> why it is not measured there

    @property
    def is_floor(self):
        return self.key == "floor"


@dataclass
class Place:
    """Where one container of one program lives."""

    layout: str  # "v1" or "v2"
    cgroup: str
    bundle: str
    rootfs: str
    state_root: str
    fifo: str
    id: str
    pid: int = 0


def version_of(path):
    """`<path> --version`'s number; "" when it does not start."""
    try:
        out = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return ""
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", out)
    return found.group(1) if found else ""


def may_raise_limits():
    """Whether this process has CAP_SYS_RESOURCE, which root lacks on some machines."""
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def find(floor, ketch, peers):
    """All programs of this machine, and one line for each that is absent. `peers`: the folder of the current ones."""
    wanted = [
        ("ketch", ketch),
        ("runc-old", "/usr/sbin/runc"),
        ("crun-old", "/usr/bin/crun"),
        ("runc-new", f"{peers}/runc"),
        ("crun-new", f"{peers}/crun"),
    ]
    programs, absent = [Program("floor", floor)], []
    for key, path in wanted:
        version = version_of(path)
        if version:
            programs.append(Program(key, path, version))
        elif os.path.exists(path):
            absent.append(f"{key}: {path} --version gives no version")
        else:
            absent.append(f"{key}: {path} is not there" + ("; `make peers` builds it" if key.endswith("-new") else ""))
    for program in programs:
        if program.key == "crun-old":
            if not may_raise_limits():
                program.left_out["v2"] = "crun 1.8 wants RLIMIT_MEMLOCK raised, which needs CAP_SYS_RESOURCE"
            program.left_out["hybrid"] = "crun refuses the hybrid layout"
        if program.key == "crun-new":
            program.left_out["hybrid"] = "crun refuses the hybrid layout"
    return programs, absent


def run(program, place, argv=("/bin/true",)):
    if program.is_floor:
        return [program.path, "run", place.layout, place.cgroup, place.rootfs, *argv]
    return [program.path, "--root", place.state_root, "run", "--bundle", place.bundle, place.id]


def create(program, place, argv=("/bin/true",)):
    if program.is_floor:
        return [program.path, "create", place.layout, place.cgroup, place.rootfs, place.fifo, *argv]
    return [program.path, "--root", place.state_root, "create", "--bundle", place.bundle, place.id]


def start(program, place):
    if program.is_floor:
        return [program.path, "start", place.fifo]
    return [program.path, "--root", place.state_root, "start", place.id]


def delete(program, place, force=False):
    if program.is_floor:
        return [program.path, "delete", place.layout, place.cgroup, place.fifo]
    return [program.path, "--root", place.state_root, "delete", *(["--force"] if force else []), place.id]


def exec_true(program, place):
    if program.is_floor:
        return [program.path, "exec", place.layout, place.cgroup, str(place.pid), "/bin/true"]
    return [program.path, "--root", place.state_root, "exec", place.id, "/bin/true"]
