#!/bin/bash
# The runtime's unit tests and the integration suite on a build with AddressSanitizer (leaks included), both layouts. A
# sanitised program is dynamic, large and slow; tests that look at just that are skipped, and say so. The last line is
# `N passed, N failed, N skipped; N reports`. Arguments: parts of test names, as `module::test`.
# RUSTC_BOOTSTRAP: the pinned toolchain has the sanitiser's library, but stable hides the flag.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=target/sanitise
triple=x86_64-unknown-linux-gnu
reports=$PWD/$target/reports
rm -rf "$reports"
mkdir -p "$reports"
# A report that can't be written (after the process has entered a container) still ends it with an error.
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:log_path=$reports/report

sanitised() {
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -C target-feature=-crt-static" \
		cargo "$@" --quiet --target-dir "$target"
}
sanitised build --profile quick --bin ketch
passed=0 failed=0 skipped=0
count() {
	local p f s
	while read -r p _ f _ s _; do
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done < <(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1")
	while read -r p f s; do
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$1")
}

log=$target/log
if [ $# = 0 ]; then
	sanitised test --profile quick --package ketch --package ketch-sys --lib 2>&1 | tee "$log.unit" || true
	count "$log.unit"
fi
for layout in native v2; do
	KETCH_SANITISED=1 RUNTIME=$PWD/$target/$triple/quick/ketch \
		cargo test --quiet --package ketch-integration --test suite -- --layout "$layout" "$@" 2>&1 |
		tee "$log.$layout" || true
	if ! grep -qE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log.$layout"; then
		echo "the suite ended without counts on $layout"
		failed=$((failed + 1))
	fi
	count "$log.$layout"
done
found=$(find "$reports" -type f | wc -l)
find "$reports" -type f -exec head -n 40 {} +
echo "$passed passed, $failed failed, $skipped skipped; $found reports"
[ "$failed" = 0 ] && [ "$found" = 0 ]
