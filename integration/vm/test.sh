#!/bin/bash
# The integration suite in the VM, where the machine has systemd, cgroup v2 with every controller and a security module:
# as root and as a user (on two NUMA nodes, with AppArmor), then the label tests once more under SELinux. The last line is
# `N passed, N failed, N skipped` over all of them. Environment:
#   FULL=1        every module; otherwise the ones whose subject is different there
#   FILTER        parts of test names, as `module::test`, in place of either; `encrypted` is ketchd's own test of ESP
#   RUNTIME       the binary that is copied in (target/release/ketch), or a name that the VM has (runc, crun)
#   VM_TIMEOUT    seconds for the commands of one boot (1800)
set -euo pipefail
cd "$(dirname "$0")/../.."
runtime=${RUNTIME:-target/release/ketch}
sample=(cgroup_v2 pause:: update:: events:: kill:: lifecycle:: exec:: userns:: devices::
	lsm:: net_devices:: memory_policy:: callers_podman:: callers_containerd:: systemd checkpoint attack_label:: attack_restore attack_proof::
	shim_task:: shim_takeover::a shim_ctr:: ketchd_criu:: ketchd_systemd::
	ketchd_userns::builds ketchd_containers::copy_both_ways ketchd_containers::diff_and_changes)

# One program with all tests, and the one that they run inside containers; both are static.
suite=$(cargo test --quiet --workspace --test suite --no-run --message-format=json |
	jq -r 'select(.target.name? == "suite" and .executable).executable')
probe=$(readlink -f "$(dirname "$suite")/../container_probe")
# What the attacks are proven on.
naive=$(readlink -f "$(dirname "$suite")/../naive_runtime")
mkdir -p target/vm
strip -o target/vm/suite "$suite"

shim=/usr/local/bin/containerd-shim-ketch-v2
ketchd=/usr/local/bin/ketchd
copies=(--copy "target/release/ketchd:$ketchd" --copy "target/release/containerd-shim-ketch-v2:$shim" --copy "target/vm/suite:/usr/local/bin/suite" --copy "$probe" --copy "$naive" --copy oci-bundles --copy integration/setup)
# ketchd's client, with the loader and the C library that it was linked to.
peers=${KETCH_CACHE:-/var/cache/ketch}/peers
for file in bin/docker root/usr/lib64/ld-linux-x86-64.so.2 root/usr/lib/x86_64-linux-gnu/libc.so.6; do
	copies+=(--copy "$peers/$file")
done
case $runtime in
*/*) copies+=(--copy "$runtime:/usr/local/bin/ketch") && inside=/usr/local/bin/ketch ;;
*) inside=$runtime ;;
esac

# One of ketchd's own tests, which a kernel without ESP skips: two nodes, an encrypted network, what is on the wire between them.
encrypted() {
	local own name=network::tests::overlay::an_encrypted_network_travels_by_esp_alone
	own=$(cargo test --quiet --workspace --lib --no-run --message-format=json |
		jq -r 'select(.target.name? == "ketchd" and .executable).executable')
	strip -o target/vm/ketchd-tests "$own"
	# shellcheck disable=SC2016 # expanded in the guest
	boot "an encrypted network" 1 --copy target/vm/ketchd-tests:/usr/local/bin/ketchd-tests -- sh -c '
		ketchd-tests --exact "$0" --nocapture >out 2>&1
		code=$?
		cat out
		if [ $code = 0 ] && grep -q "1 passed" out && ! grep -q "^skipped" out; then
			echo "1 passed, 0 failed, 0 skipped"
		else
			echo "0 passed, 1 failed, 0 skipped"
		fi' "$name"
}

passed=0 failed=0 skipped=0
log=target/vm/log
: >"$log"

# boot NAME COUNTS [run.sh's options]... -- COMMAND...: adds up the counts; a boot that prints fewer is a failure.
boot() {
	local name=$1 wanted=$2 found=0 p f s options=() code=0
	shift 2
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	echo "# VM: $name"
	integration/vm/run.sh "${options[@]}" --timeout "${VM_TIMEOUT:-1800}" "${copies[@]}" --env RUNTIME="$inside" --env SHIM="$shim" --env KETCHD="$ketchd" -- "$@" |
		tee target/vm/boot.log || code=$?
	cat target/vm/boot.log >>"$log"
	while read -r p _ f _ s _; do
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)) found=$((found + 1))
	done < <(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' target/vm/boot.log)
	if [ "$found" -lt "$wanted" ]; then
		echo "the VM ($name) ended with $code, and with $found of $wanted counts"
		failed=$((failed + 1))
	fi
}

# shellcheck disable=SC2206 # words on purpose
if [ -n "${FILTER-}" ]; then
	chosen=($FILTER)
elif [ -n "${FULL-}" ]; then
	chosen=()
else
	chosen=("${sample[@]}")
fi
start=$SECONDS
if [ "${FILTER-}" = encrypted ]; then
	encrypted
elif [ -n "${FILTER-}" ]; then
	boot "root, AppArmor, two NUMA nodes" 1 --numa --append psi=1 -- suite --layout native "${chosen[@]}"
else
	# What the user's part and the two small boots behind take is left to them.
	within=$(integration/setup/time-left.sh 360 180)
	# shellcheck disable=SC2016,SC2086 # expanded in the guest; words on purpose
	boot "root and user, AppArmor, two NUMA nodes" 2 --numa --append psi=1 -- \
		sh -c 'suite --layout native --without ketchd_checkpoint "$@"; suite --layout native --as user rootless:: userns_settings:: lifecycle:: exec::' sh $within "${chosen[@]}"
	boot "root, SELinux enforcing" 1 --selinux enforcing -- suite --layout native lsm::selinux
	encrypted
fi
echo "# VM: $((SECONDS - start)) s; the output is in $log"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
