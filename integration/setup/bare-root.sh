#!/bin/bash
# Builds once, into the cache, the root in which ketchd is alone: Debian's debootstrap --variant=minbase, nothing added. Prints its path.
# Needs root, and the Debian mirror that apt is configured with.
set -euo pipefail

cache=${KETCH_CACHE:-/var/cache/ketch}
root=$cache/bare/root
here=$(dirname "$(readlink -f "$0")")

mkdir -p "$cache/bare"
exec 9>"$cache/bare/lock"
flock 9
if [ ! -d "$root" ]; then
	"$here/packages.sh" debootstrap >&2
	mirror=$({
		sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\/debian\/\?\) .*/\2/p; s/^URIs: *\(http[^ ]*\/debian\/\?\)$/\1/p' \
			/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true
		echo http://deb.debian.org/debian
	} | sed -n 1p)
	rm -rf "$root.new"
	debootstrap --variant=minbase bookworm "$root.new" "$mirror" >"$cache/bare/build.log" 2>&1 || {
		tail -n 20 "$cache/bare/build.log" >&2
		exit 1
	}
	rm -rf "$root.new"/var/cache/apt/archives/*.deb
	mv "$root.new" "$root"
fi
echo "$root"
