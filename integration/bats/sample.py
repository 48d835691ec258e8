#!/usr/bin/env python3
"""A named part of runc's bats suite in the VM, in each of its modes, held against the ledger: what passes there with ketch
(or, where ketch has not been run, with runc) must pass, as far as the time goes; files that it does not reach are skipped by
name, and so are modes for which `make test` has no time left (KETCH_TEST_UNTIL). For `make test`; it neither keeps results nor
writes the ledger.

The last line is `N passed, N failed, N skipped`. Without a checkout, and without one built earlier in the cache, it says so.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import build
import ledger
import run
import vm

# By the minutes that they take under emulation: about ten in all, at most BOOT_SECONDS for each mode.
PARTS = {
    "vm-root": ["create", "start", "kill", "state", "delete", "pause", "exec", "list"],
    "vm-systemd": ["create", "delete", "cgroups", "pause", "state", "umask"],
    "vm-rootless": ["create", "start", "kill", "state", "exec", "help", "version"],
}
BOOT_SECONDS = 280
# What a boot takes beyond that.
AROUND_SECONDS = 60
NAME = "runc's bats in the VM"


def checkout(given):
    """What was asked for, else the newest that has been built here."""
    if given:
        return given.resolve()
    kept = sorted((build.cache_root() / "bats").glob("runc-*/src"), key=lambda path: path.stat().st_mtime)
    return kept[-1] if kept else None


def has_time():
    end = os.environ.get("KETCH_TEST_UNTIL")
    return end is None or time.time() + BOOT_SECONDS + AROUND_SECONDS <= int(end)


def expected(target, mode):
    """The ledger's verdicts of a mode, by file and test."""
    rows, _ = ledger.earlier(target)
    verdicts = {}
    for row in rows.get(("runc", mode), []):
        _, _, base, ours, name, *_ = row.split("\t")
        unit, test = name.split(": ", 1)
        verdicts[(unit, test)] = base if ours == "not run" else ours
    return verdicts


def judge(mode, unit, records, wanted, counts):
    """Prints each test of a file and counts it."""
    for record in records:
        name = f"{mode} {unit}: {record['name']}"
        should = wanted.get((unit, record["name"]), "not run")
        if record["status"] == "pass":
            verdict, counts["passed"] = "ok", counts["passed"] + 1
        elif should == "pass":
            verdict, counts["failed"] = f"FAILED ({record['status']} {record['reason']})", counts["failed"] + 1
            print("\n".join("    " + text for text in record["detail"][:40]))
        else:
            reason = record["reason"] or f"{should} in the ledger"
            verdict, counts["skipped"] = f"skipped: {reason}", counts["skipped"] + 1
        print(f"{name} ... {verdict}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", type=Path, help="a checkout of runc")
    parser.add_argument("--ketch", type=Path, default=Path("target/release/ketch"))
    parser.add_argument("--ledger", type=Path, default=vm.HERE.parent / "runc-bats.txt")
    options = parser.parse_args()
    source = checkout(options.src)
    if source is None:
        print(f"{NAME} ... skipped: no checkout of runc: `make vm-bats-sample SRC=<checkout>` (or a `make vm-bats` before) has it run")
        print("0 passed, 0 failed, 1 skipped")
        return
    if not has_time():
        print(f"{NAME} ... skipped: the time of `make test` was over")
        print("0 passed, 0 failed, 1 skipped")
        return
    build.install_packages()
    suite = run.BatsSuite(build.runc_suite(source))
    options.boot_seconds = BOOT_SECONDS
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for mode, files in PARTS.items():
        if not has_time():
            counts["skipped"] += 1
            print(f"{mode} ... skipped: the time of `make test` was over", flush=True)
            continue
        units = [f"{name}.bats" for name in files]
        wanted = expected(options.ledger, mode)
        out = vm.boot(suite, options.ketch.resolve(), mode, units, options)
        for unit in units:
            if (out / f"{unit}.json").exists():
                judge(mode, unit, json.loads((out / f"{unit}.json").read_text()), wanted, counts)
            elif unit == units[0]:
                # The smallest, with all the time there is: it hangs.
                counts["failed"] += 1
                print(f"{mode} {unit} ... FAILED (it did not end within {BOOT_SECONDS} s)")
            else:
                counts["skipped"] += 1
                print(f"{mode} {unit} ... skipped: not within {BOOT_SECONDS} s of this machine's time")
        shutil.rmtree(out)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    if counts["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
