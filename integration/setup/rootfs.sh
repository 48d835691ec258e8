#!/bin/bash
# Assembles <bundle>/rootfs for each bundle folder given: busybox with all its applets, or, where the bundle has a file
# `rootfs-source` that says so, a Debian by debootstrap (needs root). What stands in <bundle>/files is laid over it.
# A root that is there already is left alone; remove it to have it made again.
set -euo pipefail

mirror() {
	apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | sed -n 1p | grep . ||
		echo http://deb.debian.org/debian
}

from_busybox() {
	local root=$1
	mkdir -p "$root/bin"
	cp /bin/busybox "$root/bin/busybox"
	local applet
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
	done
	ln -s bin "$root/sbin"
	mkdir "$root/etc" "$root/usr"
	ln -s ../bin "$root/usr/bin"
	ln -s ../bin "$root/usr/sbin"
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
}

from_debootstrap() {
	command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap >&2
	local suite
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	debootstrap --variant=minbase "$suite" "$1" "$(mirror)" >"$1.log"
	rm -rf "$1.log" "$1"/var/cache/apt/archives/*.deb
}

for bundle in "$@"; do
	[ -f "$bundle/config.json" ] || continue
	root=${bundle%/}/rootfs
	[ -e "$root" ] && continue
	new=$(mktemp -d "${bundle%/}/.rootfs.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	chmod 755 "$new"
	"from_$(cat "$bundle/rootfs-source" 2>/dev/null || echo busybox)" "$new"
	# A user namespace's root may not add mount points to what the host's root owns.
	(cd "$new" && mkdir -p dev proc sys tmp root config mnt && chmod 1777 tmp)
	[ -d "$bundle/files" ] && cp -r "$bundle/files/." "$new/"
	mv "$new" "$root"
	trap - EXIT
	echo "$root: $(du -sh "$root" | cut -f 1)"
done
