"""What the samples run in: the spawners, the bundles, the cgroups; and their removal.

Owns: everything the bench creates outside its own folder, below one name per bench process. Must not judge
what it measures. Called by bench.py.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

import programs as cli

V1 = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"]
CGROUPS = "/sys/fs/cgroup"
# A machine that booted with v2 alone, with the controllers on it: `make vm-bench`.
IS_UNIFIED = os.path.exists(f"{CGROUPS}/cgroup.controllers")
CPU_SHARES = 262144  # the kernel's most
HERE = os.path.dirname(os.path.abspath(__file__))


def write(path, value):
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def kill(pid):
    """Whether there was something to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Sample:
    wall_ms: float
    cpu_ms: float
    peak_kib: int
    statuses: list
    output: str

    @property
    def failed(self):
        return any(self.statuses)


class Spawner:
    """One spawner.c process; see its head for the protocol."""

    def __init__(self, binary, layout, log):
        self.log = log
        self.process = subprocess.Popen(
            [binary, layout, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        if self._answer(30) != "ready":
            raise RuntimeError(f"spawner {layout}: {self.process.stderr.read().decode()}")

    def _answer(self, timeout):
        readable, _, _ = select.select([self.process.stdout], [], [], timeout)
        return self.process.stdout.readline().decode().strip() if readable else None

    def _children(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as children:
            return {int(pid) for pid in children.read().split()}

    def take(self, steps, timeout=20):
        """One sample. `steps`: ("X", argv), ("B", argv) or ("R", count). What hangs is killed and counts as failed."""
        before = self._children()
        lines = []
        for kind, what in steps:
            fields = [kind, str(what)] if kind == "R" else [kind, *what]
            lines.append("\x1f".join(fields))
        self.process.stdin.write(("\n".join(lines) + "\nG\n").encode())
        answer, hung = self._answer(timeout), ""
        while answer is None:
            hung = f"killed after {timeout} s. "
            for pid in self._children() - before:
                kill(pid)
            answer = self._answer(5)
        answer = answer.split()
        if len(answer) < 3:
            raise RuntimeError(f"the spawner ended: {self.process.stderr.read().decode()}")
        wall, cpu, peak, *statuses = map(int, answer)
        output = ""
        if any(statuses):
            with open(self.log, encoding="utf-8", errors="replace") as log:
                output = hung + log.read()[-600:]
        return Sample(wall / 1e6, cpu / 1e3, peak, statuses, output)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Environment:
    """All folders, cgroups and spawners of one bench run."""

    def __init__(self, build, seccomp):
        self.name = f"ketch-bench-{os.getpid()}"
        self.scratch = f"/tmp/{self.name}"
        self.state = f"/run/{self.name}"
        self.build = build
        self.seccomp = seccomp  # linux.seccomp of Docker's default, or None
        self.spawners = {}
        with open(os.path.join(HERE, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        os.makedirs(self.scratch)
        os.makedirs(self.state, mode=0o711)
        # /run is a tmpfs on any real machine; on a test machine without one, every runtime would be measured with the
        # journal of a disk.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711", self.name, self.state], check=True)
        self._make_rootfs()
        self._make_cgroups()

    def _make_rootfs(self):
        self.rootfs = f"{self.scratch}/rootfs"
        for folder in ("bin", "dev", "proc", "sys"):
            os.makedirs(f"{self.rootfs}/{folder}")
        shutil.copy2("/bin/busybox", f"{self.rootfs}/bin/busybox")
        for applet in ("true", "sleep"):
            os.symlink("busybox", f"{self.rootfs}/bin/{applet}")

    def _cgroup_dirs(self):
        if IS_UNIFIED:
            return [f"{CGROUPS}/{self.name}"]
        return [f"{CGROUPS}/{hierarchy}/{self.name}" for hierarchy in [*V1, "unified"]]

    def _make_cgroups(self):
        """The parent of all containers' cgroups, so that every program makes and removes the leaf only."""
        for folder in self._cgroup_dirs():
            os.mkdir(folder)
        if IS_UNIFIED:
            own = f"{CGROUPS}/{self.name}"
            with open(f"{CGROUPS}/cgroup.controllers", encoding="ascii") as source:
                every = " ".join(f"+{controller}" for controller in source.read().split())
            # Each container's cgroup has every controller, whether or not it asks for a limit.
            for folder in (CGROUPS, own):
                write(f"{folder}/cgroup.subtree_control", every)
            os.mkdir(f"{own}/spawners")
            write(f"{own}/cpu.weight", "10000")
            return
        for file in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{CGROUPS}/cpuset/{file}", encoding="ascii") as source:
                write(f"{CGROUPS}/cpuset/{self.name}/{file}", source.read())
        write(f"{CGROUPS}/cpu/{self.name}/cpu.shares", str(CPU_SHARES))

    def spawner(self, layout):
        if layout not in self.spawners:
            spawner = Spawner(f"{self.build}/spawner", layout, f"{self.scratch}/spawner-{layout}.log")
            # Against everything else that runs here the bench gets the CPU first; an idle machine sees no difference.
            own = f"{self.name}/spawners" if IS_UNIFIED else f"cpu/{self.name}"
            write(f"{CGROUPS}/{own}/cgroup.procs", str(spawner.process.pid))
            self.spawners[layout] = spawner
        return self.spawners[layout]

    def place(self, program, layout, name, *, argv=("/bin/true",), seccomp=False, change=None):
        """A bundle, and the names of its container, whose first process is `argv`."""
        id_ = f"{program.key}-{layout}-{name}"
        bundle = f"{self.scratch}/bundles/{id_}"
        os.makedirs(bundle, exist_ok=True)
        config = json.loads(json.dumps(self.config))
        config["process"]["args"] = list(argv)
        config["root"]["path"] = self.rootfs
        config["linux"]["cgroupsPath"] = f"/{self.name}/{id_}"
        if layout == "v2":  # `runc spec` adds it on v2
            config["linux"]["namespaces"].append({"type": "cgroup"})
        if seccomp:
            config["linux"]["seccomp"] = self.seccomp
        if change:
            change(config)
        with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file, indent="\t")
        state_root = f"{self.state}/{program.key}-{layout}"
        return cli.Place(
            layout="v2" if layout == "v2" else "v1",
            cgroup=f"/{self.name}/{id_}",
            bundle=bundle,
            rootfs=self.rootfs,
            state_root=state_root,
            fifo=f"{self.state}/{id_}.fifo",
            id=id_,
        )

    def pids(self, place):
        """The container's processes, from its cgroup as the host sees it."""
        hierarchy = "" if IS_UNIFIED else "/unified" if place.layout == "v2" else "/pids"
        try:
            with open(f"{CGROUPS}{hierarchy}{place.cgroup}/cgroup.procs", encoding="ascii") as procs:
                return [int(pid) for pid in procs]
        except FileNotFoundError:
            return []

    def end_processes(self):
        """Kills what still runs in the bench's own cgroups, spawners apart; answers how many there were."""
        ended, spawners = 0, {spawner.process.pid for spawner in self.spawners.values()}
        for top in self._cgroup_dirs():
            for folder, _, _ in os.walk(top):
                try:
                    with open(f"{folder}/cgroup.procs", encoding="ascii") as procs:
                        pids = [int(pid) for pid in procs]
                except OSError:
                    continue
                for pid in pids:
                    if pid in spawners:
                        continue
                    ended += kill(pid)
        return ended

    def close(self):
        """Removes everything; answers one line for each thing that a runtime should have removed and did not."""
        left = []
        ended = self.end_processes()
        if ended:
            left.append(f"{ended} processes in the bench's cgroups had to be killed")
        for spawner in self.spawners.values():
            spawner.end()
        deadline = time.monotonic() + 20
        for top in self._cgroup_dirs():
            for folder, _, _ in os.walk(top, topdown=False):
                if folder not in (top, f"{top}/spawners"):
                    left.append(f"cgroup {folder}")
                while True:
                    try:
                        os.rmdir(folder)
                        break
                    except OSError as error:
                        if time.monotonic() > deadline:
                            left.append(f"cgroup {folder} cannot be removed: {error}")
                            break
                        time.sleep(0.05)
        for state_root in sorted(os.listdir(self.state)):
            if not os.path.isdir(f"{self.state}/{state_root}"):
                left.append(f"state {self.state}/{state_root}")
                continue
            entries = sorted(os.listdir(f"{self.state}/{state_root}"))
            left += [f"state {self.state}/{state_root}/{entry}" for entry in entries if not entry.startswith(".")]
            kept = [entry for entry in entries if entry.startswith(".")]
            if kept:
                left.append(f"{state_root}: {', '.join(kept)}, which the runtime keeps for its next run")
        subprocess.run(["umount", self.state], check=True)
        os.rmdir(self.state)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return left
