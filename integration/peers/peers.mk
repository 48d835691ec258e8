# The current peers (docker.io, containerd, runc, crun of Debian forky) in a private, cached root.
.PHONY: peers
peers:
	integration/peers/build.sh
