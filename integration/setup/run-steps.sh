#!/bin/bash
# run-steps.sh MINUTES TARGET...: runs make targets one after another, goes on after a failure, and ends with each one's wall time, what was
# skipped and why, what failed and how, and the line `N passed, N failed, N skipped` over all of them. Exit code 1 when anything failed.
# Steps that can do with less time (time-left.sh) are told when the minutes are over.
#
# Counted are the lines `test result: ... N passed; N failed; N ignored` of cargo and the last line of the form
# `N passed, N failed, N skipped` that a step prints; a step that prints neither counts as one test.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target
log=$(mktemp target/steps.XXXXXX)
trap 'rm -f "$log" "$log".*' EXIT
free() { df --output=avail -BG . | tail -1 | tr -dc 0-9; }
room=$(free)
# What a fresh checkout has written by the end; a folder that has been built in needs less, so it goes on.
if [ "$room" -lt 12 ]; then echo "warning: only $room GiB are free here; a fresh checkout takes 6 GiB, its images and caches 5 more (cargo clean empties it)"; fi
# What a log of many thousand lines says of its failures, for readers who are shown its end: the suite's and cargo's blocks `---- test`, and
# of a step that has none its last lines.
failures_of() {
    echo "--- $1"
    grep -E ' \.\.\. FAILED' "$2"
    awk '/^---- /                                           { inside = 1 }
         /^failed on |^failures:$|^test result: |^module /   { inside = 0 }
         inside && ++lines <= 150' "$2" | grep . || tail -n 25 "$2"
}
passed=0 failed=0 skipped=0
times=
begun=$SECONDS
export KETCH_TEST_UNTIL=$(($(date +%s) + $1 * 60))
shift
# Linking the release binaries is one thread's work for minutes, beside which the first steps' tests run; whoever needs them
# waits for it, and says what is wrong with it.
make --no-print-directory build >"$log.build" 2>&1 &
for step in "$@"; do
    echo "=== $step"
    start=$SECONDS
    make --no-print-directory "$step" 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}
    counts=$(awk '
        match($0, /^test result: .* [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored/) {
            for (i = 1; i <= NF; i++) {
                if ($(i + 1) ~ /^passed/) p += $i
                if ($(i + 1) ~ /^failed/) f += $i
                if ($(i + 1) ~ /^ignored/) s += $i
            }
            seen = 1
        }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { lp = $1; lf = $3; ls = $5; seen = 1 }
        END { if (seen) print p + lp, f + lf, s + ls }' "$log")
    read -r p f s <<<"${counts:-$([ "$code" = 0 ] && echo 1 0 0 || echo 0 1 0)}"
    # A step may fail after its tests passed, or before they could say so (a compiler error).
    if [ "$code" != 0 ] && [ "$f" = 0 ]; then f=1; fi
    grep -E ' \.\.\. (skipped:|ignored)' "$log" >>"$log.skips"
    if [ "$f" != 0 ]; then failures_of "$step" "$log" >>"$log.failures"; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    times+=$(printf '%-16s %5d s   %d passed, %d failed, %d skipped, %d GiB free' "$step" $((SECONDS - start)) "$p" "$f" "$s" "$(free)")$'\n'
done
echo "=== skipped, and why"
sort "$log.skips" | uniq
echo "=== wall time"
printf '%s' "$times"
printf '%-16s %5d s\n' all $((SECONDS - begun))
# Last, where a reader who is shown a part of the output looks.
if [ -s "$log.failures" ]; then
    echo "=== failed, and why"
    cat "$log.failures"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
