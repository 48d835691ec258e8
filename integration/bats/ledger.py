"""Writes integration/runc-bats.txt from the kept results. The ledger is generated only; called by run.py."""

import json
from pathlib import Path

import build

INNER_TEXT = Path(__file__).resolve().parent / "inner-text.txt"
# In the VM: root with the cgroupfs driver, root with RUNC_USE_SYSTEMD, a user in its own session with RUNC_USE_SYSTEMD.
VM_MODES = ("vm-root", "vm-systemd", "vm-rootless")
LAYOUTS = ("v1", "v2", *VM_MODES)


def inner_text(suite_folder):
    """Tests whose only evidence is a line about runc's inside that is untrue of ketch: (file, test) to the line each of them matches.

    The test and the text must still stand in the checkout's file (the text often in a function that the file's tests
    call), else the entry is void.
    """
    found = {}
    for line in INNER_TEXT.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        file, test, text = line.split("\t")
        source = (suite_folder / file).read_text() if (suite_folder / file).exists() else ""
        if f'@test "{test}"' in source and text in source:
            found[(file, test)] = text
    return found


def newest(section, name, suite_hash, layout):
    """The newest result of each file of this very suite, by the file's name: where it is kept. A file may have been run again
    with a newer binary than the others; those of the VM are kept for each image."""
    folder = build.cache_root() / "bats/results" / section
    found = {}
    for pattern in (layout, f"{layout}@*"):
        for kept in folder.glob(f"{name}-*-{suite_hash}/{pattern}/*.json"):
            before = found.get(kept.stem)
            if before is None or before.stat().st_mtime < kept.stat().st_mtime:
                found[kept.stem] = kept
    return found


def load(kept):
    """The records of the files."""
    return {(unit, record["name"].strip()): record for unit, path in sorted(kept.items()) for record in json.loads(path.read_text())}


def binaries(name, kept, suite_hash):
    """The start of the SHA-256 of the binary that the results are of; of each one with the number of its files, if several."""
    counts = {}
    for path in kept.values():
        key = path.parent.parent.name.removesuffix(f"-{suite_hash}")
        counts[key] = counts.get(key, 0) + 1
    if len(counts) < 2:
        return next(iter(counts), f"{name}, no results")
    return ", ".join(f"{key} ({files} files)" for key, files in sorted(counts.items(), key=lambda pair: -pair[1]))


def earlier(target):
    """What the ledger says already, of each suite and layout: the rows by test, and the binaries by the runtime's name."""
    rows, binaries_before = {}, {}
    for line in target.read_text().splitlines() if target.exists() else []:
        if line.startswith("#"):
            words = line[1:].split(maxsplit=2)
            if len(words) == 3 and words[1] in LAYOUTS:
                text = words[2].rsplit(": ", 1)[0]
                binaries_before.setdefault((words[0], words[1]), {})[text.split("-")[0]] = text
        elif line:
            section, layout, base, verdict, test, *reason = line.split("\t")
            unit, name = test.split(": ", 1)
            rows.setdefault((section, layout), {})[(unit, name.strip())] = (base, verdict, reason[0] if reason else "")
    return rows, binaries_before


def ketch_verdict(baseline, record, text):
    """The verdict and reason for ketch, given the test's verdict with runc."""
    if record is None:
        return "not run", ""
    if record["status"] == "fail" and text:
        return "n/a", f"its only evidence is runc's inner text: {text}"
    if record["status"] == "fail" and baseline and baseline["status"] == "fail":
        return "n/a", "fails here with runc too"
    return record["status"], record["reason"]


def is_red(baseline, verdict):
    """A test that passes with runc is red when it runs with ketch and does not pass, unless it is n/a for its inner text."""
    return baseline == "pass" and verdict in ("fail", "skip")


def write_red(target, suites):
    """Writes, for each test that passes with runc and neither passes nor is n/a with ketch, what its TAP record says."""
    lines = []
    for suite in suites:
        texts = inner_text(suite.folder) if suite.section == "runc" else {}
        for layout in LAYOUTS:
            baseline, ours = (load(newest(suite.section, name, suite.hash, layout)) for name in ("runc", "ketch"))
            for key, record in sorted(ours.items()):
                verdict, reason = ketch_verdict(baseline.get(key), record, texts.get(key))
                if is_red(baseline.get(key, {}).get("status"), verdict):
                    lines.append(f"## {suite.section} {layout} {key[0]}: {key[1]} ({verdict} {reason})".rstrip(" ()") + ")")
                    lines += ["    " + text for text in record["detail"][:60]] + [""]
    target.write_text("\n".join(lines) + "\n")


def write(target, suites):
    """Writes the ledger and gives the number of tests that pass with runc and neither pass nor are n/a with ketch. What this
    machine has no result of stays as the ledger has it."""
    rows, binaries_before = earlier(target)
    heads = dict(binaries_before)
    for suite in suites:
        texts = inner_text(suite.folder) if suite.section == "runc" else {}
        for layout in LAYOUTS:
            kept = {name: newest(suite.section, name, suite.hash, layout) for name in ("runc", "ketch")}
            if not any(kept.values()):
                continue
            place = (suite.section, layout)
            before = rows.get(place, {})
            by_runtime = {name: load(files) for name, files in kept.items()}
            tests = set(by_runtime["runc"]) | set(by_runtime["ketch"]) | planned(suite, layout)
            rows[place] = {test: judged(test, by_runtime, before.get(test), texts) for test in sorted(tests)}
            heads[place] = {name: described(name, by_runtime[name], kept[name], rows[place],
                                            binaries_before.get(place, {}).get(name), suite.hash)
                            for name in ("runc", "ketch")}
    totals, lines, red = [], [], 0
    for place, tests in rows.items():
        for column, name in enumerate(("runc", "ketch")):
            verdicts = [row[column] for row in tests.values()]
            words = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in sorted(set(verdicts)))
            totals.append(f"# {' '.join(place)} {heads[place][name]}: {words}")
        for (unit, test), (base, verdict, reason) in tests.items():
            lines.append("\t".join([*place, base, verdict, f"{unit}: {test}", reason]).rstrip())
            red += is_red(base, verdict)
    head = ["# Generated by `make bats`; never edited by hand. checkpoint.bats runs in the VM only.",
            "# Columns: suite, layout (v1, v2: the machine's; vm-*: `make vm-bats`), verdict with runc, with ketch, test, reason.",
            "# Totals, with the start of the SHA-256 of the runtime's binary:",
            *totals, f"# pass with runc and not with ketch: {red}"]
    target.write_text("\n".join(head + lines) + "\n")
    return red


def judged(test, by_runtime, before, texts):
    """A test's row: the verdict with runc and with ketch, and the reason. A side that was not measured here is as `before`."""
    baseline = by_runtime["runc"].get(test) or (before and baseline_of(before))
    base = baseline["status"] if baseline else "not run"
    record = by_runtime["ketch"].get(test)
    if record is None and before:
        return base, before[1], before[2]
    verdict, reason = ketch_verdict(baseline, record, texts.get(test))
    if base == "skip" and not reason:
        reason = baseline["reason"]
    if base == "fail" and verdict != "fail":
        reason = reason or f"runc: {baseline['reason']}".rstrip(": ")
    return base, verdict, reason


def baseline_of(row):
    """What a row says of runc. The reason is its own of a skip, and where it says so; else it is ketch's."""
    base, _, reason = row
    own = reason if base == "skip" else reason.removeprefix("runc: ") if reason.startswith("runc: ") else ""
    return {"status": base, "reason": own}


def described(name, measured, kept, tests, before, suite_hash):
    """The binaries that a column's verdicts are of."""
    if not kept:
        return before or f"{name}, no results"
    now = binaries(name, kept, suite_hash)
    if not set(tests) - set(measured):
        return now
    # What an earlier run has measured alike is named once.
    return ", the others ".join(dict.fromkeys([now, *(before or now).split(", the others ")]))


def planned(suite, layout):
    """Every test that the VM's columns must speak of, run or not."""
    if layout not in VM_MODES or suite.section != "runc":
        return set()
    return {(unit, name.strip()) for unit in suite.all_units() for name in suite.names(unit)}
