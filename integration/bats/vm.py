#!/usr/bin/env python3
"""Runs runc's bats suite in the VM: as root, as root with the systemd driver, and without root; then the ledger.

One boot runs as many files as fit into its time. A file's result is kept by the hashes of runtime, suite and VM image, so
a run that was broken off goes on where it stopped, and the peer's baseline is measured once. What has no result is
`not run` in the ledger. Called by `make vm-bats`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build
import ledger
import run

HERE = Path(__file__).resolve().parent
VM = HERE.parent / "vm"
# Where this folder is in the VM: the path here may be below /tmp, whose mode a copy would change there.
GUEST = "/opt/ketch-bats"
# What takes half an hour; `make test` runs the smaller part that is named in sample.py.
SUBSET = ["cgroups", "create", "delete", "exec", "kill", "pause", "start", "state", "update", "userns"]


def image_key():
    """The image that a run would boot, by the name of its folder."""
    folder = subprocess.run([VM / "build.sh"], check=True, capture_output=True, text=True).stdout.strip()
    return Path(folder).name.partition("-")[0][:12]


def boot(suite, runtime, mode, units, options):
    """Boots, runs the units until the boot's time is over, and gives the folder of what came back."""
    out = Path(tempfile.mkdtemp(prefix="ketch-vm-bats-"))
    inside = Path("/usr/local/bin") / ("ketch" if "ketch" in runtime.name else "runc")
    copies = [f"{suite.source / part}" for part in ("tests/integration", "tests/cmd/_bin")]
    copies += [f"{runtime}:{inside}", f"{HERE}:{GUEST}"]
    command = [str(VM / "run.sh"), "--timeout", str(options.boot_seconds), "--out", str(out)]
    command += ["--user"] if mode == "vm-rootless" else []
    for copy in copies:
        command += ["--copy", copy]
    command += ["--", "python3", "-B", f"{GUEST}/inside.py", "--suite", str(suite.source), "--runtime", str(inside),
                "--mode", mode, *units]
    code = subprocess.run(command, check=False).returncode
    if code == 125:
        shutil.rmtree(out)
        sys.exit("bats: the VM did not boot or gave no result")
    return out


def cut_off(suite, unit):
    """The records of a file that did not end in a boot of its own."""
    names = run.test_names(suite.folder / unit)
    return [{"name": name, "status": "fail", "reason": "its file did not end in time", "detail": [], "ms": None} for name in names]


def measure(suite, name, runtime, mode, image, options):
    """Boots until every chosen unit has a result, or as often as asked."""
    key = f"{name}-{build.digest(runtime)}-{suite.hash}"
    kept = build.cache_root() / "bats/results" / suite.section / key / f"{mode}@{image}"
    kept.mkdir(parents=True, exist_ok=True)
    chosen = [u for u in suite.all_units() if not options.file or u in options.file or Path(u).stem in options.file]
    for _ in range(options.boots):
        missing = [u for u in chosen if not (kept / f"{u}.json").exists()]
        if not missing:
            break
        print(f"bats: {name} {mode}: {len(missing)} of {len(chosen)} files to run", flush=True)
        out = boot(suite, runtime, mode, missing, options)
        ended = [u for u in missing if (out / f"{u}.json").exists()]
        for unit in ended:
            shutil.copy(out / f"{unit}.json", kept)
            shutil.copy(out / f"{unit}.tap", kept)
        if not ended and (out / f"{missing[0]}.begun").exists():
            (kept / f"{missing[0]}.json").write_text(json.dumps(cut_off(suite, missing[0]), indent=1))
        shutil.rmtree(out)
    missing = [u for u in chosen if not (kept / f"{u}.json").exists()]
    return len(missing)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", type=Path, required=True, help="a checkout of runc")
    parser.add_argument("--ketch", type=Path, default=Path("target/release/ketch"))
    parser.add_argument("--runtime", choices=["both", "runc", "ketch"], default="both")
    parser.add_argument("--mode", action="append", choices=ledger.VM_MODES, help="repeatable; all when left out")
    parser.add_argument("--file", action="append", help="only this .bats file; repeatable")
    parser.add_argument("--subset", action="store_true", help=f"only {', '.join(SUBSET)}")
    parser.add_argument("--boots", type=int, default=100, help="at most so many for each runtime and mode")
    parser.add_argument("--boot-seconds", type=int, default=420, help="how long the files of one boot may take")
    parser.add_argument("--ledger", type=Path, default=HERE.parent / "runc-bats.txt")
    parser.add_argument("--red", type=Path, help="write here what each test printed that runc passes and ketch fails")
    options = parser.parse_args()
    if options.subset:
        options.file = SUBSET
    return options


def main():
    options = arguments()
    build.install_packages()
    suite = run.BatsSuite(build.runc_suite(options.src.resolve()))
    image = image_key()
    runtimes = {"runc": suite.source / "runc", "ketch": options.ketch.resolve()}
    left = 0
    for mode in options.mode or ledger.VM_MODES:
        for name, runtime in runtimes.items():
            if options.runtime in ("both", name):
                left += measure(suite, name, runtime, mode, image, options)
    red = ledger.write(options.ledger, [suite])
    if options.red:
        ledger.write_red(options.red, [suite])
    print(f"bats: {options.ledger} written, {red} tests pass with runc and not with ketch, {left} files not run yet")
    if red:
        sys.exit(1)


if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    main()
