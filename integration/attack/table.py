#!/usr/bin/env python3
"""Runs the attacks of integration/tests/attack*.rs against several runtimes and prints who falls, a row for each line of
the record. Exit code 1 when ketch falls in a row, or a row's test did not run on it, or the attack is not proven.

    table.py <suite program> <naive runtime> <ketch> [<peer> ...]

A test that fails on a peer is a fall, as each asserts that its canary is untouched; but not where the peer could not make
the container that attacks or do what it takes (`no start`), or refused it in other words
than ketch, or left a file in its own state folder (`holds`). An attack is proven by a peer that falls, and by the naive
runtime, which protects nothing. What was seen of each fall follows the table."""

import os
import re
import subprocess
import sys

# What of the record it is, and the tests that try it.
ROWS = [
    ("CVE-2016-9962", ["attack_inside::descriptors_of_an_entering_process"]),
    ("CVE-2019-5736", ["attack_inside::the_binary_by_proc_self_exe", "attack_inside::the_binary_by_a_script_interpreter"]),
    ("CVE-2019-16884, 2019-19921", ["attack_image::a_volume_over_proc"]),
    ("CVE-2019-18837 (crun)", ["attack_image::a_mount_target_behind_a_link_to_the_host"]),
    ("CVE-2021-30465, 2024-45310", ["attack_image::a_mount_target_that_is_swapped"]),
    ("CVE-2022-24769, 27650, 29162, 2025-27612", ["attack_inside::inheritable_capabilities"]),
    ("CVE-2023-27561, 28642, 2025-54867", ["attack_image::proc_as_a_link", "attack_image::sys_as_a_link"]),
    ("CVE-2024-21626", ["attack_image::a_working_directory_by_descriptor", "attack_inside::exec_into_a_descriptor"]),
    ("CVE-2025-31133, 62161", ["attack_image::a_false_null_under_a_mask"]),
    ("CVE-2025-52565", ["attack_image::a_false_ptmx", "attack_image::a_false_slave"]),
    ("CVE-2025-52881: sysctls", ["attack_sysctl::a_false_procfs", "attack_sysctl::a_mount_that_is_led_over_the_file"]),
    ("CVE-2026-30892 (crun)", ["attack_inside::a_user_with_trailing_garbage"]),
    ("CVE-2026-41579, 47766", ["attack_image::dev_as_a_link_to_the_host", "attack_image::a_device_behind_a_link_to_the_host"]),
    ("CVE-2026-88264 (crun)", ["attack_image::a_console_behind_a_link_to_the_host"]),
    ("CVE-2026-88265 (crun)", ["attack_image::a_false_null_as_standard_input", "attack_image::a_standard_stream_on_the_host"]),
    ("CVE-2026-115521 (crun)", ["attack_image::a_read_only_volume_and_a_false_procfs"]),
    ("runc 1.5.2 #5457: exec --cgroup", ["attack_host::a_sibling_cgroup_whose_name_begins_alike"]),
    ("runc 1.5.3: propagation of the host's /", ["attack_host::the_propagation_of_a_mount_namespace_that_is_shared"]),
    ("crun 1.31: the notify socket", ["attack_host::the_folder_of_a_notification_socket_behind_a_link",
                                      "attack_host::a_mount_over_the_notification_socket"]),
    ("crun 1.31: a pid namespace that is joined", ["attack_pid::the_host_behind_a_container_that_joins",
                                                  "attack_pid::the_host_behind_one_with_a_user_namespace",
                                                  "attack_pid::the_host_behind_one_in_the_same_user_namespace"]),
    ("the runtime's rights in a pid namespace that is joined", ["attack_pid::rights_of_a_container_that_joins",
                                                               "attack_pid::rights_of_one_with_a_filter",
                                                               "attack_pid::rights_of_an_entering_process"]),
]
# Rows that have no test here, and why.
ELSEWHERE = [
    ("CVE-2025-52881, 2025-62596: labels", "attack_label, in the VM; each step of it by itself in runtime/tests/rootfs.rs"),
    ("CVE-2023-25809", "integration/tests/rootless.rs, which runs as a user: make suite-user"),
    ("CVE-2026-119101, 115520, 119614", "attack_restore, in the VM, where criu runs"),
    ("CVE-2025-24965, 2026-84042 (crun)", "n/a: ketch has no krun handler"),
]


def outcomes(suite, runtime):
    """Each test's outcome on a runtime: holds, falls or skipped; and the first line of what was seen of each fall."""
    environment = dict(os.environ, RUNTIME=runtime, KETCH_ATTACK_TABLE="1")
    command = [suite, "--layout", "native", "attack_image::", "attack_inside::", "attack_host::", "attack_pid::", "attack_sysctl::"]
    # crun takes no hybrid cgroups; Debian's can't start on v2 here.
    if version(runtime).startswith("crun"):
        away = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", away, "sh", *command]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    words = {"ok": "holds", "FAILED": "falls", "skipped:": "skipped"}
    found = re.findall(r"^native (\S+) \.\.\. (ok|FAILED|skipped:)", done.stdout, re.M)
    results = {name: words[word] for name, word in found}
    seen = {}
    for name, message in re.findall(r"^---- native (\S+)\n(.*)", done.stdout, re.M):
        if message.startswith(("expected success", "not done within")) or "could not" in message:
            results[name] = "no start"
        elif " in the refusal" in message or message == "left behind:":
            results[name] = "holds"
        else:
            seen[name] = message
    return results, seen


def verdict(results, tests):
    seen = [results.get(test, "not run") for test in tests]
    return next((word for word in ("falls", "not run", "no start", "skipped") if word in seen), "holds")


def version(runtime):
    text = subprocess.run([runtime, "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    return text.replace(" version ", " ")


def main():
    suite, naive, ketch, *peers = sys.argv[1:]
    runtimes = [ketch, *peers, naive]
    results = {runtime: outcomes(suite, runtime) for runtime in runtimes}
    heads = ["ketch", *(version(runtime) for runtime in peers), "naive"]
    print("| attack | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    bad = []
    for row, tests in ROWS:
        verdicts = [verdict(results[runtime][0], tests) for runtime in runtimes]
        print(f"| {row} | " + " | ".join(verdicts) + " |")
        if verdicts[0] != "holds":
            bad.append(f"{row}: ketch {verdicts[0]}")
        if "falls" not in verdicts[1:]:
            bad.append(f"{row}: not proven, nobody falls")
    for row, reason in ELSEWHERE:
        print(f"| {row} | not run: {reason} |" + " |" * (len(heads) - 1))
    print()
    for runtime, head in zip(runtimes, heads):
        for test, message in sorted(results[runtime][1].items()):
            print(f"{head} {test}: {message[:160]}")
    elsewhere = f"{len(ELSEWHERE)} rows were not run here"
    held = f"of {len(ROWS)} rows that were run ketch falls in none, and each attack is proven; {elsewhere}"
    print("\n".join(["", *bad, elsewhere]) if bad else f"\n{held}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
