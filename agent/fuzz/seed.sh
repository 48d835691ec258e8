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
create_body)
	cat >"$2/body" <<-'END'
		{"Image":"a","Cmd":["sh"],"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","a"],"Interval":1000000},
		"HostConfig":{"Binds":["/a:/b:ro","v:/c"],"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1,"Mode":448}}],
		"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"80-81"}]},"CapAdd":["ALL"],"SecurityOpt":["seccomp={}","apparmor=a"],
		"CpusetCpus":"0-1","Memory":7000000,"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"Devices":[{"PathOnHost":"/dev/null"}],
		"Tmpfs":{"/s":"size=1m"},"Sysctls":{"net.a":"b"},"DeviceCgroupRules":["c 1:3 rwm"],"BlkioWeightDevice":[{"Path":"/a","Weight":10}],
		"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":1},"ExtraHosts":["a:1.2.3.4"],"LogConfig":{"Type":"local"}},
		"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["a"],"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}}
	END
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
