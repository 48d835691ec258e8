#!/usr/bin/env python3
"""Runs runc's bats suite, and the runtime-tools validation, with runc and with ketch; writes the ledger.

Results are kept in the cache by the hash of runtime and suite, so that an interrupted run goes on where it stopped
and runc's baseline is measured once. `ledger.py` turns the kept results into integration/runc-bats.txt.
"""

import argparse
import ctypes
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import build
import ledger

# Needs criu, which does not run on the test machines' kernel: it is in the VM's columns.
LEFT_OUT = {"checkpoint.bats"}

ENTER = {
    "v1": "ip link set lo up; exec \"$@\"",
    "v2": "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && ip link set lo up && exec \"$@\"",
}

PR_SET_CHILD_SUBREAPER = 36

TAP_LINE = re.compile(r"^(?P<verdict>ok|not ok) (?P<number>\d+) (?P<rest>.*)$")
TIMING = re.compile(r" # in (?P<ms>\d+) ms")


def in_layout(layout, command):
    """The command in a mount and network namespace of its own, so that nothing it leaves behind outlives it."""
    return ["unshare", "--mount", "--net", "--", "sh", "-c", ENTER[layout], "sh", *command]


def descendants(ancestor):
    """Every process below ancestor as (pid, command line), deepest first."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            line = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append((int(stat.parent.name), line))

    def below(pid):
        for child, line in children.get(pid, []):
            yield from below(child)
            yield child, line

    return list(below(ancestor))


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_stalled(bats, step):
    """Ends what the stalled test waits for; at the second step the test itself; at the third the whole file."""
    if step >= 3:
        os.killpg(bats, signal.SIGKILL)
        return
    tests = [pid for pid, line in descendants(bats) if "/bats-exec-test " in line]
    for test in tests[-1:]:
        for pid, _ in descendants(test):
            end(pid)
        if step == 2:
            end(test)


def reap_orphans(bats):
    """Reaps every child that has ended but bats itself; tells if that has ended too."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == bats:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def run_on_terminal(command, environment, limit):
    """Runs the command as leader of a session on its own terminal; gives what it printed and its exit code.

    A command that prints nothing for `limit` seconds has stalled. bats' own BATS_TEST_TIMEOUT won't do: its timer is
    a job of the test's shell, so every test that says `wait` waits for the timer.
    """
    # Daemons and orphaned container processes come to this process when their parents end, and are reaped at once; a
    # test that waits for them would else depend on how fast the machine's init is.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, environment)
    printed, heard, step = bytearray(), time.monotonic(), 0
    while True:
        over = reap_orphans(child)
        ready, _, _ = select.select([terminal], [], [], 0 if over else 0.1)
        if ready:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:
                break
            if not chunk:
                break
            printed += chunk
            heard, step = time.monotonic(), 0
        elif over:
            break
        elif time.monotonic() > heard + limit + 20 * step:
            step += 1
            end_stalled(child, step)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return printed.decode(errors="replace"), os.waitstatus_to_exitcode(status)


def parse_tap(text, names):
    """One record for each planned test; a test that left no line failed."""
    records, current = {}, None
    for line in text.splitlines():
        matched = TAP_LINE.match(line)
        if not matched:
            if current and line.startswith("#"):
                current["detail"].append(line[1:].strip())
            continue
        timing = TIMING.search(matched["rest"])
        name, _, directive = TIMING.sub("", matched["rest"]).partition(" # ")
        status, reason = ("pass", "") if matched["verdict"] == "ok" else ("fail", directive)
        if directive.lower().startswith("skip"):
            status, reason = "skip", directive[4:].strip().strip("()")
        current = {"name": name, "status": status, "reason": reason, "detail": [],
                   "ms": int(timing["ms"]) if timing else None}
        records[name] = current
    return [records.get(name) or {"name": name, "status": "fail", "reason": "left no result", "detail": [], "ms": None}
            for name in names]


def test_names(bats_file):
    """The names as bats prints them: the text between the quotes after @test."""
    names = []
    for line in bats_file.read_text().splitlines():
        matched = re.match(r"""^\s*@test\s+(["'])(.*)\1\s*\{\s*$""", line)
        if matched:
            names.append(matched[2].replace('\\"', '"').replace("\\$", "$").replace("\\`", "`"))
    return names


class BatsSuite:
    """runc's suite: one unit of work and of resumption is one .bats file."""

    section = "runc"

    def __init__(self, source):
        self.source = source
        self.folder = source / "tests/integration"
        self.hash = build.digest(self.folder, source / "tests/cmd/_bin")

    def all_units(self):
        return [f.name for f in sorted(self.folder.glob("*.bats"))]

    def names(self, unit):
        return test_names(self.folder / unit)

    def units(self):
        return [unit for unit in self.all_units() if unit not in LEFT_OUT]

    def run_unit(self, unit, runtime, layout, options, names=None):
        bats_file = self.folder / unit
        scratch = Path(f"/tmp/ketch-bats-{layout}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        scratch.chmod(0o755)
        report = options.results / f"{unit}.report"
        shutil.rmtree(report, ignore_errors=True)
        report.mkdir(parents=True)
        command = ["bats", "--timing", "--tap", "--report-formatter", "tap", "--output", str(report)]
        if names:
            command += ["--filter", "^(" + "|".join(re.escape(name) for name in names) + ")$"]
        environment = {
            **build.go_environment(), "RUNC": str(runtime), "TMPDIR": str(scratch),
            "TERM": "dumb",
        }
        wanted = names or test_names(bats_file)
        screen, _ = run_on_terminal(in_layout(layout, [*command, str(bats_file)]), environment, options.timeout)
        taps = list(report.glob("*.tap"))
        text = taps[0].read_text(errors="replace") if taps else screen.replace("\r\n", "\n")
        if not any(TAP_LINE.match(line) for line in text.splitlines()):
            text = screen.replace("\r\n", "\n")
        shutil.rmtree(report, ignore_errors=True)
        (options.results / f"{unit}.{'again.' if names else ''}tap").write_text(text)
        shutil.rmtree(scratch, ignore_errors=True)
        return parse_tap(text, wanted)


class ToolsSuite:
    """The runtime-tools validation: one unit, and one test, is one program."""

    section = "runtime-tools"

    def __init__(self, source):
        self.source = source
        self.hash = build.digest(source / "validation", source / "runtimetest")

    def units(self):
        return sorted(p.stem for p in (self.source / "validation").glob("*/*.t"))

    def run_unit(self, unit, runtime, layout, options, names=None):
        scratch = Path(f"/tmp/ketch-tools-{layout}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        environment = {**os.environ, "RUNTIME": str(runtime), "TMPDIR": str(scratch), "TERM": "dumb"}
        program = str(self.source / "validation" / unit / f"{unit}.t")
        runner = ["sh", "-c", f"cd {self.source} && exec \"$@\"", "sh", program]
        screen, code = run_on_terminal(in_layout(layout, ["timeout", "-k", "5", str(options.timeout), *runner]), environment,
                                 2 * options.timeout)
        shutil.rmtree(scratch, ignore_errors=True)
        text = screen.replace("\r\n", "\n")
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / f"{unit}.tap").write_text(text)
        lines = [line for line in text.splitlines() if TAP_LINE.match(line)]
        failed = [line[7:] for line in lines if line.startswith("not ok")]
        skipped = [line for line in lines if "# SKIP" in line.upper()]
        # The hook tests print no line when they pass, and only a diagnostic when they fail.
        errors = [] if lines else re.findall(r'"error": "([^"]+)', text)
        status, reason = "pass", ""
        if failed or errors:
            status, reason = "fail", "; ".join(failed + errors)[:160]
        elif code != 0:
            said = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("exit status")]
            status, reason = "fail", (f"exit {code}: " + (said[-1] if said else ""))[:160]
        elif lines and len(skipped) == len(lines):
            status, reason = "skip", skipped[0].partition("#")[2].strip()[:120]
        return [{"name": unit, "status": status, "reason": reason, "detail": text.splitlines()[-60:], "ms": None}]


def remove_empty_parents():
    """The suite leaves its parent cgroup behind, and pods in it; rmdir takes only what is empty."""
    root = Path("/sys/fs/cgroup")
    for parent in [*root.glob("*/runc-cgroups-integration-test"), root / "runc-cgroups-integration-test"]:
        for folder, _, _ in os.walk(parent, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass


def measure(suite, name, runtime, layout, options):
    """Runs every unit that has no kept result, and prints a line per unit."""
    key = f"{name}-{build.digest(runtime)}-{suite.hash}"
    options.results = build.cache_root() / "bats/results" / suite.section / key / layout
    options.results.mkdir(parents=True, exist_ok=True)
    units = [u for u in suite.units() if not options.file or u in options.file or Path(u).stem in options.file]
    for unit in units:
        kept = options.results / f"{unit}.json"
        if kept.exists() and not options.force:
            continue
        records = suite.run_unit(unit, runtime, layout, options)
        failed = [r["name"] for r in records if r["status"] == "fail"]
        for _ in range(options.retries if failed else 0):
            again = {r["name"]: r for r in suite.run_unit(unit, runtime, layout, options, names=failed)}
            records = [again[r["name"]] if r["name"] in again else r for r in records]
            for record in records:
                if record["name"] in failed and record["status"] == "pass":
                    record["reason"] = "passed when run again"
            failed = [r["name"] for r in records if r["status"] == "fail"]
        kept.write_text(json.dumps(records, indent=1))
        remove_empty_parents()
        counts = {s: sum(r["status"] == s for r in records) for s in ("pass", "skip", "fail")}
        print(f"{suite.section} {layout} {name} {unit}: " + " ".join(f"{s} {n}" for s, n in counts.items()), flush=True)
        for record in records:
            if record["status"] == "fail":
                print(f"    fail: {record['name']}  {record['reason']}", flush=True)
    return key


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", type=Path, help="a checkout of runc")
    parser.add_argument("--tools", type=Path, help="a checkout of OCI runtime-tools")
    parser.add_argument("--ketch", type=Path, default=Path("target/release/ketch"))
    parser.add_argument("--runtime", choices=["both", "runc", "ketch"], default="both")
    parser.add_argument("--layout", choices=["both", "v1", "v2"], default="both")
    parser.add_argument("--file", action="append", help="only this .bats file or validation program; repeatable")
    parser.add_argument("--force", action="store_true", help="run again what has a kept result")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test")
    parser.add_argument("--retries", type=int, default=1, help="how often a failed test is run again")
    parser.add_argument("--ledger", type=Path, default=Path(__file__).resolve().parent.parent / "runc-bats.txt")
    parser.add_argument("--no-ledger", action="store_true")
    parser.add_argument("--red", type=Path, help="write here what each test printed that runc passes and ketch fails")
    return parser.parse_args()


def main():
    options = arguments()
    if not options.src and not options.tools:
        sys.exit("bats: name a checkout: make bats SRC=<runc> and/or TOOLS=<runtime-tools>")
    build.install_packages()
    suites = []
    runc_source = build.runc_suite(options.src.resolve()) if options.src else None
    if runc_source:
        suites.append(BatsSuite(runc_source))
    if options.tools:
        suites.append(ToolsSuite(build.runtime_tools(options.tools.resolve())))
    layouts = ["v1", "v2"] if options.layout == "both" else [options.layout]
    runc = runc_source / "runc" if runc_source else Path(shutil.which("runc") or "/usr/sbin/runc")
    chosen = []
    if options.runtime in ("both", "runc"):
        chosen.append(("runc", runc))
    if options.runtime in ("both", "ketch"):
        if not options.ketch.exists():
            sys.exit(f"bats: {options.ketch} is not there: make build")
        chosen.append(("ketch", options.ketch.resolve()))
    for suite in suites:
        with open(build.cache_root() / f"bats/lock-{suite.section}", "w") as lock:
            # A suite's container and cgroup names are fixed, so two runs at once would meet.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for layout in layouts:
                for name, runtime in chosen:
                    measure(suite, name, runtime, layout, options)
    if options.red:
        ledger.write_red(options.red, suites)
    if not options.no_ledger:
        red = ledger.write(options.ledger, suites)
        print(f"bats: {options.ledger} written, {red} tests pass with runc and not with ketch")
        if "ketch" in dict(chosen) and red:
            sys.exit(1)


if __name__ == "__main__":
    main()
