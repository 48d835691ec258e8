"""Writes integration/runc-bats.txt from the kept results. The ledger is generated only; called by run.py."""

import json
from pathlib import Path

import build

INNER_TEXT = Path(__file__).resolve().parent / "inner-text.txt"
# In the VM: root with the cgroupfs driver, root with RUNC_USE_SYSTEMD, a user in its own session with RUNC_USE_SYSTEMD.
VM_MODES = ("vm-root", "vm-systemd", "vm-rootless")
LAYOUTS = ("v1", "v2", *VM_MODES)


def inner_text(suite_folder):
    """Tests whose only evidence is runc's inner debug text: (file, test) to the line each of them matches.

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
    return {(unit, record["name"]): record for unit, path in sorted(kept.items()) for record in json.loads(path.read_text())}


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
    """What the ledger says already: the rows and the totals of each suite and layout."""
    rows, totals = {}, {}
    for line in target.read_text().splitlines() if target.exists() else []:
        if line.startswith("#"):
            words = line[1:].split()
            if len(words) > 2 and words[1] in LAYOUTS:
                totals.setdefault((words[0], words[1]), []).append(line)
        elif line:
            section, layout = line.split("\t")[:2]
            rows.setdefault((section, layout), []).append(line)
    return rows, totals


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
    """Writes the ledger and gives the number of tests that pass with runc and neither pass nor are n/a with ketch."""
    lines, totals, red = [], [], 0
    rows_before, totals_before = earlier(target)
    measured = {(suite.section, layout) for suite in suites for layout in LAYOUTS}
    for suite in suites:
        texts = inner_text(suite.folder) if suite.section == "runc" else {}
        for layout in LAYOUTS:
            kept = {name: newest(suite.section, name, suite.hash, layout) for name in ("runc", "ketch")}
            by_runtime = {name: load(files) for name, files in kept.items()}
            if not by_runtime["runc"] and not by_runtime["ketch"]:
                # Measured on another machine, or never.
                measured.discard((suite.section, layout))
                continue
            counts = {}
            body = []
            for key in sorted(set(by_runtime["runc"]) | set(by_runtime["ketch"]) | planned(suite, layout)):
                baseline = by_runtime["runc"].get(key)
                verdict, reason = ketch_verdict(baseline, by_runtime["ketch"].get(key), texts.get(key))
                base = baseline["status"] if baseline else "not run"
                if base == "skip" and not reason:
                    reason = baseline["reason"]
                if base == "fail" and verdict != "fail":
                    reason = reason or f"runc: {baseline['reason']}".rstrip(": ")
                red += is_red(base, verdict)
                counts[("runc", base)] = counts.get(("runc", base), 0) + 1
                counts[("ketch", verdict)] = counts.get(("ketch", verdict), 0) + 1
                body.append(f"{suite.section}\t{layout}\t{base}\t{verdict}\t{key[0]}: {key[1]}\t{reason}".rstrip())
            for name in ("runc", "ketch"):
                words = ", ".join(f"{status} {n}" for (who, status), n in sorted(counts.items()) if who == name)
                totals.append(f"# {suite.section} {layout} {binaries(name, kept[name], suite.hash)}: {words}")
            lines += body
    for key, rows in rows_before.items():
        if key not in measured:
            lines += rows
            totals += totals_before.get(key, [])
            cells = [row.split("\t") for row in rows]
            red += sum(is_red(cell[2], cell[3]) for cell in cells)
    head = ["# Generated by `make bats`; never edited by hand. checkpoint.bats runs in the VM only.",
            "# Columns: suite, layout (v1, v2: the machine's; vm-*: `make vm-bats`), verdict with runc, with ketch, test, reason.",
            "# Totals, with the start of the SHA-256 of the runtime's binary:",
            *totals, f"# pass with runc and not with ketch: {red}"]
    target.write_text("\n".join(head + lines) + "\n")
    return red


def planned(suite, layout):
    """Every test that the VM's columns must speak of, run or not."""
    if layout not in VM_MODES or suite.section != "runc":
        return set()
    return {(unit, name) for unit in suite.all_units() for name in suite.names(unit)}
