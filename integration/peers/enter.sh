#!/bin/bash
# Runs a command inside the peers' root, in a mount namespace of its own, after pivot_root:
#   enter.sh [--net] [--cgroup host|v2|v1] [--bind SOURCE[:TARGET]]... COMMAND [ARGUMENT]...
# --net      a network namespace of its own too, with lo up.
# --cgroup   host: the machine's tree as it is (the default); v2: only cgroup2, at /sys/fs/cgroup;
#            v1: the machine's tree without the v2 side mount, which crun wants.
# --bind     a host folder or file at the same, or the given, path inside; repeatable.
# The working folder is / inside, and /host is not there: what is wanted inside is bound.
# The command keeps its standard streams and its exit code. Every mount ends with the namespace.
set -euo pipefail

cache=${KETCH_CACHE:-/var/cache/ketch}
root=$cache/peers/root

if [ "${1-}" = --inside ]; then
	shift
	cgroup=$1
	shift
	binds=()
	while [ "$1" != -- ]; do
		binds+=("$1")
		shift
	done
	shift
	here=$cache/peers/mnt
	# Copy-on-write: two sessions at once, each with its own /var and /etc, and the cached root stays as it was built.
	mount -t tmpfs -o mode=0755 peers "$here"
	mkdir "$here/up" "$here/work" "$here/root"
	mount -t overlay -o "lowerdir=$root,upperdir=$here/up,workdir=$here/work" peers "$here/root"
	new=$here/root
	mount --rbind /proc "$new/proc"
	mount --rbind /dev "$new/dev"
	# sysfs shows the network namespace that it was mounted in.
	mount -t sysfs -o nosuid,nodev,noexec sysfs "$new/sys"
	case $cgroup in
	v2) mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$new/sys/fs/cgroup" ;;
	*) mount --rbind /sys/fs/cgroup "$new/sys/fs/cgroup" ;;
	esac
	if [ "$cgroup" = v1 ] && [ -d "$new/sys/fs/cgroup/unified" ]; then
		umount "$new/sys/fs/cgroup/unified"
	fi
	# A docker graph or containerd snapshot on the overlay could not be an overlay again.
	mount -t tmpfs -o mode=0755 run "$new/run"
	mount -t tmpfs -o mode=1777 tmp "$new/tmp"
	mkdir -p "$new/var/lib/docker" "$new/var/lib/containerd"
	mount -t tmpfs -o mode=0710 docker "$new/var/lib/docker"
	mount -t tmpfs -o mode=0711 containerd "$new/var/lib/containerd"
	for bind in "${binds[@]}"; do
		source=${bind%%:*}
		target=$new${bind#*:}
		if [ -d "$source" ]; then
			mkdir -p "$target"
		else
			mkdir -p "$(dirname "$target")"
			[ -e "$target" ] || : >"$target"
		fi
		mount --rbind "$source" "$target"
	done
	cat /etc/resolv.conf >"$new/etc/resolv.conf" 2>/dev/null || true
	mkdir -p "$new/.old"
	cd "$new"
	pivot_root . .old
	cd /
	umount -l /.old
	rmdir /.old
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		TERM="${TERM-dumb}" LANG=C.UTF-8 "$@"
fi

[ -d "$root" ] || {
	echo "peers: $root is not there: make peers" >&2
	exit 1
}
namespaces=(--mount)
cgroup=host
binds=()
lo=true
while [ $# -gt 0 ]; do
	case $1 in
	--net)
		namespaces+=(--net)
		lo="ip link set lo up"
		shift
		;;
	--cgroup)
		cgroup=$2
		shift 2
		;;
	--bind)
		binds+=("$2")
		shift 2
		;;
	--)
		shift
		break
		;;
	*) break ;;
	esac
done
[ $# -gt 0 ] || {
	sed -n '2,10s/^# \?//p' "$0" >&2
	exit 2
}
# sh -c: lo comes up inside the new network namespace, before the root is left.
exec unshare "${namespaces[@]}" -- sh -c "$lo && exec \"\$@\"" sh \
	"$(readlink -f "$0")" --inside "$cgroup" "${binds[@]}" -- "$@"
