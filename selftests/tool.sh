#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The dirtytrack command with the module: slots of a program that writes, asked
# about, watched and copied; and copies that end badly, which must leave the program
# running, tracking off and no image.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/ktap.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
writer=${TOOL_WRITER:-$here/../build/selftests/tool_writer}
npages=3072

[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -x "$dirtytrack" ] || bail_out "there is no $dirtytrack: run make tools"
[ -x "$writer" ] || bail_out "there is no $writer: build the selftests"
command -v jq >/dev/null || bail_out "jq is not installed"

dir=$(mktemp -d)
cd "$dir"
# Everything that is started and not waited for.
pids=()
clean_up()
{
	[ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || :
	wait 2>/dev/null || :
	! mountpoint -q small || umount small
	rm -rf "$dir"
}
trap clean_up EXIT

# start_writer NAME RATE: with a slot of that name.  Sets $pid.
start_writer()
{
	rm -f ready
	"$dirtytrack" run --slot "$1=16M" -- "$writer" "{$1}" $npages "$2" ready &
	pid=$!
	pids+=("$pid")
	wait_for test -e ready
}

# Without a fork: some pauses are shorter than one.
is_stopped()
{
	local line

	read -r line <"/proc/$pid/stat" && [[ $line == *') T '* ]]
}

has_written()
{
	[ "$("$dirtytrack" log vm -i 0.3 -J | jq .dirty)" -gt 0 ]
}

# It is not stopped, and pages become dirty.
writes()
{
	! is_stopped && wait_for has_written || {
		note "the writer does not write"
		return 1
	}
}

logs()
{
	"$dirtytrack" info vm -J | jq .logs
}

no_logs()
{
	[ "$(logs)" = 0 ]
}

# What a failed copy must leave: its log is gone soon, also if somebody looked at it.
nothing_left()
{
	writes && wait_for no_logs && is "what is left" "$(echo image*)" 'image*'
}

exits_with()
{
	local want=$1 got=0

	shift
	"$@" >out 2>err || got=$?
	[ "$got" = "$want" ] || {
		note "status $got, not $want: $*"
		note "$(cat err)"
		return 1
	}
}

# fails STATUS TEXT COMMAND...: with that text on standard error, and no trace.
fails()
{
	local status=$1 text=$2

	shift 2
	exits_with "$status" "$@" && said "$text"
}

said()
{
	grep -qF -- "$1" err || {
		note "'$1' was not said, but: $(cat err)"
		return 1
	}
}

# is WHAT VALUE WANTED
is()
{
	[ "$2" = "$3" ] || {
		note "$1 is '$2', not '$3'"
		return 1
	}
}

# event NAME FILTER FILE: what the filter makes of that event, the last one.
event()
{
	jq -cs "[.[] | select(.event == \"$1\")] | .[-1] | $2" "$3"
}

# A copy that can be interrupted, which what a shell starts with & cannot.
start_copy()
{
	env --default-signal=INT "$dirtytrack" copy vm image "$@" >out 2>err &
	copy=$!
	pids+=("$copy")
}

# Without the shell's own report of a job that was killed.
quietly()
{
	{ "$@"; } 2>/dev/null
}

ends_with()
{
	local got=0

	quietly wait "$copy" || got=$?
	[ "$got" = "$1" ] || {
		note "status $got, not $1: $(cat err)"
		return 1
	}
}

wait_busy()
{
	local end=$((SECONDS + patience))

	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
	done
}

# ---- run ----

run_passes_status()
{
	exits_with 7 "$dirtytrack" run --slot a=1M -- sh -c 'exit 7'
}

run_passes_signal()
{
	exits_with 143 bash -c "'$dirtytrack' run --slot a=1M -- sh -c 'kill -TERM \$\$'; exit \$?"
}

run_is_the_command()
{
	"$dirtytrack" run -s a=1M -s b=8K -- sh -c 'echo $$ $PPID; echo "{a} x{b}y {c}"; cat /proc/$$/comm' >out &
	pids+=($!)
	wait $!
	[ "$(sed -n 1p out)" = "$! $$" ] &&
		grep -qE '^/proc/self/fd/[0-9]+ x/proc/self/fd/[0-9]+y \{c\}$' out
}

# Standard streams that are closed do not become slots.
run_with_closed_streams()
{
	"$dirtytrack" run -s a=1M -- sh -c 'ls -l /proc/self/fd >out 2>err; :' <&- >&- 2>&-
	! grep -E ' [012] -> /dirtytrack' out && grep -q ' -> /dirtytrack:a' out
}

run_explains()
{
	fails 125 "NAME=SIZE is wanted" "$dirtytrack" run --slot a -- true &&
	fails 125 "not a size" "$dirtytrack" run --slot a=big -- true &&
	fails 125 "whole number of pages" "$dirtytrack" run --slot a=5000 -- true &&
	fails 125 "a slot of that name already" "$dirtytrack" run -s vm=1M -- true &&
	fails 125 "other than '/'" "$dirtytrack" run -s a/b=1M -- true &&
	fails 125 "more than the module allows" "$dirtytrack" run -s a=8E -- true &&
	fails 127 "No such file" "$dirtytrack" run -s a=1M -- /nonexistent &&
	fails 126 "Permission denied" "$dirtytrack" run -s a=1M -- /dev/null
}

# ---- list, info ----

list_is_json()
{
	"$dirtytrack" list --json >out &&
	[ "$(jq -r '.slots[] | select(.name == "vm") | .size' out)" = $((16 << 20)) ] &&
	[ "$(jq '.slots[] | select(.name == "vm") | .logs' out)" = 0 ] &&
	"$dirtytrack" list -nr -b -o NAME,SIZE | grep -qx "vm $((16 << 20))" &&
	"$dirtytrack" list --json --output-all | jq -e '.slots[0].faults' >/dev/null
}

info_by_name_id_path()
{
	local id path

	id=$("$dirtytrack" info vm -J | jq .id)
	path=$(echo /proc/"$pid"/fd/*)
	for path in $path; do
		[ "$(readlink "$path")" != /dirtytrack:vm ] || break
	done
	[ "$("$dirtytrack" info "$id" -J | jq -r .name)" = vm ] &&
	[ "$("$dirtytrack" info "$path" -J | jq .id)" = "$id" ] &&
	is holders "$("$dirtytrack" info vm -J | jq -r .pids)" "$pid" &&
	is "holders in the list" "$("$dirtytrack" list -nr -o PIDS)" "$pid" &&
	"$dirtytrack" info -J | jq -e '.max_logs > 0' >/dev/null
}

info_explains()
{
	fails 1 "there is none" "$dirtytrack" info nonesuch &&
	fails 1 "there is none" "$dirtytrack" info 4000000000 &&
	fails 1 "not a slot of dirtytrack" "$dirtytrack" info /dev/null &&
	fails 1 "No such file" "$dirtytrack" info /nonexistent/file
}

# ---- log, rate ----

# Pages written through the file of a slot that nothing else writes.  However slow the
# machine, the logs are there before the writes, and reports go on until they have all.
log_is_exact()
{
	local logs

	rm -f ready
	"$dirtytrack" run -s quiet=4M -- sh -c '
		touch ready
		until [ -e go ]; do sleep 0.05; done
		dd if=/dev/zero of={quiet} bs=4k seek=5 count=3 conv=notrunc status=none
		dd if=/dev/zero of={quiet} bs=4k seek=64 count=1 conv=notrunc status=none
		until [ -e end ]; do sleep 0.05; done' &
	pids+=($!)
	wait_for test -e ready || return 1
	"$dirtytrack" log quiet -i 0.3 -c 100000 -J --peek >ranges &
	logs=($!)
	"$dirtytrack" log quiet -i 0.3 -c 100000 -J --peek --bitmap >words &
	logs+=($!)
	"$dirtytrack" log quiet -i 0.3 -c 100000 -J >parts &
	logs+=($!)
	pids+=("${logs[@]}")
	wait_for three_logs || return 1
	touch go
	wait_for four_pages ranges '.[-1].dirty' &&
		wait_for four_pages words '.[-1].dirty' &&
		wait_for four_pages parts 'map(.dirty) | add' || return 1
	kill "${logs[@]}"
	quietly wait "${logs[@]}" || :
	touch end
	is ranges "$(jq -cs '.[-1].ranges | map([.first, .pages, .state])' ranges)" \
		'[[5,3,"data"],[64,1,"data"]]' &&
	is words "$(jq -cs '.[-1].words | map([.first, .bits])' words)" \
		'[[0,"00000000000000e0"],[64,"0000000000000001"]]' &&
	is "all parts" "$(jq -cs 'map(.ranges) | add | sort_by(.first) | map(.pages) | add' parts)" 4
}

# four_pages FILE FILTER
four_pages()
{
	[ "$(jq -s "$2" "$1")" = 4 ]
}

three_logs()
{
	[ "$("$dirtytrack" info quiet -J | jq .logs)" = 3 ]
}

# Pages that were given back and not collected yet may be reported, too, as holes.
all_set_is_what_is_resident()
{
	local dirty resident

	kill -STOP "$pid"
	wait_busy is_stopped || return 1
	dirty=$("$dirtytrack" log vm --all-set -J |
		jq '[.ranges[] | select(.state == "data") | .pages] | add')
	resident=$("$dirtytrack" info vm -J | jq .resident)
	kill -CONT "$pid"
	is "dirty bytes" "$((dirty * 4096))" "$resident" &&
		[ "$dirty" -gt $((npages / 2)) ]
}

# The writer's rate, less the pages that it writes twice; a slow machine does less, or
# for a while nothing at all.
rate_is_plausible()
{
	wait_for rate_is_measured && "$dirtytrack" rate vm -i 0.2 -c 1 | grep -q 'PAGES/S'
}

rate_is_measured()
{
	local n

	"$dirtytrack" rate vm -i 1 -c 2 --json >out
	[ "$(wc -l <out)" = 2 ] || return 1
	for n in $(jq '."pages_s"' out); do
		[ "$n" -le 2000 ] || {
			note "$n pages/s"
			return 1
		}
	done
	[ "$(jq -s 'map(."pages_s") | max > 50' out)" = true ]
}

# Page by page as they are written, and none that was not; a page may be told twice,
# while its writer still holds it.
follow_is_exact()
{
	local follower lines

	rm -f ready go again end
	"$dirtytrack" run -s quiet=4M -- sh -c '
		touch ready
		until [ -e go ]; do sleep 0.05; done
		dd if=/dev/zero of={quiet} bs=4k seek=5 count=3 conv=notrunc status=none
		dd if=/dev/zero of={quiet} bs=4k seek=64 count=1 conv=notrunc status=none
		until [ -e again ]; do sleep 0.05; done
		dd if=/dev/zero of={quiet} bs=4k seek=6 count=1 conv=notrunc status=none
		until [ -e end ]; do sleep 0.05; done' &
	pids+=($!)
	wait_for test -e ready || return 1
	"$dirtytrack" log quiet --follow --json >followed &
	follower=$!
	pids+=("$follower")
	wait_for one_log || return 1
	touch go
	wait_for follows 0 '[5,6,7,64]' || return 1
	# What was reported is protected again: the next write is told, too.
	sleep 0.5
	lines=$(wc -l <followed)
	touch again
	wait_for follows "$lines" '[6]' || return 1
	kill "$follower"
	quietly wait "$follower" || :
	touch end
	is followed "$(followed_from 0)" '[5,6,7,64]'
}

one_log()
{
	[ "$("$dirtytrack" info quiet -J | jq .logs)" = 1 ]
}

# followed_from LINE: the pages of the lines after that.
followed_from()
{
	jq -cs ".[$1:] | [.[] | range(.first; .first + .pages)] | unique" followed
}

# follows LINE PAGES
follows()
{
	[ "$(followed_from "$1")" = "$2" ]
}

# The ring is too small for the writer, not the log.
follow_overflows()
{
	exits_with 0 "$dirtytrack" log vm --follow --ring 64 --all-set --interval 0.5 --count 4 --json &&
	[ "$(jq -s 'map(.pages) | add' out)" -gt 64 ] &&
	[ "$(jq -cs '[.[] | range(.first; .first + .pages)] | unique | length' out)" -gt \
		$((npages / 2)) ] &&
	[ "$(jq -cs 'map(.first + .pages) | max' out)" -le 4096 ]
}

follow_explains()
{
	fails 1 "a power of two" "$dirtytrack" log vm --follow --ring 100 &&
	fails 1 "a power of two" "$dirtytrack" log vm --follow --ring 32 &&
	is logs "$(logs)" 0
}

# Twice in a row; a machine that stood still has written less.
limit_is_measured()
{
	local n

	"$dirtytrack" rate vm -i 1 -c 3 --limit 200 --output-all --json >out || return 1
	for n in $(jq '."pages_s"' out | tail -n 2); do
		[ "$n" -gt 100 ] && [ "$n" -le 260 ] || {
			note "$n pages/s"
			return 1
		}
	done
}

# While the command is there; a slow machine writes less than that anyway.
limit_holds()
{
	wait_for limit_is_measured || return 1
	is limit "$(jq -s '.[-1].limit' out)" 200 &&
	[ "$(jq -s 'map(.throttles) | add' out)" -gt 0 ] &&
	[ "$("$dirtytrack" info vm -J | jq '.throttled > 0')" = true ] &&
	is "the limit afterwards" "$("$dirtytrack" info vm -J | jq .limit)" null &&
	writes
}

info_of_the_module()
{
	"$dirtytrack" info --json >out &&
	is features "$(jq -r .features out)" ring,limit,release &&
	is "the largest ring" "$(jq .max_ring out)" \
		"$(cat /sys/module/dirtytrack/parameters/max_ring_entries)"
}

# ---- copy ----

copy_of_busy_writer()
{
	exits_with 0 "$dirtytrack" copy vm image --pid "$pid" --verify --json &&
	is verified "$(event verified '[.pages, .different]' out)" '[4096,0]' &&
	is resumed "$(event resumed '.paused > 0' out)" true &&
	is "the last round" "$(event round '[.round > 1, .paused]' out)" '[true,true]' &&
	is "size and mode" "$(stat -c '%s %a' image)" "$((16 << 20)) 600" &&
	is "sparse enough" "$(($(stat -c %b image) < npages * 8 + 1000))" 1 &&
	[ ! -e image.partial ] && writes && is logs "$(logs)" 0 && rm image
}

copy_prints_rounds()
{
	exits_with 0 "$dirtytrack" copy vm image --pid "$pid" --verify &&
	grep -q '^ROUND .*PAUSED$' out && grep -qx 'identical: 4096 pages' out &&
	grep -q '^paused: [0-9]* ms$' out && rm image
}

# Without the command's own verify.
copy_equals_memory()
{
	local path status=0

	kill -STOP "$pid"
	wait_busy is_stopped || return 1
	for path in /proc/"$pid"/fd/*; do
		[ "$(readlink "$path")" != /dirtytrack:vm ] || break
	done
	exits_with 0 "$dirtytrack" copy vm image --no-pause && cmp image "$path" ||
		status=1
	kill -CONT "$pid"
	rm -f image
	return $status
}

copy_by_commands()
{
	exits_with 0 "$dirtytrack" copy vm image --verify \
		--pause-cmd "kill -STOP $pid; sleep 0.3; touch paused" \
		--resume-cmd "kill -CONT $pid; touch resumed" &&
	[ -e paused ] && [ -e resumed ] && writes && rm image paused resumed
}

copy_wants_a_pause()
{
	fails 2 "how is the guest paused?" "$dirtytrack" copy vm image &&
	fails 2 "only one of" "$dirtytrack" copy vm image --no-pause --pid "$pid" &&
	fails 2 "no use without the other" "$dirtytrack" copy vm image --pause-cmd true &&
	nothing_left
}

# A copy of one round, where the writer must have written meanwhile: else, once more.
pause_too_long()
{
	local try status

	for try in {1..10}; do
		status=0
		"$dirtytrack" copy vm image --pid "$pid" --downtime 0 --max-rounds 1 --strict \
			--json >out 2>err || status=$?
		[ "$status" = 0 ] || break
		note "try $try: nothing was written"
		"$@"
	done
	is status "$status" 3 && said "are allowed"
}

strict_downtime()
{
	pause_too_long rm -f image &&
	is "the reason" "$(event rounds_end .reason out)" '"max-rounds"' &&
	is "the failure" "$(event failed .status out)" 3 && nothing_left
}

is_at_or_over()
{
	"$@" || ! kill -0 "$copy" 2>/dev/null
}

# cut_short SIGNAL CONDITION... -- OPTION...: a copy, by the signal, when the condition
# holds. One that was faster is made once more.
cut_short()
{
	local signal=$1 condition=() try status
	shift

	while [ "$1" != -- ]; do condition+=("$1"); shift; done
	shift
	for try in {1..10}; do
		start_copy "$@"
		wait_busy is_at_or_over "${condition[@]}" || return 1
		kill "-$signal" "$copy" 2>/dev/null || :
		status=0
		quietly wait "$copy" || status=$?
		[ "$status" = 0 ] || break
		note "try $try: the copy was faster"
		rm -f image
	done
	is status "$status" $((128 + $(kill -l "$signal")))
}

interrupted_first_round()
{
	cut_short INT test -e image.partial -- --pid "$pid" --json && ! grep -q '"round"' out && nothing_left
}

interrupted_later_round()
{
	cut_short TERM grep -qs '"event": "round"' out -- \
		--pid "$pid" --json --downtime 0 --max-rounds 100000 && ! grep -q '"event": "end"' out && nothing_left
}

interrupted_pause()
{
	start_copy --pause-cmd "kill -STOP $pid; kill -INT \$PPID; sleep 0.5" \
		--resume-cmd "kill -CONT $pid"
	ends_with 130 && nothing_left
}

interrupted_verify()
{
	cut_short HUP is_stopped -- --pid "$pid" --verify && nothing_left
}

is_running()
{
	! is_stopped
}

# Nothing can be undone by who is killed so, but the guest runs again, the log is
# gone, and what is left of the image does not look whole and is not in the way.
killed_while_paused()
{
	cut_short KILL is_stopped -- --pid "$pid" --verify || return 1
	wait_for is_running && writes && wait_for no_logs && [ ! -e image ] &&
	exits_with 0 "$dirtytrack" copy vm image --pid "$pid" --verify &&
	[ ! -e image.partial ] && rm image
}

disk_full()
{
	mkdir -p small
	mount -t tmpfs -o size=4m none small
	fails 1 "No space left on device" "$dirtytrack" copy vm small/image --pid "$pid" &&
	[ -z "$(ls small)" ] && nothing_left
}

file_too_large()
{
	fails 1 "File too large" bash -c "ulimit -f 1024; exec '$dirtytrack' copy vm image --pid $pid" &&
	nothing_left
}

old_image()
{
	echo old >image
}

old_image_stays()
{
	old_image
	pause_too_long old_image &&
	[ "$(cat image)" = old ] && rm image
}

no_such_process()
{
	fails 1 "No such process" "$dirtytrack" copy vm image --pid 4194303 && nothing_left
}

# The paused process is not the one that has the slot: what counts is that it is
# gone when it is to be paused.
guest_dies()
{
	local other

	sleep 1000 &
	other=$!
	start_copy --pid "$other" --json
	wait_busy test -e image.partial
	kill -KILL "$other"
	quietly wait "$other" || :
	ends_with 1 && said "it has ended" &&
	is "the failure" "$(event failed .status out)" 1 && nothing_left
}

# A QEMU without a machine still is a QEMU at the other end of the socket.
start_qemu()
{
	rm -f qmp
	qemu-system-x86_64 -machine none -nodefaults -display none \
		-qmp unix:qmp,server=on,wait=off &
	qemu=$!
	pids+=("$qemu")
	wait_for test -S qmp
}

copy_by_qmp()
{
	start_qemu &&
	exits_with 0 "$dirtytrack" copy vm image --qmp qmp --timeout 30 &&
	grep -q '^paused: [0-9]* ms$' out && rm image
}

qemu_dies()
{
	start_copy --qmp qmp
	wait_busy test -e image.partial
	kill -KILL "$qemu"
	quietly wait "$qemu" || :
	ends_with 1 && said "closed the connection" && nothing_left
}

# ---- permissions, end ----

other_user()
{
	setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"
}

others_see_nothing()
{
	local id

	id=$("$dirtytrack" info vm -J | jq .id)
	cp "$dirtytrack" command
	chmod 755 . command
	[ "$(other_user ./command list --json | jq '.slots | length')" = 0 ] &&
	fails 1 "another user's" other_user ./command info "$id" &&
	fails 1 "there is none" other_user ./command info vm
}

device_closed_to_others()
{
	local status=0

	chmod 600 /dev/dirtytrack
	fails 1 "/dev/dirtytrack: Permission denied" other_user ./command list || status=1
	chmod 666 /dev/dirtytrack
	return $status
}

no_slots()
{
	[ "$("$dirtytrack" list --json | jq '.slots | length')" = 0 ]
}

slot_ends_with_its_users()
{
	kill -KILL "$pid"
	quietly wait "$pid" || :
	wait_for no_slots && [ -z "$("$dirtytrack" list)" ]
}

plan 40
check "run: exit status of the command" run_passes_status
check "run: signal of the command" run_passes_signal
check "run: the command takes its place and finds its slots" run_is_the_command
check "run: closed standard streams" run_with_closed_streams
check "a writer with a slot starts" start_writer vm 2000
check "run: messages" run_explains
check "list: JSON, columns" list_is_json
check "info: by name, id and path" info_by_name_id_path
check "info: messages" info_explains
check "log: exactly the pages written, as ranges and bitmap" log_is_exact
check "log: all-set is what is resident" all_set_is_what_is_resident
check "log: follows a ring" follow_is_exact
check "log: follows a ring that is too small" follow_overflows
check "log: messages about rings" follow_explains
check "rate: what the writer does" rate_is_plausible
check "rate: a limit" limit_holds
check "info: rings and limits" info_of_the_module
check "copy: of a busy writer, verified" copy_of_busy_writer
check "copy: table and summary" copy_prints_rounds
check "copy: image equals memory" copy_equals_memory
check "copy: pause by commands" copy_by_commands
check "copy: refuses without a way to pause" copy_wants_a_pause
check "copy: strict downtime" strict_downtime
check "copy: an old image survives a failure" old_image_stays
check "copy: interrupted in the first round" interrupted_first_round
check "copy: interrupted while pausing" interrupted_pause
check "copy: interrupted while verifying" interrupted_verify
check "copy: killed while the guest is paused" killed_while_paused
check "copy: disk full" disk_full
check "copy: file size limit" file_too_large
check "copy: no such process" no_such_process
check "copy: the paused process dies" guest_dies
check "copy: pause by QMP" copy_by_qmp
check "copy: QEMU dies" qemu_dies
check "list, info: another user" others_see_nothing
check "list: a device that may not be opened" device_closed_to_others
check "a slot ends with its users" slot_ends_with_its_users
check "a writer without pauses starts" start_writer vm 0
check "copy: interrupted in a later round" interrupted_later_round
check "a slot ends with its users, again" slot_ends_with_its_users
finish
