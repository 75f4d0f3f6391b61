#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The benchmark's trackers, at its smallest: each must report what was written, between
# harvests and while harvests go back to back, or its times would mean nothing.  Speed
# is not looked at.  Two controls forget pages: the benchmark must notice both times.
# Then the small benchmarks, which check their results likewise.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

build=$here/../build
bench=$build/tools/dirtytrack-bench
srcu=$build/bench-srcu/$(uname -r)/bench_srcu.ko
[ -x "$bench" ] || bail_out "there is no $bench: run make -C tools bench"

# Trackers want the module with parameters of theirs.
options=(--size 2M --sparse 64M --runs 1 --seconds 0.1)
[ -z "${DIRTYTRACK_KO:-}" ] || options+=(--module "$DIRTYTRACK_KO")

mapfile -t trackers < <("$bench" --list | awk '$1 == "tracker" { print $2 }')

output=$(mktemp)
json=$(mktemp)
trap 'rm -f "$output" "$json"' EXIT

# run TRACKER [OPTION]...: leaves the status in $status.
run()
{
	status=0
	"$bench" --tracker "$1" "${options[@]}" "${@:2}" >"$output" 2>&1 || status=$?
}

ended_with()
{
	[ "$status" = "$1" ] && return
	note "status $status"
	note "$(cat "$output")"
	return 1
}

# What it prints is diagnosis.
works()
{
	local result=0

	"$@" >"$output" 2>&1 || result=$?
	note "$(cat "$output")"
	return $result
}

# By a process, as guests take long to boot. All it writes to is in each epoch.
replicated()
{
	works "$here/../tools/bench/bench-replicate" --runs 1 --seconds 1 --memory 16 \
		--pages 100 --output "$json" process || return
	jq -e '.results[0] | .pages >= 90 and .pause.min > 0 and .pause.median <= .pause.max
		and .alone.median > 0 and .replicated.median > 0' "$json" >/dev/null
}

# What each is, is not looked at.
figures()
{
	run dirtytrack,uffd-async-anon --json "$json"
	ended_with 0 && jq -e '
		any(.trackers[]; .name == "uffd-async-anon" and .missing == null) as $compared
		| .figures | length >= (if $compared then 5 else 1 end)
		and all(.reached == (if .at_least then .value >= .at_least
				     else .value <= .at_most end))
	' "$json" >/dev/null && grep -q "^FIGURE.* REACHED$" "$output"
}

# Interrupted, it leaves no module to be in the way of the next run.
interrupted()
{
	works timeout -s INT 2 "$build/tools/bench-latency" -m "$srcu" -r 99 && return 1
	[ ! -e /sys/module/bench_srcu ]
}

# Calls of MMU notifiers were counted, or nothing was, which is no reason to skip.
known()
{
	[ ! -s "$json" ] || jq -e '[.rows[] | select(.pages != "populate") | .notified_per_1000]
		| length > 0 and all(. != null)' "$json" >/dev/null
}

# Ranges cause less than a seventh of those that page by page does.
fewer()
{
	[ -s "$json" ] && jq -e '
		[.rows[] | select(.pages != "populate")] | group_by(.pages)
		| map(map({ (.way): .notified_per_1000 }) | add)
		| length == 2 and all(.page > 0 and .ranges * 7 <= .page)
	' "$json" >/dev/null
}

plan $((${#trackers[@]} + 11))
for tracker in "${trackers[@]}"; do
	run "$tracker"
	# Status 4: this kernel does not have it.
	if [ "$status" = 4 ]; then
		check "$tracker # SKIP $(tail -n 1 "$output")" true
	else
		check "$tracker" ended_with 0
	fi
done
run dirtytrack --lose 2
check "control: a page that is not reported is noticed" ended_with 3
run dirtytrack --lose 1 --pattern nothing --sparse 0
check "control: so it is while harvests go back to back" ended_with 3
check "figures beside their goals" figures
check "walks of a bitmap" works "$build/tools/bench-bitmap" -s 4 -r 1
[ -e /sys/module/dirtytrack ] || insmod "$DIRTYTRACK_KO"
check "harvests of nothing and of one page" works "$build/tools/bench-harvest" 5
check "syncs that are not aligned" works "$build/tools/bench-sync" -n 512 -r 1
check "releases of 7/8" works "$build/tools/bench-release" -n 512 -r 1 -j "$json"
if known; then
	check "ranges cause fewer calls of MMU notifiers" fewer
else
	check "ranges cause fewer calls of MMU notifiers # SKIP they cannot be counted here" true
fi
check "harvests with SRCU that are interrupted" interrupted
check "harvests by xchg and with SRCU" works "$build/tools/bench-latency" -m "$srcu" -r 1
if command -v python3 >/dev/null; then
	check bench-replicate replicated
else
	check "bench-replicate # SKIP there is no python3" true
fi
finish
