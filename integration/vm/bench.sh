#!/bin/bash
# The bench in the VM: ketch, its peers and the floor on cgroup v2 with every controller enabled for each container.
# Writes integration/bench/vm.json and vm.txt. Emulated, so only ratios mean something, and the rounds are fewer.
# APPEND is more for the kernel's command line; its default, `norandmaps`, takes away what the emulator adds to every start,
# and no machine has: it finds translated code by its address, so that a program at a random one is translated anew at each
# start (integration/bench/README.md has the counts).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
peers=${KETCH_CACHE:-/var/cache/ketch}/peers
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

copies=()
for path in target/release/ketch target/bench/floor target/bench/spawner integration/bench oci-bundles/docker-default; do
	copies+=(--copy "$root/$path")
done
# The current peers: their programs name the loader and the libraries by the path that they have in the cache.
for program in "$peers"/bin/{runc,crun}; do
	[ -e "$program" ] || continue
	copies+=(--copy "$program")
	while read -r library; do
		copies+=(--copy "$(readlink -f "$library"):$library")
	done < <(ldd "$program" | grep -o "$peers/root/[^ ]*" | sort -u)
done
knobs=(LAYOUTS=v2 ROUNDS="${ROUNDS:-30}" HEAVY_ROUNDS="${HEAVY_ROUNDS:-3}" BURST="${BURST:-20}" BESIDE="${BESIDE:-99}"
	SETTLE_MS=60 RESULTS=/results/vm.json ${CASES:+CASES="$CASES"} ${ONLY:+ONLY="$ONLY"} PYTHONDONTWRITEBYTECODE=1)
integration/vm/run.sh --timeout "${VM_TIMEOUT:-1500}" --append "${APPEND-norandmaps}" --out "$out" "${copies[@]}" -- \
	env "${knobs[@]}" python3 "$root/integration/bench/bench.py" | tee "$out/text"
cp "$out/vm.json" integration/bench/vm.json
grep -v -e '^round ' -e '^written: ' "$out/text" >integration/bench/vm.txt
echo "vm: integration/bench/vm.json and vm.txt are written"
