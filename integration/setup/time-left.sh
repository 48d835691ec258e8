#!/bin/sh
# time-left.sh RESERVED LEAST: the suite's option `--within` for a step that begins now, when `make test` has an end (KETCH_TEST_UNTIL, in seconds
# since 1970, from run-steps.sh): what is left until then but for RESERVED seconds of the steps behind it, LEAST at any rate.
[ -n "${KETCH_TEST_UNTIL-}" ] || exit 0
left=$((KETCH_TEST_UNTIL - $(date +%s) - $1))
[ "$left" -gt "$2" ] || left=$2
echo "--within $left"
