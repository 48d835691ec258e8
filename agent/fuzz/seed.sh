#!/bin/bash
# seed.sh TARGET CORPUS: the first inputs of a fuzz target; called by integration/setup/fuzz.sh in this folder.
set -euo pipefail
case $1 in
reference)
	printf 'localhost:5000/a/b:tag@sha256:%064d' 0 >"$2/name"
	printf 'Bearer realm="https://a/t",service="s",scope="repository:x:pull"' >"$2/challenge"
	;;
dockerfile)
	printf '# escape=`\nARG V=1\nFROM --platform=$P a:${V:-x} AS b\nCOPY --from=b --chown=u:g ["a b", "/"]\nRUN x `\n# c\n y\n' >"$2/stages"
	printf 'FROM x\nENV A=${PATH//bin/s} B="${A#*.}" C='"'"'q'"'"'\nHEALTHCHECK --interval=1m30s CMD y\nONBUILD ADD z /\nRUN <<E\nE\n' >"$2/words"
	;;
layer)
	folder=$(mktemp -d)
	mkdir "$folder/d" "$folder/.wh.gone"
	echo x >"$folder/d/f"
	ln "$folder/d/f" "$folder/d/g"
	ln -s ../.. "$folder/d/l"
	: >"$folder/d/.wh..wh..opq"
	truncate -s 1M "$folder/d/hole"
	for format in gnu posix ustar; do tar --format=$format -S -C "$folder" -cf "$2/$format" . 2>/dev/null || true; done
	rm -r "$folder"
	;;
esac
