#!/bin/bash
# seed.sh TARGET CORPUS: the first inputs of a fuzz target; called by integration/setup/fuzz.sh in this folder.
set -euo pipefail
case $1 in
options) printf 'BinaryName = "crun"\nSystemdCgroup = true\nIoUid = 7\n' >"$2/toml" ;;
bootstrap) printf '\x0a\x01i\x12\x01n\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01\x4a\x02/s' >"$2/params" ;;
frames) printf '\0\0\0\6\0\0\0\1\1\0\x0a\x01s\x12\x01m' >"$2/request" ;;
esac
