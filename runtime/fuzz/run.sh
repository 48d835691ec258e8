#!/bin/bash
# Builds the fuzz targets and runs each for FUZZ_SECONDS (60), starting from the example bundles.
# The pinned stable compiler will do: its coverage instrumentation is switched on by hand, as cargo-fuzz does it.
# Finds land in runtime/fuzz/artifacts, with the command that repeats them in the output.
set -euo pipefail
cd "$(dirname "$0")"
targets=(${TARGETS:-config_plan seccomp_bpf state_json init_protocol})
triple=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="$coverage -Ccodegen-units=1 --cfg fuzzing" cargo build --release --target "$triple" --target-dir target
for target in "${targets[@]}"; do
	corpus=corpus/$target
	mkdir -p "$corpus" artifacts
	case $target in
	config_plan) for bundle in ../../oci-bundles/*/config.json; do cp "$bundle" "$corpus/$(basename "$(dirname "$bundle")")"; done ;;
	seccomp_bpf) cp ../../oci-bundles/*/seccomp.json seeds/seccomp_bpf/* "$corpus/" ;;
	state_json) cp seeds/state_json/* "$corpus/" ;;
	dbus) cp seeds/dbus/* "$corpus/" ;;
	init_protocol) for tag in P1 G M3 m xno H h R r S s Ebad; do printf %s "$tag" >"$corpus/$tag"; done ;;
	esac
	echo "== $target, ${FUZZ_SECONDS:-60} s"
	"target/$triple/release/$target" -max_total_time="${FUZZ_SECONDS:-60}" -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
		-artifact_prefix=artifacts/ -dict=words.dict -print_final_stats=0 -verbosity=0 "$corpus"
done
echo "no finds"
