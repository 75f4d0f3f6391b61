# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Cases of a test, each in a process and a directory of its own. Sourced by tests, which
# have a directory $top, functions case_NAME, and clean_up for the end of each.

# run_case NUMBER CASE FILE...: its result is a file.
run_case()
{
	local number=$1 name=$2
	shift 2

	mkdir "$top/$number"
	cd "$top/$number"
	trap clean_up EXIT
	# shellcheck disable=SC2086 # a name and arguments
	if case_$name >log 2>&1; then
		echo "ok $number $name"
	else
		echo "not ok $number $name"
		tail -n 8 log "$@" 2>/dev/null | sed 's/^/# /'
	fi >../result.$number
}

# run_cases AT_ONCE FILE...: those in the array "cases", each a name and arguments; of one
# that fails, the ends of its output and of the files are shown. Fails if one does.
run_cases()
{
	local at_once=$1 i bad
	shift

	echo "TAP version 13"
	echo "1..${#cases[@]}"
	# They wait most of the time.
	for ((i = 0; i < ${#cases[@]}; i++)); do
		(run_case $((i + 1)) "${cases[$i]}" "$@") 2>/dev/null &
		while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n || :; done
	done
	wait
	for ((i = 1; i <= ${#cases[@]}; i++)); do
		# A case that the shell gave up, for a mistake in it, has said nothing.
		[ -s "$top/result.$i" ] ||
			echo "not ok $i ${cases[$((i - 1))]}: it broke off" >"$top/result.$i"
		cat "$top/result.$i"
	done
	bad=$(grep -h '^not ok' "$top"/result.* | wc -l)
	echo "# Totals: pass:$((${#cases[@]} - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
	[ "$bad" = 0 ]
}
