#!/bin/bash
# Builds the fuzz targets and runs each for FUZZ_SECONDS (60). The pinned stable compiler will do, as in runtime/fuzz/run.sh.
# Finds land in shim/fuzz/artifacts, with the command that repeats them in the output.
set -euo pipefail
cd "$(dirname "$0")"
targets=(${TARGETS:-bootstrap options frames})
triple=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="$coverage -Ccodegen-units=1 --cfg fuzzing" cargo build --release --target "$triple" --target-dir target
for target in "${targets[@]}"; do
	corpus=corpus/$target
	mkdir -p "$corpus" artifacts
	case $target in
	options) printf 'BinaryName = "crun"\nSystemdCgroup = true\nIoUid = 7\n' >"$corpus/toml" ;;
	bootstrap) printf '\x0a\x01i\x12\x01n\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01\x4a\x02/s' >"$corpus/params" ;;
	frames) printf '\0\0\0\6\0\0\0\1\1\0\x0a\x01s\x12\x01m' >"$corpus/request" ;;
	esac
	echo "== $target, ${FUZZ_SECONDS:-60} s"
	"target/$triple/release/$target" -max_total_time="${FUZZ_SECONDS:-60}" -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
		-artifact_prefix=artifacts/ -print_final_stats=0 -verbosity=0 "$corpus"
done
echo "no finds"
