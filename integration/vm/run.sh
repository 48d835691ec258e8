#!/bin/bash
# Boots the VM, runs a command in it as root or in a user's session, and brings its output, files and exit code back:
#   run.sh [OPTION]... -- COMMAND [ARGUMENT]...
#   run.sh [OPTION]... --shell
# --user               in the session of `ketch` (uid 1000, subordinate ids, delegated cgroup), not as root
# --timeout SECONDS    for the command (600); it is ended then, what it wrote still comes back, and the code is 124
# --copy HOST[:GUEST]  brings a file or folder in, to the same path when no other is given; repeatable
# --env NAME=VALUE     for the command; repeatable
# --out FOLDER         keeps what the command leaves in /results (its working folder) there, with console and journal
# --numa               two NUMA nodes
# --selinux MODE       boots Debian's SELinux policy, MODE being enforcing or permissive
# --append WORDS       more for the kernel's command line
# --memory MIB         (3072)
# --shell              a root console on this terminal; `poweroff` ends it
# The command's output comes to standard output as it is written. When there was no result, the exit code is 125 and the
# console's last lines say why. Any number of runs may be under way: each has its own layer above the cached image.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cache=${KETCH_CACHE:-/var/cache/ketch}/vm
user=root
timeout=600
copies=()
variables=()
out=
numa=false
selinux=
append=
memory=3072
mode=run

usage() {
	sed -n '2,18s/^# \?//p' "$0" >&2
	exit 2
}

while [ $# -gt 0 ]; do
	case $1 in
	--user) user=ketch ;;
	--timeout) timeout=$2 && shift ;;
	--copy) copies+=("$2") && shift ;;
	--env) variables+=("$2") && shift ;;
	--out) out=$2 && shift ;;
	--numa) numa=true ;;
	--selinux) selinux=$2 && shift ;;
	--append) append=$2 && shift ;;
	--memory) memory=$2 && shift ;;
	--shell) mode=shell ;;
	--) shift && break ;;
	*) usage ;;
	esac
	shift
done
[ "$mode" = shell ] || [ $# -gt 0 ] || usage

"$here/../setup/packages.sh" qemu-system-x86 qemu-utils debootstrap e2fsprogs busybox-static cpio
case $selinux in
"") image=$("$here/build.sh") ;;
enforcing | permissive) image=$("$here/build.sh" --selinux) ;;
*) usage ;;
esac

mkdir -p "$here/../../target/vm"
folder=$(mktemp -d "$(readlink -f "$here/../../target/vm")/run.XXXXXX")
qemu=
keep=true
# The disks are of no use afterwards; the console is, when something failed.
cleanup() {
	if [ -n "$qemu" ]; then
		kill -KILL "$qemu" 2>/dev/null || true
		wait "$qemu" 2>/dev/null || true
	fi
	rm -rf "$folder"/{sent,sent.tar,output.pipe,root.qcow2,results.tar,swap,initrd*}
	[ "$keep" = true ] || rm -rf "$folder"
}
trap cleanup EXIT

# The initrd: busybox, three modules with what they need, and the files that guest/root adds to the image.
make_initrd() {
	local tree=$folder/initrd
	mkdir -p "$tree"/{bin,dev,proc,newroot,modules}
	cp /bin/busybox "$tree/bin/"
	cp "$here/guest/init" "$tree/init"
	cp "$image"/modules/* "$tree/modules/"
	cp -a "$here/guest/root" "$tree/root"
	(cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$folder/initrd.cpio"
}

# What the guest unpacks over its root.
make_input() {
	local sent=$folder/sent copy source target
	local own=$sent/run/ketch-vm-sent
	mkdir -p "$own"
	for copy in "${copies[@]}"; do
		source=$(readlink -f "${copy%%:*}")
		target=$sent$(realpath -sm "${copy#*:}")
		[ -e "$source" ] || {
			echo "vm: --copy ${copy%%:*}: not there" >&2
			exit 2
		}
		mkdir -p "$(dirname "$target")"
		cp -aT --reflink=auto "$source" "$target"
	done
	{
		[ ${#variables[@]} = 0 ] || printf 'export %q\n' "${variables[@]}"
		[ $# = 0 ] || printf '%q ' exec "$@"
		echo
	} >"$own/command"
	echo "$timeout" >"$own/deadline"
	echo "$user" >"$own/user"
	chmod 755 "$sent" "$sent/run" "$own"
	tar -C "$sent" --numeric-owner -cf "$folder/sent.tar" .
}

# A /dev/kvm may be there and yet not boot a stock kernel: tried once for each boot of this machine.
accelerator() {
	local verdict
	verdict=$cache/kvm-$(cat /proc/sys/kernel/random/boot_id)
	if [ ! -e "$verdict" ]; then
		echo no >"$folder/kvm"
		if [ -w /dev/kvm ]; then
			timeout --kill-after=2 20 qemu-system-x86_64 -accel kvm -cpu host -smp 2 -m 512 -nodefaults -display none \
				-no-reboot -serial stdio -kernel "$image/vmlinuz" -initrd "$folder/initrd.cpio" \
				-append "console=ttyS0 panic=-1 ketch.vm=probe" </dev/null >"$folder/kvm.log" 2>&1 || true
			! grep -q "this accelerator boots" "$folder/kvm.log" || echo yes >"$folder/kvm"
		fi
		mv "$folder/kvm" "$verdict"
	fi
	if [ "$(cat "$verdict")" = yes ]; then
		echo -accel kvm -cpu host
	else
		# Five-level page tables make the emulated walks longer, and nothing here needs them.
		echo -accel tcg,thread=multi,tb-size=512 -cpu max,la57=off
	fi
}

make_initrd
make_input "$@"
qemu-img create -q -f qcow2 -b "$image/root.img" -F raw "$folder/root.qcow2"
truncate -s 8G "$folder/results.tar"
truncate -s 512M "$folder/swap"

# shellcheck disable=SC2207 # words on purpose
machine=($(accelerator) -machine q35 -smp 2 -m "$memory" -nodefaults -no-user-config -display none -no-reboot)
if $numa; then
	half=$((memory / 2))
	machine+=(-object "memory-backend-ram,id=m0,size=${half}M" -object "memory-backend-ram,id=m1,size=${half}M"
		-numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1)
fi
words="console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on systemd.unified_cgroup_hierarchy=1 swapaccount=1
hugepages=32 systemd.unit=multi-user.target systemd.wants=ketch-vm-run.service ketch.vm=$mode"
case $selinux in
"") words+=" security=apparmor apparmor=1" ;;
# The policy is enforced from the command on: what boots a test machine is not what is tested.
*) words+=" security=selinux selinux=1 enforcing=0 ketch.selinux=$selinux" ;;
esac
machine+=(-kernel "$image/vmlinuz" -initrd "$folder/initrd.cpio")
for disk in root.qcow2:qcow2 sent.tar:raw results.tar:raw swap:raw; do
	name=${disk%%[.:]*}
	machine+=(-drive "file=$folder/${disk%:*},format=${disk#*:},if=none,id=$name,cache=unsafe"
		-device "virtio-blk-pci,drive=$name")
done

if [ "$mode" = shell ]; then
	keep=false
	qemu-system-x86_64 "${machine[@]}" -append "${words//$'\n'/ } $append" -serial mon:stdio
	exit
fi

# A chardev on standard output would count as hung up when standard input ends, and drop what is written.
mkfifo "$folder/output.pipe"
tee "$folder/output" <"$folder/output.pipe" &
reader=$!
start=$SECONDS
qemu-system-x86_64 "${machine[@]}" \
	-append "${words//$'\n'/ } quiet loglevel=4 systemd.show_status=false systemd.mask=serial-getty@ttyS0.service $append" \
	-serial "file:$folder/console" -chardev "file,id=output,path=$folder/output.pipe" \
	-device virtio-serial-pci -device virtserialport,chardev=output,name=ketch.output \
	</dev/null &
qemu=$!

fail() {
	echo "vm: $1; the console's last lines ($folder/console):" >&2
	tail -n 25 "$folder/console" | tr -d '\r' | sed 's/^/  | /' >&2
	exit 125
}

# The guest ends the command at its deadline; these are for a guest that cannot.
boot_deadline=$((SECONDS + 300))
while kill -0 "$qemu" 2>/dev/null && ! grep -q "ketch-vm: running" "$folder/console" 2>/dev/null; do
	[ $SECONDS -lt $boot_deadline ] || fail "no command was running 300 s after the start"
	sleep 0.3
done
booted=$((SECONDS - start))
deadline=$((SECONDS + timeout + 120))
while kill -0 "$qemu" 2>/dev/null; do
	[ $SECONDS -lt $deadline ] || fail "still up $((timeout + 120)) s after the command's start"
	sleep 0.3
done
wait "$qemu" || fail "qemu ended with $?"
qemu=
wait "$reader" || true

mkdir "$folder/guest"
tar -C "$folder/guest" --no-same-owner -xf "$folder/results.tar" 2>/dev/null || fail "the guest ended without a result"
[ -s "$folder/guest/status" ] || fail "the guest ended without a result"
code=$(cat "$folder/guest/status")
if [ -n "$out" ]; then
	mkdir -p "$out"
	cp -a "$folder/guest/results/." "$out/"
	cp "$folder/guest/journal" "$folder/console" "$folder/output" "$out/"
fi
if [ "$code" = 0 ]; then
	keep=false
else
	echo "vm: console, journal and results are in $folder" >&2
fi
[ "$code" != 124 ] || echo "vm: the command had not ended after $timeout s" >&2
echo "vm: up after $booted s, $((SECONDS - start)) s in all, exit code $code" >&2
exit "$code"
