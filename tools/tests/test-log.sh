#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack log and rate, on a stand-in for the module: what they print of pages that
# are declared dirty here.
# shellcheck disable=SC2317 # cases are called by their names
set -eu

# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/slots.sh
. "$SRC/tests/slots.sh"

cmd=$OUT/tests/dirtytrack-standin
top=$(mktemp -d /dev/shm/test-log.XXXXXX)
trap 'rm -rf "$top"' EXIT

# A slot of which pages 10 to 19 have been written to.
start()
{
	new_slot && fallocate -p -o 0 -l 16M "$ram" &&
		dd if=/dev/urandom of="$ram" bs=4k seek=10 count=10 conv=notrunc status=none
}

# watch ARGUMENT...: a command in the background, whose log is there, and clean.
watch()
{
	start_tool "$@" && until_true has_logs "$ram" 1
}

# It ends when it is told to, and what it had to say is in "out".
stop()
{
	kill -TERM "$tool" && ends 143
}

case_ranges()
{
	start && "$cmd" log ram --all-set --json >out &&
		is ranges "$(jq -c '[.npages, .dirty, (.ranges | map([.first, .pages, .size, .state]))]' out)" \
			'[4096,10,[[10,10,40960,"data"]]]'
}

case_reports_go_on()
{
	start && watch log ram --interval 0.2 --json --count 1000000 &&
		dirty 1 8000000000000001 && until_true grep -q '"first": 127' out && stop &&
		is reports "$(jq -cs 'map(select(.dirty > 0)) | [length, (.[0].ranges | map([.first, .pages, .state]))]' out)" \
			'[1,[[64,1,"hole"],[127,1,"hole"]]]'
}

case_one_report()
{
	start && "$cmd" log ram --interval 0 >out && [ ! -s out ] &&
		"$cmd" log ram --all-set --count 2 -n --interval 0 >out &&
		is lines "$(wc -l <out)" 2
}

case_follows()
{
	start && watch log ram --follow --json &&
		dirty 0 00000000000000e0 && until_true lines 1 &&
		dirty 63 8000000000000000 && until_true lines 2 &&
		# It was taken, so it is told again.
		dirty 0 0000000000000040 && until_true lines 3 && stop &&
		is pages "$(jq -cs 'map([.first, .pages, .size])' out)" \
			'[[5,3,12288],[4095,1,4096],[6,1,4096]]' &&
		is times "$(jq -cs 'map(.time > 0) | all' out)" true
}

# 64 entries and 4096 pages: what finds no room is harvested, once.
case_follows_without_room()
{
	start && watch log ram --follow --ring 64 --json || return 1
	head -c 512 /dev/zero | tr '\0' '\377' |
		dd of="$ram.dirty" bs=512 iflag=fullblock conv=notrunc status=none
	until_true all_pages && sleep 0.3 && all_pages
}

all_pages()
{
	[ "$(jq -cs '[(map(.pages) | add), ([.[] | range(.first; .first + .pages)] | unique | length)]' out 2>/dev/null)" = \
		'[4096,4096]' ]
}

case_follows_so_often()
{
	start && "$cmd" log ram --follow --all-set --count 1 -o REPORT,FIRST,PAGES,STATE -nr >out &&
		is out "$(cat out)" "1 10 10 -"
}

case_limits()
{
	start &&
	"$cmd" rate ram --limit 2000 --interval 0.1 --count 2 --json -o +LIMIT,THROTTLES,THROTTLED >out &&
	is limits "$(jq -cs 'map([.limit, .throttles, .throttled])' out)" \
		'[[2000,1,0.5],[2000,1,0.5]]' &&
	"$cmd" rate ram --limit 1 --interval 0.1 --count 1 | grep -q 'THROTTLED$' &&
	"$cmd" rate ram --interval 0.1 --count 1 --output-all --json >out &&
	is limits "$(jq -c '[.limit, .throttles]' out)" '[null,0]' &&
	"$cmd" log ram --limit 5 --all-set | grep -q data
}

# Of which the stand-in has four.
case_no_log_is_left()
{
	start || return 1
	exec 7>"$ram.dirty0" 8>"$ram.dirty1" 9>"$ram.dirty2"
	flock 7 && flock 8 && flock 9 || return 1
	watch log ram --follow &&
		! "$cmd" rate ram --count 1 2>err2 && grep -q 'as many logs as the module allows, or no memory is left' err2 &&
		! "$cmd" log nonesuch 2>err2 && grep -q 'there is none' err2
}

cases=(ranges reports_go_on one_report follows follows_without_room follows_so_often limits
	no_log_is_left)
[ $# = 0 ] || cases=("$@")

run_cases 4 out err
