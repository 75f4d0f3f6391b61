#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack log and rate, on a stand-in for the module: what they print of pages that
# are declared dirty here.
set -eu

cmd=$OUT/tests/dirtytrack-standin
tmp=$(mktemp -d /dev/shm/test-log.XXXXXX)
export DIRTYTRACK_STANDIN=$tmp
ram=$tmp/ram
pid=
trap 'stop; rm -rf "$tmp"' EXIT
n=0 bad=0
cd "$tmp"

check()
{
	local name=$1

	shift
	n=$((n + 1))
	if "$@" >log 2>&1; then
		echo "ok $n $name"
	else
		echo "not ok $n $name"
		tail -qn 5 log out err 2>/dev/null | sed 's/^/# /'
		bad=$((bad + 1))
	fi
	stop
}

stop()
{
	[ -n "$pid" ] || return 0
	kill "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
	pid=
}

# Memory of 4096 pages: 10 to 19 have been written to.
new_slot()
{
	rm -f "$ram" "$ram.dirty"
	: >"$ram.limit"
	truncate -s 16M "$ram"
	truncate -s 512 "$ram.dirty"
	dd if=/dev/urandom of="$ram" bs=4k seek=10 count=10 conv=notrunc status=none
}

# dirty WORD HEX: 64 pages, lowest bit first page.
dirty()
{
	local i bytes=

	for ((i = 14; i >= 0; i -= 2)); do
		bytes+="\\x${2:i:2}"
	done
	printf '%b' "$bytes" | dd of="$ram.dirty" bs=8 seek="$1" conv=notrunc status=none
}

# A command in the background.  Its log is there, and clean, soon after it is locked.
start()
{
	: >out
	"$cmd" "$@" >out 2>err &
	pid=$!
	until_true locked && sleep 0.3
}

# Without a try to lock it, which would get in the way.
locked()
{
	grep -q "FLOCK .* WRITE $pid " /proc/locks
}

until_true()
{
	local i

	for ((i = 0; i < 300; i++)); do
		! "$@" || return 0
		sleep 0.05
	done
	return 1
}

lines()
{
	[ "$(wc -l <out)" -ge "$1" ]
}

ranges()
{
	new_slot
	"$cmd" log ram --all-set --json >out &&
	[ "$(jq -c '[.npages, .dirty, (.ranges | map([.first, .pages, .size, .state]))]' out)" = \
		'[4096,10,[[10,10,40960,"data"]]]' ]
}

reports_go_on()
{
	new_slot
	start log ram --interval 0.2 --count 100 --json
	dirty 1 8000000000000001
	until_true grep -q '"first": 127' out && stop &&
	[ "$(jq -cs 'map(select(.dirty > 0)) | [length, (.[0].ranges | map([.first, .pages, .state]))]' out)" = \
		'[1,[[64,1,"hole"],[127,1,"hole"]]]' ]
}

one_report()
{
	new_slot
	"$cmd" log ram --interval 0 >out && [ ! -s out ] &&
	"$cmd" log ram --all-set --count 2 -n --interval 0 >out &&
	[ "$(wc -l <out)" = 2 ]
}

follows()
{
	new_slot
	start log ram --follow --json
	dirty 0 00000000000000e0
	until_true lines 1 || return 1
	dirty 63 8000000000000000
	until_true lines 2 || return 1
	# It was taken, so it is told again.
	dirty 0 0000000000000040
	until_true lines 3 && stop &&
	[ "$(jq -cs 'map([.first, .pages, .size])' out)" = \
		'[[5,3,12288],[4095,1,4096],[6,1,4096]]' ] &&
	[ "$(jq -cs 'map(.time > 0) | all' out)" = true ]
}

# 64 entries and 4096 pages: what finds no room is harvested, once.
follows_without_room()
{
	local i

	new_slot
	start log ram --follow --ring 64 --json
	for ((i = 0; i < 64; i++)); do
		printf '\xff\xff\xff\xff\xff\xff\xff\xff'
	done | dd of="$ram.dirty" conv=notrunc status=none
	until_true all_pages && sleep 0.3 && all_pages
}

all_pages()
{
	[ "$(jq -cs '[(map(.pages) | add), ([.[] | range(.first; .first + .pages)] | unique | length)]' out 2>/dev/null)" = \
		'[4096,4096]' ]
}

follows_so_often()
{
	new_slot
	"$cmd" log ram --follow --all-set --count 1 -o REPORT,FIRST,PAGES,STATE -nr >out &&
	[ "$(cat out)" = "1 10 10 -" ]
}

limits()
{
	new_slot
	"$cmd" rate ram --limit 2000 --interval 0.1 --count 2 --json -o +LIMIT,THROTTLES,THROTTLED >out &&
	[ "$(jq -cs 'map([.limit, .throttles, .throttled])' out)" = \
		'[[2000,1,0.5],[2000,1,0.5]]' ] &&
	"$cmd" rate ram --limit 1 --interval 0.1 --count 1 | grep -q 'THROTTLED$' &&
	"$cmd" rate ram --interval 0.1 --count 1 --output-all --json >out &&
	[ "$(jq -c '[.limit, .throttles]' out)" = '[null,0]' ] &&
	"$cmd" log ram --limit 5 --all-set | grep -q data
}

# Of which the stand-in has four.
no_log_is_left()
{
	new_slot
	exec 7>"$ram.dirty0" 8>"$ram.dirty1" 9>"$ram.dirty2"
	flock 7 && flock 8 && flock 9 || return 1
	start log ram --follow
	! "$cmd" rate ram --count 1 2>err && grep -q 'as many logs as the module allows' err &&
	! "$cmd" log nonesuch 2>err && grep -q 'there is none' err
}

echo "TAP version 13"
echo "1..8"
check "log: ranges" ranges
check "log: reports until it is interrupted" reports_go_on
check "log: one report, and two" one_report
check "log: follows a ring" follows
check "log: follows a ring that is too small" follows_without_room
check "log: follows as often as is said" follows_so_often
check "rate, log: limits" limits
check "log, rate: what is refused" no_log_is_left
echo "# Totals: pass:$((n - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
[ "$bad" = 0 ]
