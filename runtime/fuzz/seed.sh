#!/bin/bash
# seed.sh TARGET CORPUS: the first inputs of a fuzz target; called by integration/setup/fuzz.sh in this folder.
set -euo pipefail
case $1 in
config_plan) for bundle in ../../oci-bundles/*/config.json; do cp "$bundle" "$2/$(basename "$(dirname "$bundle")")"; done ;;
seccomp_bpf) cp ../../oci-bundles/*/seccomp.json seeds/seccomp_bpf/* "$2/" ;;
init_protocol) for tag in P1 G M3 m xno H h R r S s Ebad; do printf %s "$tag" >"$2/$tag"; done ;;
*) cp "seeds/$1"/* "$2/" ;;
esac
