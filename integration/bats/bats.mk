# runc's bats suite and the OCI runtime-tools validation; integration/bats/README.md says how to narrow a run.
# SRC is a checkout of runc, TOOLS one of runtime-tools; either may be left out.
SRC ?=
TOOLS ?=
BATS_ARGS ?=
.PHONY: bats
bats:
	python3 integration/bats/run.py $(if $(SRC),--src $(SRC)) $(if $(TOOLS),--tools $(TOOLS)) $(BATS_ARGS)
