#!/bin/bash
# The bench in the VM: ketch, its peers and the floor on cgroup v2 with every controller enabled for each container.
# Writes integration/bench/vm.json and vm.txt. Emulated, so only ratios mean something, and the rounds are fewer.
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
if [ -d "$peers/bin" ]; then
	copies+=(--copy "$peers/bin")
	while read -r library; do
		copies+=(--copy "$(readlink -f "$library"):$library")
	done < <(for program in "$peers"/bin/*; do ldd "$program"; done | grep -o "$peers/root/[^ ]*" | sort -u)
fi
knobs=(LAYOUTS=v2 ROUNDS="${ROUNDS:-15}" HEAVY_ROUNDS="${HEAVY_ROUNDS:-3}" BURST="${BURST:-20}" BESIDE="${BESIDE:-99}"
	SETTLE_MS=60 RESULTS=/results/vm.json ${CASES:+CASES="$CASES"} ${ONLY:+ONLY="$ONLY"} PYTHONDONTWRITEBYTECODE=1)
integration/vm/run.sh --timeout "${VM_TIMEOUT:-1500}" --out "$out" "${copies[@]}" -- \
	env "${knobs[@]}" python3 "$root/integration/bench/bench.py" | tee "$out/text"
cp "$out/vm.json" integration/bench/vm.json
grep -v -e '^round ' -e '^written: ' "$out/text" >integration/bench/vm.txt
echo "vm: integration/bench/vm.json and vm.txt are written"
