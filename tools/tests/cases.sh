# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Cases of a test, each in a process and a directory of its own. Sourced by tests, which
# have a directory $top, functions case_NAME, and clean_up for the end of each if what it has
# in the background has children: that itself is killed in any case.
#
# Some show what happens while a guest writes, or before a lease ends. On a machine that
# stands still at times it may not have written, and the lease may have ended: such a case
# ends with "return $again", and is run once more, ten times at most. What is to be shown
# is shown all the same.
# shellcheck disable=SC2034 # of who sources this
again=75

# is WHAT VALUE WANTED
is()
{
	[ "$2" = "$3" ] || {
		echo "$1 is '$2', not '$3'"
		return 1
	}
}

# left_in DIRECTORY: the processes that are at home there.
left_in()
{
	find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$1*" 2>/dev/null | cut -d / -f 3
}

# nothing_runs_in DIRECTORY: soon, as who was killed may have a guard that kills others.
nothing_runs_in()
{
	local end=$((SECONDS + 60)) pid

	while [ -n "$(left_in "$1")" ]; do
		if [ "$SECONDS" -ge "$end" ]; then
			for pid in $(left_in "$1"); do
				echo "left: process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"
				kill -KILL "$pid"
			done
			return 1
		fi
		sleep 0.1
	done
}

clean_up()
{
	:
}

end_jobs()
{
	local jobs

	jobs=$(jobs -p)
	# shellcheck disable=SC2086 # several
	[ -z "$jobs" ] || kill -KILL $jobs 2>/dev/null || :
	wait
}

# run_case NUMBER CASE FILE...: its result is a file. Nothing that it started outlives it.
run_case()
{
	local number=$1 name=$2 dir try status
	shift 2

	for ((try = 1; try <= 10; try++)); do
		dir=$top/$number.$try
		mkdir "$dir"
		status=0
		# shellcheck disable=SC2086 # a name and arguments
		(cd "$dir" && trap 'clean_up; end_jobs' EXIT && case_$name) >"$top/log.$number" 2>&1 || status=$?
		nothing_runs_in "$dir" >>"$top/log.$number" || status=1
		[ "$status" = "$again" ] || break
		echo "# $name: what it needs did not happen, try $try"
	done >"$top/result.$number"
	if [ "$status" = 0 ]; then
		echo "ok $number $name"
	else
		echo "not ok $number $name"
		(cd "$dir" && tail -n 8 "$top/log.$number" "$@") 2>/dev/null | sed 's/^/# /'
	fi >>"$top/result.$number"
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
	bad=$(cat "$top"/result.* | grep -c '^not ok' || :)
	echo "# Totals: pass:$((${#cases[@]} - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
	[ "$bad" = 0 ]
}
