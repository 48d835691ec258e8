#!/usr/bin/env python3
"""Runs files of runc's suite inside the VM, one after another, and leaves each one's records in /results.

Called by vm.py through run.sh; what is judged and kept is decided there. A file that ran to its end has <unit>.json;
the one that the deadline of the VM cut off has <unit>.begun only.
"""

import argparse
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import run

RESULTS = Path("/results")


def environment(options):
    """What tests/rootless.sh of the suite would set for a user with id maps."""
    values = {**os.environ, "RUNC": str(options.runtime), "TERM": "dumb"}
    if options.mode in ("vm-systemd", "vm-rootless"):
        values["RUNC_USE_SYSTEMD"] = "yes"
    if options.mode == "vm-rootless":
        first, count = subordinate_ids(pwd.getpwuid(os.getuid()).pw_name)
        values |= {
            "ROOTLESS_FEATURES": "idmap",
            "ROOTLESS_UIDMAP_START": first, "ROOTLESS_UIDMAP_LENGTH": count,
            "ROOTLESS_GIDMAP_START": first, "ROOTLESS_GIDMAP_LENGTH": count,
        }
    return values


def subordinate_ids(name):
    for line in Path("/etc/subuid").read_text().splitlines():
        owner, first, count = line.split(":")
        if owner == name:
            return first, count
    raise SystemExit(f"bats: {name} has no subordinate ids")


def run_unit(folder, unit, options):
    scratch = Path(f"/tmp/bats-{os.getuid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o755)
    report = scratch / "report"
    report.mkdir()
    # All that the suite asks of Go at run time is the name of the architecture.
    tools = scratch / "tools"
    tools.mkdir()
    (tools / "go").write_text('#!/bin/sh\n[ "$*" = "env GOARCH" ] && echo amd64\n')
    (tools / "go").chmod(0o755)
    command = ["bats", "--timing", "--tap", "--report-formatter", "tap", "--output", str(report), str(folder / unit)]
    variables = environment(options) | {"TMPDIR": str(scratch), "PATH": f"{tools}:{os.environ['PATH']}"}
    screen, _ = run.run_on_terminal(command, variables, options.timeout)
    taps = list(report.glob("*.tap"))
    text = taps[0].read_text(errors="replace") if taps else screen.replace("\r\n", "\n")
    if not any(run.TAP_LINE.match(line) for line in text.splitlines()):
        text = screen.replace("\r\n", "\n")
    (RESULTS / f"{unit}.tap").write_text(text)
    shutil.rmtree(scratch, ignore_errors=True)
    return run.parse_tap(text, run.test_names(folder / unit))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--timeout", type=int, default=240, help="seconds of silence after which a test has stalled")
    parser.add_argument("units", nargs="+")
    options = parser.parse_args()
    if options.mode != "vm-rootless":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    for unit in options.units:
        (RESULTS / f"{unit}.begun").write_text("")
        records = run_unit(options.suite / "tests/integration", unit, options)
        (RESULTS / f"{unit}.json").write_text(json.dumps(records, indent=1))
        counts = {status: sum(r["status"] == status for r in records) for status in ("pass", "skip", "fail")}
        print(f"{options.mode} {unit}: " + " ".join(f"{status} {n}" for status, n in counts.items()), flush=True)
        for record in records:
            if record["status"] == "fail":
                print(f"    fail: {record['name']}  {record['reason']}", flush=True)


if __name__ == "__main__":
    main()
