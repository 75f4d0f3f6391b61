#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack release with the module: pages that lose their memory and get it back, and a
# program whose zero pages are taken away while it writes, which must not lose a write.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
writer=${TRIM_WRITER:-$here/../build/selftests/trim_writer}
npages=4096

[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -x "$dirtytrack" ] || bail_out "there is no $dirtytrack: run make tools"
[ -x "$writer" ] || bail_out "there is no $writer: build the selftests"
command -v jq >/dev/null || bail_out "jq is not installed"

dir=$(mktemp -d)
cd "$dir"
holder=""
trimmer=""
clean_up()
{
	[ -z "$trimmer" ] || kill -KILL "$trimmer" 2>/dev/null || :
	[ -z "$holder" ] || kill -KILL "$holder" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$dir"
}
trap clean_up EXIT

is()
{
	[ "$2" = "$3" ] || {
		note "$1 is '$2', not '$3'"
		return 1
	}
}

# release ARGUMENT...: its JSON in "out".
release()
{
	"$dirtytrack" release vm --json "$@" >out 2>err || {
		note "$(cat err)"
		return 1
	}
}

# pages KEY: a figure of "out".
pages()
{
	echo $(($(jq ".$1" out) / 4096))
}

resident()
{
	echo $(($("$dirtytrack" info vm --json | jq .resident) / 4096))
}

# ---- a slot that nobody writes to: all data, 8 MiB of 16 ----

starts()
{
	"$dirtytrack" run --slot vm=16M -- bash -c \
		'yes data | head -c 8M | dd of="$1" bs=64k iflag=fullblock conv=notrunc status=none;
		 exec sleep 100000' bash "{vm}" >/dev/null 2>&1 &
	holder=$!
	wait_for eval '[ "$(resident 2>/dev/null)" = 2048 ]'
}

slot_path()
{
	local fd

	for fd in /proc/"$holder"/fd/*; do
		case $(readlink "$fd") in
		*dirtytrack*)	echo "$fd"; return ;;
		esac
	done
}

ranges()
{
	release 10-19 4M-5M 15+10 3000-3999 &&
		is released "$(pages released)" 271 &&
		is asked "$(pages asked)" 1271 &&
		is before "$(pages before)" 2048 && is after "$(pages after)" 1777 &&
		is resident "$(resident)" 1777
}

reads_as_zero()
{
	local path

	path=$(slot_path)
	dd if="$path" bs=4k skip=10 count=15 status=none | cmp -s -n 61440 - /dev/zero &&
		[ "$(dd if="$path" bs=4k skip=25 count=1 status=none | head -c 4)" = data ] &&
		is resident "$(resident)" 1777
}

# While a log is there: pages that lose their memory are holes in it.
logged_as_hole()
{
	local log

	"$dirtytrack" log vm --interval 0.5 --count 1000 --json >log.out &
	log=$!
	wait_for eval '[ "$("$dirtytrack" info vm --json | jq .logs)" = 1 ]' &&
		release 100-109 200 && wait_for grep -q '"first"' log.out
	kill "$log" && ! wait "$log" &&
		is ranges "$(jq -cs '[.[].ranges[] | [.first, .pages, .state]]' log.out)" \
			'[[100,10,"hole"],[200,1,"hole"]]'
}

# What is not valid, or the last of many that is outside.
nothing_for_bad_ranges()
{
	local before

	before=$(resident)
	! "$dirtytrack" release vm 0-99 4096 2>err && grep -q 'a range ends with page 4096' err &&
		! "$dirtytrack" release vm 0-99 7-5 2>/dev/null &&
		! printf '\1\0\0\0\0\0\0\0\0\20\0\0\0\0\0\0' |
			"$dirtytrack" release vm --file - --format binary 2>/dev/null &&
		is resident "$(resident)" "$before"
}

many_ranges()
{
	# Every other page of the first 2048, a hundred thousand times over. Without memory are
	# already, of the even ones, 8 of 10 to 24, 5 of 100 to 109, 200, and 128 of the fifth MiB.
	seq 0 99999 | awk '{ print 2 * ($1 * 7919 % 1024) }' | release --file - &&
		is asked "$(pages asked)" 1024 &&
		is released "$(pages released)" $((1024 - 8 - 5 - 1 - 128)) &&
		is resident "$(resident)" "$(($(pages before) - $(pages released)))"
}

populates()
{
	release --populate 0+16M && is after "$(pages after)" 4096 &&
		is populated "$(pages populated)" $((4096 - $(pages before))) &&
		is resident "$(resident)" 4096
}

# All that was populated and never written, and what dd has not written.
trims()
{
	release --zero && is looked "$(pages looked)" 4096 &&
		is after "$(pages after)" $((4096 - $(pages zero))) &&
		is skipped "$(pages skipped)" 0 && [ "$(pages zero)" -ge 3072 ] &&
		[ "$(pages zero)" -lt 4096 ]
}

# Once all was looked at, and with nobody who writes, nothing is.
idles()
{
	local before

	before=$(resident)
	"$dirtytrack" release vm --zero --watch 0.1 --count 3 --json >out 2>err &&
		is looks "$(jq -cs 'map(.looked / 4096)' out)" "[$before,0,0]" &&
		is resident "$(resident)" "$before"
}

copies_no_memory_into_being()
{
	local before

	before=$(resident)
	"$dirtytrack" copy vm image --no-pause --verify >/dev/null 2>err &&
		cmp -s image "$(slot_path)" && is resident "$(resident)" "$before"
}

ends()
{
	kill "$holder" && ! wait "$holder" && holder=
}

# ---- a slot that is written to ----

writer_starts()
{
	rm -f ready
	"$dirtytrack" run --slot vm=16M -- "$writer" "{vm}" "$npages" "$dir/ready" >writer.out 2>&1 &
	holder=$!
	wait_for test -e ready
}

trimmer_runs()
{
	: >trim.out
	env --default-signal=INT "$dirtytrack" release vm --zero --watch 0.05 --json \
		>trim.out 2>trim.err &
	trimmer=$!
	wait_for eval '[ "$(wc -l <trim.out)" -ge 20 ]'
}

trimmer_ends()
{
	local status=0

	kill -INT "$trimmer" && { wait "$trimmer" || status=$?; } && trimmer= &&
		is status "$status" 130
}

trimmed_much()
{
	[ "$(jq -s 'map(.released) | add / 4096' trim.out)" -gt 100 ]
}

# When it has stopped, all that is not zero has memory, and nothing else.
writer_ends()
{
	local status=0

	kill -TERM "$holder" && wait_for grep -q '^data ' writer.out && release --zero &&
		kill -TERM "$holder" || return 1
	wait "$holder" || status=$?
	holder=
	note "$(paste -s -d ' ' writer.out)"
	is status "$status" 0 && grep -q '^writes .* bad 0$' writer.out &&
		is after "$(pages after)" "$(sed -n 's/^data //p' writer.out)"
}

nothing_left()
{
	! "$dirtytrack" info vm >/dev/null 2>&1
}

plan 17
check "a slot with 8 MiB of data" starts
check "ranges lose their memory, and nothing else" ranges
check "they read as zero, without getting memory" reads_as_zero
check "a log has them as holes" logged_as_hole
check "ranges that are not valid release nothing" nothing_for_bad_ranges
check "a hundred thousand ranges" many_ranges
check "populate" populates
check "zero pages are released" trims
check "with --watch, an idle slot is looked at once" idles
check "a copy gives no memory to what was released" copies_no_memory_into_being
check "the slot ends" ends
check "a program writes, half of it zeros" writer_starts
check "its zero pages are taken away meanwhile, 20 times" trimmer_runs
check "Ctrl-C ends that" trimmer_ends
check "there were many" trimmed_much
check "no write was lost, and all zero pages are gone" writer_ends
check "nothing is left" nothing_left
[ "$ktap_failed" = 0 ] || note "$(cat err trim.err 2>/dev/null)"
finish
