#!/bin/bash
# Builds the root image of the VM with debootstrap, once, into the cache, and prints the folder that holds it:
#   build.sh [--selinux]
# The folder is $KETCH_CACHE/vm/<hash of this file and the package list>-<layer>; it has root.img (ext4, never written
# to again: each run puts a layer above it), vmlinuz, modules/ (what an initrd needs to find the root) and packages (the
# versions). --selinux is the layer with Debian's policy, every file labelled. A second caller waits for the first.
# Needs root, debootstrap, mke2fs and the Debian mirror that apt is configured with.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cache=${KETCH_CACHE:-/var/cache/ketch}/vm
suite=bookworm
kernel=linux-image-cloud-amd64
selinux_packages=(selinux-basics selinux-policy-default policycoreutils)

# What an image is made of decides its name; a changed recipe is another image.
key=$(cat "$here/build.sh" "$here/packages.txt" | sha256sum | head -c 16)
policy_key=$(cat "$here/selinux.cil" <(ls -R "$here/guest/root") | sha256sum | head -c 8)

mirror() {
	local files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
	{
		sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\/debian\/\?\) .*/\2/p; s/^URIs: *\(http[^ ]*\/debian\/\?\)$/\1/p' \
			"${files[@]}" 2>/dev/null || true
		echo http://deb.debian.org/debian
	} | sed -n 1p
}

# inside TREE COMMAND...: runs in the tree, in a mount namespace that takes the kernel's file systems away again.
inside() {
	local tree=$1
	shift
	# shellcheck disable=SC2016 # expanded by the inner shell
	unshare --mount --propagation private sh -c '
		tree=$1; shift
		mount -t proc proc "$tree/proc" && mount -t sysfs sysfs "$tree/sys" && mount --bind /dev "$tree/dev" &&
		exec chroot "$tree" "$@"' sh "$tree" \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# install TREE PACKAGE...: no daemon is started for it.
install_packages() {
	local tree=$1
	shift
	printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
	chmod 755 "$tree/usr/sbin/policy-rc.d"
	cat /etc/resolv.conf >"$tree/etc/resolv.conf"
	inside "$tree" apt-get update -qq
	inside "$tree" apt-get install -y -qq --no-install-recommends "$@"
	rm "$tree/usr/sbin/policy-rc.d" "$tree/etc/resolv.conf"
}

# The kernel and its modules without its package's scripts: they would make an initrd that nobody boots.
install_kernel() {
	local tree=$1 package
	package=$(inside "$tree" apt-cache depends "$kernel" | sed -n 's/^ *Depends: //p' | sed -n 1p)
	cat /etc/resolv.conf >"$tree/etc/resolv.conf"
	# Unpacked beside, as its /lib would take the place of the link to usr/lib.
	inside "$tree" sh -ec "cd /tmp; apt-get download -qq $package; dpkg-deb -x ${package}_*.deb kernel
		mv kernel/lib/modules /usr/lib/; mv kernel/boot/* /boot/; rm -r kernel ${package}_*.deb"
	rm "$tree/etc/resolv.conf"
	inside "$tree" depmod "${package#linux-image-}"
}

base_tree() {
	local tree=$1
	debootstrap --variant=minbase "$suite" "$tree" "$(mirror)"
	# shellcheck disable=SC2046 # a list of names
	install_packages "$tree" $(sed 's/#.*//' "$here/packages.txt")
	install_kernel "$tree"
	# A person without root, with a range of subordinate ids and a user manager from the boot on.
	inside "$tree" useradd --create-home --uid 1000 --shell /bin/bash ketch
	printf 'ketch:100000:65536\n' | tee "$tree/etc/subuid" >"$tree/etc/subgid"
	mkdir -p "$tree/var/lib/systemd/linger"
	touch "$tree/var/lib/systemd/linger/ketch"
	inside "$tree" passwd --quiet --delete root
	echo vm >"$tree/etc/hostname"
	printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$tree/etc/hosts"
	# Nothing runs that no test asked for: daemons are there to be started by a test.
	(
		cd "$tree/etc/systemd/system"
		for unit in containerd.service docker.service docker.socket podman.service podman.socket \
			podman-auto-update.service podman-auto-update.timer podman-restart.service apt-daily.timer \
			apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer; do
			ln -sf /dev/null "$unit"
		done
	)
	rm -rf "$tree"/var/cache/apt/* "$tree"/usr/share/{doc,man,locale,info}
	# An empty one is filled in at boot, without the services of a first boot.
	: >"$tree/etc/machine-id"
}

selinux_tree() {
	local tree=$1 policy=/etc/selinux/default
	cp -a "$cache/$key-base/tree" "$tree"
	install_packages "$tree" "${selinux_packages[@]}"
	printf 'SELINUX=permissive\nSELINUXTYPE=default\n' >"$tree/etc/selinux/config"
	cp "$here/selinux.cil" "$tree/tmp/ketch_vm.cil"
	inside "$tree" semodule --noreload --install /tmp/ketch_vm.cil
	# The initrd writes these again at each boot; a file that is there keeps its label.
	cp -a "$here/guest/root/." "$tree/"
	inside "$tree" setfiles -F -e /proc -e /sys -e /dev "$policy/contexts/files/file_contexts" / >/dev/null
	rm -rf "$tree"/var/cache/apt/*
}

folder_of() {
	case $1 in
	base) echo "$cache/$key-base" ;;
	selinux) echo "$cache/$key-selinux-$policy_key" ;;
	esac
}

# image LAYER: fills the folder beside its place, and moves it there only when it is whole.
image() {
	local folder scratch version module code
	folder=$(folder_of "$1")
	scratch=$folder.new
	[ ! -d "$folder" ] || return 0
	[ "$1" = base ] || image base
	echo "vm: building the $1 image from $(mirror) (log: $cache/build-$1.log)" >&2
	rm -rf "$scratch"
	mkdir -p "$scratch/modules"
	# Not `( ... ) || ...`, which would switch off `set -e` within.
	set +e
	(
		set -e
		"${1}_tree" "$scratch/tree"
		inside "$scratch/tree" dpkg-query -W -f '${Package} ${Version}\n' >"$scratch/packages"
		cp "$scratch"/tree/boot/vmlinuz-* "$scratch/vmlinuz"
		version=$(ls "$scratch/tree/lib/modules")
		for module in virtio_pci virtio_blk virtio_console; do
			inside "$scratch/tree" modprobe --set-version "$version" --show-depends "$module"
		done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$scratch/modules/order"
		while read -r module; do
			cp "$scratch/tree$module" "$scratch/modules/"
		done <"$scratch/modules/order"
		# All of the inode tables now, not by a kernel thread beside the tests; no journal, as no run is ever resumed.
		mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=0 -d "$scratch/tree" "$scratch/root.img" 12G
	) >"$cache/build-$1.log" 2>&1
	code=$?
	set -e
	if [ "$code" != 0 ]; then
		tail -n 20 "$cache/build-$1.log" >&2
		echo "vm: the $1 image could not be built: $cache/build-$1.log" >&2
		exit 1
	fi
	mv "$scratch" "$folder"
}

# Images of recipes that are no more, 2 GB each: those that nobody has asked for in three hours, longer than any run.
remove_unused() {
	find "$cache" -mindepth 1 -maxdepth 1 -type d -not -path "$(folder_of base)" -not -path "$(folder_of selinux)" \
		-mmin +180 -exec rm -rf {} +
}

layer=base
[ "${1-}" != --selinux ] || layer=selinux
mkdir -p "$cache"
folder=$(folder_of "$layer")
if [ ! -d "$folder" ]; then
	exec 9>"$cache/lock"
	flock 9
	image "$layer"
	remove_unused
fi
touch "$folder"
echo "$folder"
