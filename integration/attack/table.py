#!/usr/bin/env python3
"""Runs the attacks of integration/tests/attack*.rs against several runtimes and prints who falls, a row for each line of
the record. Exit code 1 when ketch falls in a row, or a row's test did not run on it.

    table.py <suite program> <ketch> [<peer> ...]

A test that fails on a peer is a fall, as each asserts that its canary is untouched; but not where the peer could not make
the container that attacks (`no start`), or refused it in other words
than ketch, or left a file in its own state folder (`holds`). A row in which no runtime falls is marked
`unproven`, unless a test of its own shows that the attack works."""

import os
import re
import subprocess
import sys

# What of the record it is, the tests that try it, and where it is shown that the attack works if no peer falls.
ROWS = [
    ("CVE-2016-9962", ["attack_inside::descriptors_of_an_entering_process"], ""),
    ("CVE-2019-5736", ["attack_inside::the_binary_by_proc_self_exe", "attack_inside::the_binary_by_a_script_interpreter"],
     "attack_inside::the_attack_on_the_binary_works"),
    ("CVE-2019-16884, 2019-19921", ["attack_image::a_volume_over_proc"], ""),
    ("CVE-2019-18837 (crun)", ["attack_image::a_mount_target_behind_a_link_to_the_host"], "runtime/tests/rootfs.rs"),
    ("CVE-2021-30465, 2024-45310", ["attack_image::a_mount_target_that_is_swapped"], "runtime/tests/rootfs.rs"),
    ("CVE-2022-24769, 27650, 29162, 2025-27612", ["attack_inside::inheritable_capabilities"], ""),
    ("CVE-2023-27561, 28642, 2025-54867", ["attack_image::proc_as_a_link", "attack_image::sys_as_a_link"], ""),
    ("CVE-2024-21626", ["attack_image::a_working_directory_by_descriptor", "attack_inside::exec_into_a_descriptor"], ""),
    ("CVE-2025-31133, 62161", ["attack_image::a_false_null_under_a_mask"], ""),
    ("CVE-2025-52565", ["attack_image::a_false_ptmx"], ""),
    ("CVE-2026-30892 (crun)", ["attack_inside::a_user_with_trailing_garbage"], ""),
    ("CVE-2026-41579, 47766", ["attack_image::dev_as_a_link_to_the_host", "attack_image::a_device_behind_a_link_to_the_host"], ""),
    ("CVE-2026-84042 (crun)", ["attack_image::a_console_behind_a_link_to_the_host"], ""),
    ("CVE-2026-88265 (crun)", ["attack_image::a_false_null_as_standard_input"], ""),
    ("runc 1.5.2 #5457: exec --cgroup", ["attack_host::a_sibling_cgroup_whose_name_begins_alike"], ""),
    ("runc 1.5.3: propagation of the host's /", ["attack_host::the_propagation_of_a_mount_namespace_that_is_shared"], ""),
]
# Rows that have no test here, and why.
ELSEWHERE = [
    ("CVE-2025-52881, 2025-62596", "a race inside of the runtime; its halves are scenarios of runtime/tests/rootfs.rs; LSM labels: attack_label, in the VM"),
    ("CVE-2023-25809", "integration/tests/rootless.rs, which runs as a user: make suite-user"),
    ("CVE-2026-115521 (crun)", "ketch defers no remount by a path; not tried as an attack"),
    ("CVE-2026-119101, 115520, 119614", "checkpoint and restore"),
    ("CVE-2025-24965, 2026-88264 (crun)", "n/a: ketch has no krun handler"),
]


def outcomes(suite, runtime):
    """Each test's outcome on a runtime: holds, falls or skipped."""
    environment = dict(os.environ, RUNTIME=runtime, KETCH_ATTACK_TABLE="1")
    # crun takes no hybrid cgroups.
    layout = "v2" if version(runtime).startswith("crun") else "native"
    done = subprocess.run([suite, "--layout", layout, "attack_"], env=environment, stdout=subprocess.PIPE, text=True)
    words = {"ok": "holds", "FAILED": "falls", "skipped:": "skipped"}
    found = re.findall(rf"^{layout} (\S+) \.\.\. (ok|FAILED|skipped:)", done.stdout, re.M)
    results = {name: words[word] for name, word in found}
    for name, message in re.findall(rf"^---- {layout} (\S+)\n(.*)", done.stdout, re.M):
        if message.startswith("expected success"):
            results[name] = "no start"
        elif " in the refusal" in message or message == "left behind:":
            results[name] = "holds"
    return results


def verdict(results, tests):
    seen = [results.get(test, "not run") for test in tests]
    return next((word for word in ("falls", "not run", "no start", "skipped") if word in seen), "holds")


def version(runtime):
    text = subprocess.run([runtime, "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    return text.replace(" version ", " ")


def main():
    suite, runtimes = sys.argv[1], sys.argv[2:]
    results = {runtime: outcomes(suite, runtime) for runtime in runtimes}
    heads = ["ketch"] + [version(runtime) for runtime in runtimes[1:]]
    print("| attack | " + " | ".join(heads) + " | proven |")
    print("|---" * (len(heads) + 2) + "|")
    bad = []
    for row, tests, proof in ROWS:
        verdicts = [verdict(results[runtime], tests) for runtime in runtimes]
        proven = "by a fall" if "falls" in verdicts[1:] else proof or "unproven"
        print(f"| {row} | " + " | ".join(verdicts) + f" | {proven} |")
        if verdicts[0] != "holds":
            bad.append(f"{row}: {verdicts[0]}")
    for row, reason in ELSEWHERE:
        print(f"| {row} | not run: {reason} |" + " |" * len(heads))
    print("\n".join(["ketch does not hold in:"] + bad) if bad else "ketch falls in no row")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
