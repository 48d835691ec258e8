#!/bin/bash
# Builds a crate's fuzz targets (each .rs file of the given fuzz folder) and runs each for FUZZ_SECONDS (60), or only TARGETS.
# The pinned stable compiler will do: its coverage instrumentation is switched on by hand, as cargo-fuzz does it. The
# folder's seed.sh puts the first inputs of a target into a corpus. Finds land in the folder's artifacts/, with the command
# that repeats them in the output.
set -euo pipefail
cd "$1"
targets=(${TARGETS:-$(basename -s .rs -- *.rs)})
triple=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="$coverage -Ccodegen-units=1 --cfg fuzzing" cargo build --release --target "$triple" --target-dir target
words=()
[ ! -e words.dict ] || words=(-dict=words.dict)
for target in "${targets[@]}"; do
	corpus=corpus/$target
	mkdir -p "$corpus" artifacts
	./seed.sh "$target" "$corpus"
	echo "== $target, ${FUZZ_SECONDS:-60} s"
	"target/$triple/release/$target" -max_total_time="${FUZZ_SECONDS:-60}" -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
		-artifact_prefix=artifacts/ "${words[@]}" -print_final_stats=0 -verbosity=0 "$corpus"
done
echo "no finds"
