#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack backup with the module: versions of a slot that is written, each beside a copy
# of the memory taken in its pause, while a monitor and a copy have logs of their own.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
writer=${TOOL_WRITER:-$here/../build/selftests/tool_writer}
versions=3

[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -x "$dirtytrack" ] || bail_out "there is no $dirtytrack: run make tools"
[ -x "$writer" ] || bail_out "there is no $writer: build the selftests"
for program in jq qemu-img qemu-nbd; do
	command -v "$program" >/dev/null || bail_out "$program is not installed"
done

dir=$(mktemp -d)
cd "$dir"
mkdir out tmp
export TMPDIR=$dir/tmp
pids=()
clean_up()
{
	[ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$dir"
}
trap clean_up EXIT

start_writer()
{
	"$dirtytrack" run --slot vm=8M -- "$writer" "{vm}" 1536 500 ready &
	pid=$!
	pids+=("$pid")
	wait_for test -e ready || return 1
	for memory in /proc/"$pid"/fd/*; do
		[ "$(readlink "$memory")" != /dirtytrack:vm ] || return 0
	done
	return 1
}

# One that pauses at a time.  The guard of who is killed resumes, too.
cat >pause <<'END'
until mkdir lock 2>/dev/null; do sleep 0.1; done
kill -STOP $1
until grep -q '^State:.T' /proc/$1/status; do sleep 0.05; done
END
cat >resume <<'END'
kill -CONT $1
rmdir lock 2>/dev/null || :
END

backup()
{
	exec env --default-signal=INT "$dirtytrack" backup vm out --incremental --json \
		--pause-cmd "sh pause $pid && cat $memory >new" --resume-cmd "sh resume $pid" \
		--after 'mv new ref.$DIRTYTRACK_VERSION' "$@"
}

logs()
{
	"$dirtytrack" info vm -J | jq .logs
}

no_logs()
{
	[ "$(logs)" = 0 ]
}

has_written()
{
	[ "$("$dirtytrack" log vm -i 0.5 -J | jq '.dirty > 0')" = true ]
}

# A copy that verifies itself must not be missing what a version took, nor the reverse.
versions_beside_others()
{
	local job monitor

	backup --interval 1 --count "$versions" >rows 2>err &
	job=$!
	"$dirtytrack" rate vm --interval 1 --count 1000000 --json >rates &
	monitor=$!
	pids+=("$job" "$monitor")
	within "$dirtytrack" copy vm image --verify --pause-cmd "sh pause $pid" \
		--resume-cmd "sh resume $pid" >copy.out 2>copy.err ||
		{ note "$(cat copy.err)"; return 1; }
	wait "$job" || { note "$(cat err rows)"; return 1; }
	wait_for monitor_saw 50 && kill "$monitor"
}

# monitor_saw PAGES: as many, or more.
monitor_saw()
{
	[ "$(jq -s 'map(.dirty) | add' rates)" -gt "$1" ]
}

made()
{
	[ "$(jq -cs 'map(select(.event == "version").kind)' rows)" = \
		'["full","changes","changes"]' ] &&
		[ "$(find out tmp ! -type d | wc -l)" = "$versions" ] && [ -z "$(ls tmp)" ]
}

versions_are_the_memory()
{
	local i

	for ((i = 0; i < versions; i++)); do
		qemu-img compare -q -f raw -F qcow2 "ref.$i" "out/vm.$i.qcow2" ||
			{ note "version $i"; return 1; }
	done
}

# None of them has more than could have been written.
changes_are_small()
{
	[ "$(jq -s 'map(select(.kind == "changes")) | any(.pages > 0)' rows)" = true ] &&
		[ "$(qemu-img map --output=json out/vm.1.qcow2 | jq \
			'[.[] | select(.depth == 0) | .length] | add / 4096')" -le \
			"$(jq -s 'map(select(.version == 1))[0].pages' rows)" ]
}

others_saw_it_all()
{
	grep -qx 'identical: 2048 pages' copy.out && monitor_saw 50
}

is_there()
{
	[ -e "$1" ]
}

is_clean()
{
	[ ! -e out/vm.partial ] && [ ! -e out/vm.lock ] && [ -z "$(ls tmp)" ] && [ ! -e lock ]
}

# With a version half made: the log ends, the guest runs, and there is no trace of it.
killed()
{
	local job

	(backup --interval 1) >rows.killed 2>err &
	job=$!
	pids+=("$job")
	wait_for is_there "out/vm.$versions.qcow2" && wait_for is_there out/vm.partial &&
		kill -KILL "$job" && wait_for is_clean && wait_for no_logs &&
		versions_are_the_memory && wait_for has_written
}

plan 7
check "a writer with a slot starts" start_writer
check "versions, beside a monitor and a copy" versions_beside_others
check "the first is full, the others have changes" made
check "versions are what the memory was" versions_are_the_memory
check "they have what was written" changes_are_small
check "the monitor and the copy missed nothing" others_saw_it_all
check "killed, it leaves versions, and no log" killed
note "$(jq -c 'select(.event == "version") | [.version, .kind, .pages, .pause, .time]' rows)"
finish
