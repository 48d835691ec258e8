#!/usr/bin/env python3
"""`make bench`: one interleaved run of ketch, its peers and the floor.

Owns: which samples are taken, and in what order. How a sample is taken is environment.py's and spawner.c's,
what it means is report.py's. README.md of this folder tells how to read the output.

Knobs (environment): ROUNDS, HEAVY_ROUNDS, BURST, BESIDE (running containers of the last case, 0 leaves it out),
CASES, LAYOUTS, ONLY (comma-separated), KETCH (its path), KETCH_CACHE (of `make peers`), SEED, SETTLE_MS, RESULTS.
"""

import json
import os
import random
import sys
import time

import programs as cli
import report
from environment import IS_UNIFIED, Environment, kill

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
WARM_UPS = 2
BEGIN, END = "<!-- promises -->", "<!-- end of promises -->"


def knob(name, default):
    return type(default)(os.environ.get(name) or default)


def names(name, default):
    return [part for part in knob(name, default).split(",") if part]


class Bench:
    def __init__(self, quick):
        self.rounds = knob("ROUNDS", 8 if quick else 50)
        self.heavy_rounds = knob("HEAVY_ROUNDS", 2 if quick else 5)
        self.burst = knob("BURST", 50)
        self.beside = knob("BESIDE", 0 if quick else 999)
        self.settle = knob("SETTLE_MS", 15) / 1000
        self.seed = knob("SEED", 1)
        self.layouts = names("LAYOUTS", "v1,v2")
        self.cases = names("CASES", "run,create-start-delete,exec,burst,beside,limit")
        self.random = random.Random(self.seed)
        self.notes = []
        self.samples = {}  # (layout, case, profile, program) -> [Sample]
        self.failures = {}  # the same -> [text]
        self.limits = []
        # Only a run of everything may speak for the promises.
        self.is_whole = not quick and not any(os.environ.get(name) for name in ("CASES", "LAYOUTS", "ONLY", "KETCH", "RESULTS"))

    def note(self, line):
        self.notes.append(line)
        print(f"note: {line}", flush=True)

    # -- setting up ---------------------------------------------------------------------------------------------

    def set_up(self):
        ketch = knob("KETCH", f"{CHECKOUT}/target/release/ketch")
        peers = f"{knob('KETCH_CACHE', '/var/cache/ketch')}/peers/bin"
        self.programs, absent = cli.find(f"{CHECKOUT}/target/bench/floor", ketch, peers)
        only = names("ONLY", "")
        if only:
            self.note(f"ONLY={','.join(only)}: other programs are left out by request")
            self.programs = [program for program in self.programs if program.key in only]
        for line in absent:
            self.note(f"left out: {line}")
        with open("/proc/sys/kernel/randomize_va_space", encoding="ascii") as file:
            if file.read().strip() == "0":
                self.note("addresses are not random on this machine, for any program (kernel.randomize_va_space)")
        for program in self.programs:
            for layout, reason in program.left_out.items():
                if layout in self.layouts:
                    self.note(f"left out: {program.key} on {layout}: {reason}")
        seccomp = self._docker_seccomp()
        self.profiles = ["plain"] + (["seccomp"] if seccomp else [])
        self.environment = Environment(f"{CHECKOUT}/target/bench", seccomp)

    def _docker_seccomp(self):
        path = f"{CHECKOUT}/oci-bundles/docker-default/seccomp.json"
        if not os.path.exists(path):
            self.note(f"left out: every case with Docker's seccomp profile: {path} is not there")
            return None
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def _measured(self, layout):
        return [program for program in self.programs if layout not in program.left_out]

    def _profiles_of(self, program):
        # The floor holds no seccomp: ratios with the profile are taken against the plain floor.
        return ["plain"] if program.is_floor else self.profiles

    def _take(self, key, program, layout, steps):
        """One sample into the books; a failure is kept as one, with its text."""
        spawner = self.environment.spawner(layout)
        sample = spawner.take(steps)
        if sample.failed:
            self.failures.setdefault(key, []).append(f"status {sample.statuses}: {sample.output.strip()}")
        elif key is not None:
            self.samples.setdefault(key, []).append(sample)
        time.sleep(self.settle)
        return sample

    def _must(self, program, layout, steps):
        """Steps outside any measurement."""
        sample = self.environment.spawner(layout).take(steps)
        if sample.failed:
            print(f"note: {program.key} on {layout}: {sample.output.strip()}", flush=True)
        return not sample.failed

    # -- cases --------------------------------------------------------------------------------------------------

    def _start_running(self, program, layout, name, seccomp):
        """A container that sleeps until it is killed; its place, or None."""
        sleeper = ("/bin/sleep", "1000000")
        place = self.environment.place(program, layout, name, argv=sleeper, seccomp=seccomp)
        steps = [("X", cli.create(program, place, sleeper)), ("X", cli.start(program, place))]
        if not self._must(program, layout, steps):
            return None
        pids = self.environment.pids(place)
        if len(pids) != 1:
            self.note(f"{program.key} on {layout}: {name} has processes {pids}, expected one")
            return None
        place.pid = pids[0]
        return place

    def _stop_running(self, program, layout, place):
        for pid in self.environment.pids(place):
            kill(pid)
        self.environment.spawner(layout).take([("R", 1)])  # its status is the SIGKILL
        self._must(program, layout, [("X", cli.delete(program, place, force=True))])

    def _interleaved_cases(self):
        """Every short case of every program and layout: [(key, program, layout, steps)]."""
        jobs, running = [], []
        for layout in self.layouts:
            for program in self._measured(layout):
                for profile in self._profiles_of(program):
                    seccomp = profile == "seccomp"
                    place = self.environment.place(program, layout, f"run-{profile}", seccomp=seccomp)
                    if "run" in self.cases:
                        steps = [("X", cli.run(program, place))]
                        jobs.append(((layout, "run", profile, program.key), program, layout, steps))
                    if "create-start-delete" in self.cases:
                        steps = [
                            ("X", cli.create(program, place)),
                            ("X", cli.start(program, place)),
                            ("R", 1),
                            ("X", cli.delete(program, place)),
                        ]
                        jobs.append(((layout, "create-start-delete", profile, program.key), program, layout, steps))
                    if "exec" in self.cases:
                        key = (layout, "exec", profile, program.key)
                        place = self._start_running(program, layout, f"exec-{profile}", seccomp)
                        if place is None:
                            self.failures[key] = ["its container does not start"]
                            continue
                        running.append((program, layout, place))
                        jobs.append((key, program, layout, [("X", cli.exec_true(program, place))]))
        return jobs, running

    def measure_short_cases(self):
        jobs, running = self._interleaved_cases()
        refused = set()
        for turn in range(WARM_UPS):
            for key, program, layout, steps in jobs:
                if key not in refused and self._take(key, program, layout, steps).failed:
                    refused.add(key)
                    self._recover(program, layout, key)
        self.samples.clear()
        jobs = [job for job in jobs if job[0] not in refused]
        for turn in range(self.rounds):
            self.random.shuffle(jobs)
            for key, program, layout, steps in jobs:
                if self._take(key, program, layout, steps).failed:
                    self._recover(program, layout, key)
            if turn % 10 == 9:
                print(f"round {turn + 1} of {self.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
        for program, layout, place in running:
            self._stop_running(program, layout, place)

    def _recover(self, program, layout, key):
        """After a failed sample nothing of its container may be left in the next one's way."""
        if key[1] == "exec" or program.is_floor:
            return
        place = self.environment.place(program, layout, f"run-{key[2]}", seccomp=key[2] == "seccomp")
        self.environment.spawner(layout).take([("X", cli.delete(program, place, force=True))])

    def measure_burst(self):
        """`burst` containers started at once; the sample is the whole batch."""
        jobs = []
        for layout in self.layouts:
            for program in self._measured(layout):
                places = [self.environment.place(program, layout, f"burst-{n}") for n in range(self.burst)]
                steps = [("B", cli.run(program, place)) for place in places] + [("R", self.burst)]
                jobs.append(((layout, "burst", "plain", program.key), program, layout, steps))
        for _ in range(self.heavy_rounds):
            self.random.shuffle(jobs)
            for key, program, layout, steps in jobs:
                self._take(key, program, layout, steps)
                time.sleep(0.3)

    def measure_beside(self):
        """`run` with nothing else running, then the same beside `beside` running containers, on v2."""
        layout = "v2"
        measured = [p for p in self._measured(layout) if p.is_floor or p.key in ("ketch", "crun-new")]
        jobs = []
        for program in measured:
            place = self.environment.place(program, layout, "run-plain")
            jobs.append((program, [("X", cli.run(program, place))]))
        self._beside_round("first", jobs, layout)
        host = next((p for p in measured if p.key == "ketch"), measured[0])
        self.note(f"the {self.beside} running containers of the last case are {host.key}'s")
        places = []
        for n in range(self.beside):
            place = self._start_running(host, layout, f"beside-{n}", False)
            if place is None:
                self.note(f"container {n} of {self.beside} beside did not start: the case is left out")
                break
            places.append(place)
        else:
            time.sleep(1)
            self._beside_round("last", jobs, layout)
        for place in places:
            self._stop_running(host, layout, place)

    def _beside_round(self, case, jobs, layout):
        for turn in range(WARM_UPS + max(self.rounds // 2, 4)):
            self.random.shuffle(jobs)
            for program, steps in jobs:
                key = None if turn < WARM_UPS else (layout, case, "plain", program.key)
                self._take(key, program, layout, steps)

    def measure_limit(self):
        """A container with a memory limit of 512 KiB starts, or what it says when it does not."""

        def limit(config):
            config["linux"]["resources"]["memory"] = {"limit": 512 * 1024}

        for layout in ("hybrid", "v1"):
            if IS_UNIFIED:
                self.note(f"left out: the limit on {layout}: this machine has v2 alone")
                continue
            for program in self.programs:
                if program.is_floor or layout in program.left_out:
                    continue
                place = self.environment.place(program, layout, "limit", change=limit)
                tries, failures = 5, []
                for _ in range(tries):
                    sample = self.environment.spawner(layout).take([("X", cli.run(program, place))])
                    if sample.failed:
                        failures.append(sample.output.strip()[-200:])
                        self._must(program, layout, [("X", cli.delete(program, place, force=True))])
                self.limits.append(
                    {"layout": layout, "program": program.key, "tries": tries, "failed": len(failures), "why": failures[:1]}
                )

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self):
        begun, load = time.time(), os.getloadavg()
        self.set_up()
        try:
            self.measure_short_cases()
            if "burst" in self.cases:
                self.measure_burst()
            if "limit" in self.cases:
                self.measure_limit()
            if "beside" in self.cases and self.beside and "v2" in self.layouts:
                self.measure_beside()
        finally:
            left = self.environment.close()
        for line in left:
            self.note(f"left behind: {line}")
        return {
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
            "seconds": round(time.time() - begun, 1),
            "kernel": os.uname().release,
            "cpus": os.cpu_count(),
            "load_before": load[0],
            "load_after": os.getloadavg()[0],
            "rounds": self.rounds,
            "burst": self.burst,
            "beside": self.beside,
            "seed": self.seed,
            "programs": {p.key: {"version": p.version, "path": p.path} for p in self.programs},
            "notes": self.notes,
        }


def refresh_promises(rows):
    """Puts the verdicts of a whole run between the two markers of README.md."""
    path = f"{HERE}/README.md"
    with open(path, encoding="utf-8") as file:
        head, _, rest = file.read().partition(BEGIN)
    _, _, tail = rest.partition(END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{head}{BEGIN}\n{rows}\n{END}{tail}")


def main():
    if os.geteuid() != 0:
        sys.exit("bench: needs root: it makes namespaces, mounts and cgroups")
    bench = Bench(quick="--quick" in sys.argv[1:])
    facts = bench.run()
    ketch = next((p.path for p in bench.programs if p.key == "ketch"), None)
    result = report.build(facts, bench.samples, bench.failures, bench.limits, ketch)
    path = knob("RESULTS", f"{HERE}/results.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file, indent="\t")
        file.write("\n")
    print(report.text(result))
    print(f"\nwritten: {path}")
    if bench.is_whole:
        refresh_promises(report.promises(result))


if __name__ == "__main__":
    main()
