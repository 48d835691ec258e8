#!/bin/bash
# Records what dockerd 28.5 of the current peers (make peers) shows for what it is sent, into golden/*.json:
#   agent/convert/tests/record.sh
# dockerd runs in a mount and network namespace of its own (integration/peers/enter.sh); record.py asks it, by the stock
# docker command line through a socket that writes down the bodies, and by raw bodies. Needs root, python3, docker,
# /bin/busybox (static). Ids, times and addresses are of the run; nothing of the files is edited by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/ketch-convert.XXXXXX)
mkdir "$work/s"
"$here/../../../integration/peers/enter.sh" --net --bind "$work/s:/s" dockerd \
	--host unix:///s/docker.sock --cgroup-parent /ketch-convert --exec-opt native.cgroupdriver=cgroupfs \
	--node-generic-resource GPU=UUID1 --node-generic-resource GPU=UUID2 --node-generic-resource SSD=3 \
	--label rack=r1 >"$work/dockerd.log" 2>&1 &
dockerd=$!
trap 'kill $dockerd; wait $dockerd || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
	[ -S "$work/s/docker.sock" ] && docker -H "unix://$work/s/docker.sock" version >/dev/null 2>&1 && break
	sleep 0.2
done
python3 "$here/record.py" "$work" "$here/golden"
