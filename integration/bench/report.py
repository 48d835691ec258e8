"""Medians, ratios and the verdict on each target of issue 2.

Owns: the arithmetic and the tables. Takes no sample. Called by bench.py.
"""

import os
import statistics

COLUMNS = ["floor", "ketch", "crun-new", "runc-new", "crun-old", "runc-old"]
KINDS = {"wall": "wall_ms", "cpu": "cpu_ms", "peak": "peak_kib"}

# (what, layout, case, profile, kind, of, over, at most)
TARGETS = [
    ("run, wall, over the floor", "v2", "run", "plain", "wall", "ketch", "floor", 2.0),
    ("run, CPU, over the floor", "v2", "run", "plain", "cpu", "ketch", "floor", 2.0),
    ("run, wall, over the current crun", "v2", "run", "plain", "wall", "ketch", "crun-new", 0.5),
    ("run, wall, over Debian's runc", "v2", "run", "plain", "wall", "ketch", "runc-old", 0.2),
    ("run with Docker's seccomp, wall, over the plain floor", "v2", "run", "seccomp", "wall", "ketch", "floor", 2.5),
    ("run with Docker's seccomp, CPU, over the plain floor", "v2", "run", "seccomp", "cpu", "ketch", "floor", 2.5),
    ("exec, wall, over the exec floor", "v2", "exec", "plain", "wall", "ketch", "floor", 2.5),
    ("run, wall, over Debian's crun", "v1", "run", "plain", "wall", "ketch", "crun-old", 0.45),
    ("run, CPU, over Debian's crun", "v1", "run", "plain", "cpu", "ketch", "crun-old", 0.5),
    ("exec, wall, over Debian's crun", "v1", "exec", "plain", "wall", "ketch", "crun-old", 0.6),
    ("run, peak memory, over the current crun", "v2", "run", "plain", "peak", "ketch", "crun-new", 1.0),
    ("run, peak memory, over the current crun", "v1", "run", "plain", "peak", "ketch", "crun-new", 1.0),
    ("run, peak memory, over Debian's crun", "v1", "run", "plain", "peak", "ketch", "crun-old", 1.0),
]
FLOOR_WALL_MS = 7.0
BINARY_BYTES = 4 * 1024 * 1024
GROWTH = 1.15


def summary(values):
    values = sorted(values)
    tenth = max(len(values) // 10, 0)
    return {
        "n": len(values),
        "median": round(statistics.median(values), 3),
        "p10": round(values[tenth], 3),
        "p90": round(values[-1 - tenth], 3),
        "min": round(values[0], 3),
    }


def build(facts, samples, failures, limits, ketch):
    cases = []
    for key in sorted(set(samples) | set(failures), key=str):
        layout, case, profile, program = key or ("?", "?", "?", "?")
        row = {"layout": layout, "case": case, "profile": profile, "program": program}
        taken = samples.get(key, [])
        if taken:
            for kind, attribute in KINDS.items():
                row[attribute] = summary([getattr(sample, attribute) for sample in taken])
        failed = failures.get(key, [])
        if failed:
            row["failed"] = len(failed)
            row["first_failure"] = failed[0]
        cases.append(row)
    result = {**facts, "cases": cases, "limit_512_kib": limits}
    result["binary"] = binary(ketch)
    result["targets"] = verdicts(result)
    return result


def binary(path):
    if not path:
        return None
    with open(path, "rb") as file:
        head = file.read(4096)
    # A dynamic executable names its interpreter in the first page.
    return {"path": path, "bytes": os.path.getsize(path), "static": b"/ld-linux" not in head and b"/lib64/ld" not in head}


def value(result, layout, case, profile, program, kind):
    for row in result["cases"]:
        if (row["layout"], row["case"], row["profile"], row["program"]) == (layout, case, profile, program):
            found = row.get(KINDS[kind])
            return found["median"] if found else None
    return None


def verdict(what, measured, at_most, missing=""):
    """`measured` None: not measured, because of `missing`."""
    if measured is None:
        return {"target": what, "at_most": at_most, "measured": None, "verdict": f"not measured: {missing}"}
    return {
        "target": what,
        "at_most": at_most,
        "measured": round(measured, 3),
        "verdict": "met" if measured <= at_most else "NOT MET",
    }


def verdicts(result):
    out = []
    for layout in ("v1", "v2"):
        wall = value(result, layout, "run", "plain", "floor", "wall")
        out.append(verdict(f"{layout} floor, run, wall in ms", wall, FLOOR_WALL_MS, "no floor sample"))
    for what, layout, case, profile, kind, of, over, at_most in TARGETS:
        ours = value(result, layout, case, profile, of, kind)
        theirs = value(result, layout, case, "plain" if over == "floor" else profile, over, kind)
        missing = of if ours is None else over
        ratio = ours / theirs if ours and theirs else None
        out.append(verdict(f"{layout} {what}", ratio, at_most, f"no sample of {missing}"))
    growth = {}
    for program in ("ketch", "floor", "crun-new"):
        first = value(result, "v2", "first", "plain", program, "wall")
        last = value(result, "v2", "last", "plain", program, "wall")
        growth[program] = last / first if first and last else None
    result["growth"] = growth
    ratio = growth["ketch"] / growth["floor"] if growth["ketch"] and growth["floor"] else None
    which = f"v2 growth of run beside {result['beside']} running containers, over the floor's growth"
    out.append(verdict(which, ratio, GROWTH, "no sample beside running containers"))
    for layout in ("hybrid", "v1"):
        rows = [r for r in result["limit_512_kib"] if r["program"] == "ketch" and r["layout"] == layout]
        failed = rows[0]["failed"] if rows else None
        tries = rows[0]["tries"] if rows else 0
        out.append(verdict(f"{layout} failed starts of {tries} with a 512 KiB memory limit", failed, 0, "no sample of ketch"))
    size = result["binary"]
    out.append(verdict("binary, bytes", size["bytes"] if size else None, BINARY_BYTES, "no binary of ketch"))
    dynamic = None if not size else 0 if size["static"] else 1
    out.append(verdict("binary, needs a dynamic loader", dynamic, 0, "no binary of ketch"))
    return out


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.2f}"


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def cell(result, layout, case, profile, program, kind):
    if program == "floor":
        profile = "plain"
    median = value(result, layout, case, profile, program, kind)
    if median is None:
        return "-"
    floor = value(result, layout, case, "plain", "floor", kind)
    ratio = f" ({median / floor:.2f})" if floor else ""
    return f"{median:.0f}{ratio}" if kind == "peak" else f"{median:.2f}{ratio}"


def heading(result, program):
    version = result["programs"][program]["version"]
    return f"{program.split('-')[0]} {version}".strip()


def text(result):
    columns = [program for program in COLUMNS if program in result["programs"]]
    out = [
        "",
        f"kernel {result['kernel']}, {result['cpus']} CPUs, load {result['load_before']:.1f} before and "
        f"{result['load_after']:.1f} after, {result['rounds']} rounds in {result['seconds']:.0f} s; medians, "
        "in brackets the ratio to the floor of the same case (which has no seccomp)",
    ]
    units = {"wall": "wall, ms", "cpu": "CPU of the whole tree, ms", "peak": "peak memory of the largest process, KiB"}
    for layout in ("v1", "v2"):
        for kind, unit in units.items():
            rows = [[f"{layout}: {unit}", *(heading(result, program) for program in columns)]]
            for case in ("run", "create-start-delete", "exec", "burst", "first", "last"):
                for profile in ("plain", "seccomp"):
                    cells = [cell(result, layout, case, profile, program, kind) for program in columns]
                    if profile == "seccomp" and all(c == "-" for c in cells[1:]) or set(cells) == {"-"}:
                        continue
                    label = {
                        "burst": f"{result['burst']} runs at once",
                        "first": "run, nothing beside",
                        "last": f"run beside {result['beside']}",
                    }.get(case, case)
                    rows.append([f"  {label}{', seccomp' if profile == 'seccomp' else ''}", *cells])
            if len(rows) > 1:
                out += ["", table(rows)]
    failed = [row for row in result["cases"] if "failed" in row]
    if failed:
        out += ["", "failed samples (not in the medians):"]
        for row in failed:
            name = f"{row['layout']} {row['case']} {row['profile']} {row['program']}"
            out.append(f"  {name}: {row['failed']}, first: {row['first_failure']}")
    limits = [
        f"{row['program']} on {row['layout']} {row['tries'] - row['failed']}/{row['tries']}" for row in result["limit_512_kib"]
    ]
    if limits:
        out += ["", "starts with a 512 KiB memory limit: " + ", ".join(limits)]
    rows = [["target", "at most", "measured", ""]]
    for target in result["targets"]:
        rows.append([target["target"], number(target["at_most"]), number(target["measured"]), target["verdict"]])
    out += ["", table(rows)]
    if result["notes"]:
        out += ["", *(f"note: {line}" for line in result["notes"])]
    return "\n".join(out)


def promises(result):
    """The targets as rows of a Markdown table, for README.md."""
    when = f"Measured {result['taken'][:10]} on {result['cpus']} CPUs, kernel {result['kernel']}, {result['rounds']} rounds, "
    lines = [
        f"{when}load {result['load_before']:.1f} to {result['load_after']:.1f}; `make bench`.",
        "",
        "| promise | at most | measured | |",
        "|---|---|---|---|",
    ]
    for target in result["targets"]:
        cells = [target["target"], number(target["at_most"]), number(target["measured"]), target["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
