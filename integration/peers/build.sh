#!/bin/bash
# Builds the private root with the current peers (docker.io, containerd, runc, crun from Debian forky), once, into
# the cache, and prints their versions. Needs root, debootstrap and the Debian mirror that apt is configured with.
set -euo pipefail

cache=${KETCH_CACHE:-/var/cache/ketch}
root=$cache/peers/root
here=$(dirname "$(readlink -f "$0")")
suite=forky
packages=docker.io,docker-cli,docker-compose,containerd,runc,crun,iptables,iproute2,busybox-static,procps,jq,ca-certificates

mirror() {
	local files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
	{
		sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\/debian\/\?\) .*/\2/p; s/^URIs: *\(http[^ ]*\/debian\/\?\)$/\1/p' \
			"${files[@]}" 2>/dev/null || true
		echo http://deb.debian.org/debian
	} | sed -n 1p
}

build() {
	command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
	local scratch=$cache/peers/root.new scripts=/usr/share/debootstrap/scripts
	rm -rf "$scratch"
	# bookworm's debootstrap has no script for forky; sid's fits.
	echo "peers: debootstrap $suite from $(mirror)" >&2
	debootstrap --variant=minbase --include="$packages" "$suite" "$scratch" "$(mirror)" "$scripts/sid" \
		>"$cache/peers/build.log" 2>&1 || {
		tail -n 20 "$cache/peers/build.log" >&2
		exit 1
	}
	rm -rf "$scratch"/var/cache/apt/archives/*.deb "$scratch/debootstrap"
	mv "$scratch" "$root"
}

# Copies of the programs that run outside the root too: the same code, with the root's own loader and libraries by
# absolute path. (Through the loader, /proc/self/exe would be the loader, and runc and the shim execute that.)
outside() {
	command -v patchelf >/dev/null || apt-get install -y --no-install-recommends patchelf >/dev/null
	mkdir -p "$cache/peers/bin"
	local program name
	for program in usr/sbin/runc usr/sbin/dockerd usr/bin/crun usr/bin/containerd usr/bin/ctr usr/bin/containerd-shim-runc-v2 \
		usr/bin/docker usr/sbin/docker-proxy usr/libexec/docker/cli-plugins/docker-compose; do
		name=${program##*/}
		[ -x "$cache/peers/bin/$name" ] && continue
		cp "$root/$program" "$cache/peers/bin/.$name.new"
		patchelf --set-interpreter "$root/usr/lib64/ld-linux-x86-64.so.2" --force-rpath \
			--set-rpath "$root/usr/lib/x86_64-linux-gnu" "$cache/peers/bin/.$name.new"
		mv "$cache/peers/bin/.$name.new" "$cache/peers/bin/$name"
	done
}

mkdir -p "$cache/peers/mnt"
exec 9>"$cache/peers/lock"
flock 9
[ -d "$root" ] || build
outside
flock -u 9

"$here/enter.sh" sh -c '
	dockerd --version
	docker --version
	docker compose version || docker-compose version
	containerd --version
	runc --version | sed -n 1p
	crun --version | sed -n 1p
	iptables --version'
echo "root: $root"
echo "outside the root: $("$cache/peers/bin/runc" --version | sed -n 1p), $("$cache/peers/bin/crun" --version |
	sed -n 1p), containerd, ctr, its shim and dockerd in $cache/peers/bin"
