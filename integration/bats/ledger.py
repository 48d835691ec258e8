"""Writes integration/runc-bats.txt from the kept results. The ledger is generated only; called by run.py."""

import json
from pathlib import Path

import build

INNER_TEXT = Path(__file__).resolve().parent / "inner-text.txt"
LAYOUTS = ("v1", "v2")
NOT_RUN = "not run with ketch"


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


def newest(section, name, suite_hash):
    """The newest kept results of a runtime for this very suite, else None."""
    folder = build.cache_root() / "bats/results" / section
    stamps = sorted(folder.glob(f"{name}-*-{suite_hash}/stamp"), key=lambda p: p.stat().st_mtime)
    return stamps[-1].parent if stamps else None


def load(folder, layout):
    results = {}
    if folder and (folder / layout).is_dir():
        for kept in sorted((folder / layout).glob("*.json")):
            for record in json.loads(kept.read_text()):
                results[(kept.stem, record["name"])] = record
    return results


def ketch_verdict(baseline, record, text):
    """The verdict and reason for ketch, given the test's verdict with runc."""
    if record is None:
        return "n/a", NOT_RUN
    if record["status"] == "fail" and text:
        return "n/a", f"its only evidence is runc's inner text: {text}"
    if record["status"] == "fail" and baseline and baseline["status"] == "fail":
        return "n/a", "fails here with runc too"
    return record["status"], record["reason"]


def is_red(baseline, verdict, reason):
    """A test that passes with runc is red unless it passes with ketch, or is n/a for its inner text."""
    return baseline == "pass" and (verdict in ("fail", "skip") or reason == NOT_RUN)


def write_red(target, suites):
    """Writes, for each test that passes with runc and neither passes nor is n/a with ketch, what its TAP record says."""
    lines = []
    for suite in suites:
        texts = inner_text(suite.folder) if suite.section == "runc" else {}
        runs = {name: newest(suite.section, name, suite.hash) for name in ("runc", "ketch")}
        for layout in LAYOUTS:
            baseline, ours = load(runs["runc"], layout), load(runs["ketch"], layout)
            for key, record in sorted(ours.items()):
                verdict, reason = ketch_verdict(baseline.get(key), record, texts.get(key))
                if is_red(baseline.get(key, {}).get("status"), verdict, reason):
                    lines.append(f"## {suite.section} {layout} {key[0]}: {key[1]} ({verdict} {reason})".rstrip(" ()") + ")")
                    lines += ["    " + text for text in record["detail"][:60]] + [""]
    target.write_text("\n".join(lines) + "\n")


def write(target, suites):
    """Writes the ledger and gives the number of tests that pass with runc and neither pass nor are n/a with ketch."""
    lines, totals, red = [], [], 0
    for suite in suites:
        texts = inner_text(suite.folder) if suite.section == "runc" else {}
        runs = {name: newest(suite.section, name, suite.hash) for name in ("runc", "ketch")}
        for layout in LAYOUTS:
            by_runtime = {name: load(folder, layout) for name, folder in runs.items()}
            if not by_runtime["runc"] and not by_runtime["ketch"]:
                continue
            counts = {}
            body = []
            for key in sorted(set(by_runtime["runc"]) | set(by_runtime["ketch"])):
                baseline = by_runtime["runc"].get(key)
                verdict, reason = ketch_verdict(baseline, by_runtime["ketch"].get(key), texts.get(key))
                base = baseline["status"] if baseline else "n/a"
                if base == "skip" and not reason:
                    reason = baseline["reason"]
                if base == "fail" and verdict != "fail":
                    reason = reason or f"runc: {baseline['reason']}".rstrip(": ")
                red += is_red(base, verdict, reason)
                counts[("runc", base)] = counts.get(("runc", base), 0) + 1
                counts[("ketch", verdict)] = counts.get(("ketch", verdict), 0) + 1
                body.append(f"{suite.section}\t{layout}\t{base}\t{verdict}\t{key[0]}: {key[1]}\t{reason}".rstrip())
            for name in ("runc", "ketch"):
                words = ", ".join(f"{status} {n}" for (who, status), n in sorted(counts.items()) if who == name)
                binary = runs[name].name.removesuffix(f"-{suite.hash}") if runs[name] else f"{name}, no results"
                totals.append(f"# {suite.section} {layout} {binary}: {words}")
            lines += body
    head = ["# Generated by `make bats`; never edited by hand. checkpoint.bats is left out.",
            "# Columns: suite, cgroup layout, verdict with runc, verdict with ketch, test, reason.",
            "# Totals, with the start of the SHA-256 of the runtime's binary:",
            *totals, f"# pass with runc and not with ketch: {red}"]
    target.write_text("\n".join(head + lines) + "\n")
    return red
