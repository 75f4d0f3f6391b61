# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Test results in KTAP for the shell scripts beside this file.
#
#	plan NUMBER				how many results there will be
#	check NAME COMMAND [ARGUMENT...]	one result: does COMMAND succeed?
#	note TEXT				a line of diagnosis
#	skip_all WHY				nothing can be tested here
#	finish					totals, and the exit status
#
# So long at most, for a machine that has other things to do, and longer with
# DIRTYTRACK_SLOW, for slow kernels:
#
#	wait_for COMMAND [ARGUMENT...]		until it succeeds
#	within COMMAND [ARGUMENT...]		ends it, if it does not

KSFT_PASS=0
KSFT_FAIL=1
KSFT_SKIP=4

patience=$((200 * ${DIRTYTRACK_SLOW:-1}))

ktap_planned=0
ktap_number=0
ktap_failed=0

plan()
{
	ktap_planned=$1
	echo "TAP version 13"
	echo "1..$1"
}

note()
{
	echo "$*" | sed 's/^/# /'
}

check()
{
	local name=$1

	shift
	ktap_number=$((ktap_number + 1))
	if "$@"; then
		echo "ok $ktap_number $name"
	else
		echo "not ok $ktap_number $name"
		ktap_failed=$((ktap_failed + 1))
	fi
}

skip_all()
{
	echo "TAP version 13"
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

# What a test cannot go on without.
bail_out()
{
	echo "Bail out! $*"
	exit $KSFT_FAIL
}

# Results that are missing are failures: a script that ended early did not pass.
finish()
{
	local passed=$((ktap_number - ktap_failed))

	echo "# Totals: pass:$passed fail:$ktap_failed xfail:0 xpass:0 skip:0 error:0"
	if [ "$ktap_number" -ne "$ktap_planned" ]; then
		echo "# $ktap_planned results were planned, $ktap_number given"
		exit $KSFT_FAIL
	fi
	[ "$ktap_failed" -eq 0 ] || exit $KSFT_FAIL
	exit $KSFT_PASS
}

wait_for()
{
	local end=$((SECONDS + patience))

	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

within()
{
	timeout "$patience" "$@"
}
