#!/bin/sh
# Runs cargo-deny; builds it once into target/tools when it is not installed (about two minutes on two cpus, without
# optimisation: it runs for a second). Its advisories need a database from GitHub and are not asked for here.
set -eu
version=0.20.2
cd "$(dirname "$0")/../.."
if ! command -v cargo-deny >/dev/null; then
    tools=$PWD/target/tools
    [ -x "$tools/bin/cargo-deny" ] || {
        echo "building cargo-deny $version into target/tools"
        CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --debug --version "$version" --root "$tools" cargo-deny
        rm -rf "$tools/build"
    }
    PATH=$tools/bin:$PATH
fi
exec cargo deny "$@"
