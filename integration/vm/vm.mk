# The VM with systemd and the whole of cgroup v2; integration/vm/README.md says how to run one command in it.
.PHONY: vm-image vm-shell

vm-image: ## Build the VM's root image in the cache
	@integration/setup/packages.sh debootstrap e2fsprogs
	integration/vm/build.sh

vm-shell: build ## A root console in the VM, with target/release/ketch on its PATH
	@integration/vm/run.sh --copy target/release/ketch:/usr/local/bin/ketch --shell
