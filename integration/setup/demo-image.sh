#!/bin/bash
# Writes the demo's image, web:demo, as an archive for `docker load`: the root of oci-bundles/web, whose httpd serves /www at port 80.
# Usage: demo-image.sh <archive>
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C oci-bundles/web/rootfs -cf "$work/layer.tar" --owner=0 --group=0 --numeric-owner .
layer=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
cat >"$work/config.json" <<JSON
{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]},
 "config": {"Cmd": ["httpd", "-f", "-p", "80", "-h", "/www"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}}}
JSON
echo '[{"Config": "config.json", "RepoTags": ["web:demo"], "Layers": ["layer.tar"]}]' >"$work/manifest.json"
tar -C "$work" -cf "$1" manifest.json config.json layer.tar
