#!/bin/bash
# Shows what ketch does: the runtime with bundles of oci-bundles/ (a container's output, a system call being refused), then the engine
# with the stock docker command line (demo-engine.sh), and three engines as one swarm (demo-mesh.sh). Ends with failure when something
# of it was not seen. RUNTIME may name another runtime.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "the demo makes containers: run it as root" >&2; exit 1; }
runtime=${RUNTIME:-target/release/ketch}
state=$(mktemp -d /tmp/ketch-demo.XXXXXX)
trap 'rm -rf "$state"' EXIT

shown() { # shown <text that must appear> <bundle>
    local out
    printf '$ ketch run --bundle %s box\n' "$2"
    out=$("$runtime" --root "$state" run --bundle "$2" "demo$$" 2>&1) || true
    printf '%s\n' "$out"
    grep -qF -- "$1" <<<"$out" || { printf 'the demo failed: no "%s" in this output\n' "$1" >&2; exit 1; }
}

printf '\n== The runtime: a container of a bundle; mount(2) is refused to another by Docker'"'"'s seccomp profile\n'
shown 'Hello from a container' oci-bundles/hello
shown 'mount(2) was refused' oci-bundles/docker-default

# The engine makes bridges, addresses and rules: in a network namespace that ends with it; and so does the mesh.
unshare --net --mount -- integration/setup/demo-engine.sh
unshare --net --mount -- integration/setup/demo-mesh.sh
printf '\n== done\n'
