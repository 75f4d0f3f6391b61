# SPDX-License-Identifier: GPL-2.0-only
#
# KTAP output for the test host's own tests. Sourced: plan N; result STATUS NAME
# for each; finish at the end.

ktap_planned=0 ktap_done=0 ktap_failed=0

plan()
{
	ktap_planned=$1
	echo "KTAP version 1"
	echo "1..$1"
}

# result STATUS NAME: a test passed if STATUS is 0.
result()
{
	local ok=ok

	ktap_done=$((ktap_done + 1))
	if [ "$1" != 0 ]; then
		ok="not ok"
		ktap_failed=$((ktap_failed + 1))
	fi
	echo "$ok $ktap_done $2"
}

note()
{
	sed 's/^/# /' <<<"$*"
}

# A test that did not run is not a pass.
finish()
{
	if [ "$ktap_done" != "$ktap_planned" ]; then
		note "planned $ktap_planned tests, ran $ktap_done"
		exit 1
	fi
	note "$((ktap_done - ktap_failed)) of $ktap_done passed"
	[ "$ktap_failed" = 0 ] || exit 1
	exit 0
}
