#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A guest that works, a stock Debian kernel under an unmodified QEMU with KVM, is moved
# to another one and back: over a Unix socket, over TCP with TLS, to a QEMU that waits on
# other slots, and to files and out of them again.  It checks its own memory, see
# tools/demo/workload.c; its console shows whether a tick was lost.
#
# HOPS says how often, 2 unless given, 20 with DIRTYTRACK_FULL, which also has it refuse to
# go, slowed down so that it can, and moved beside a backup and a monitor of the same memory; a
# kernel that checks itself makes fewer. ACCEL is
# kvm unless given. "make -C tools check-qemu" runs it without a module, all but the
# tracking being real; see tools/tests/standin.c.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"
# shellcheck source=selftests/guest.sh
. "$here/guest.sh"

export DIRTYTRACK=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
built=${OUTPUT:-$here/../build/selftests}
export GUEST=${GUEST:-$here/../build/demo}
full=${DIRTYTRACK_FULL:-}
hops=${HOPS:-2}
[ -z "$full" ] || [ -n "${HOPS:-}" ] || hops=$((20 / ${DIRTYTRACK_SLOW:-1}))

# On two slots, which are moved together: what is left of one has no room for the workload.
ram_mib=64
more_mib=32
pages=$(((ram_mib + more_mib) * 256))
workload="24 1000"

accel=${ACCEL:-kvm}
cpu=max
if [ "$accel" = kvm ]; then
	cpu=host
	need_kvm
fi
[ -n "${DIRTYTRACK_STANDIN:-}" ] || [ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
for file in "$DIRTYTRACK" "$built/qmp"; do
	[ -x "$file" ] || bail_out "there is no $file: build tools and selftests first"
done
for program in jq nbdkit qemu-img qemu-nbd; do
	command -v "$program" >/dev/null || bail_out "$program is not installed"
done
[ -s "$GUEST/vmlinux" ] || bail_out "there is no guest in $GUEST: run tools/demo/build-guest"

dir=$(mktemp -d)
cd "$dir"
# The guest's process, and that of the one it came from; what looks at its memory.
vm='' old='' job='' monitor=''
clean_up()
{
	[ -z "$job" ] || kill "$job" 2>/dev/null || :
	[ -z "$monitor" ] || kill "$monitor" 2>/dev/null || :
	[ -z "$old" ] || kill "$old" 2>/dev/null || :
	[ -z "$vm" ] || kill "$vm" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$dir"
}
trap clean_up EXIT

# All that the guest has ever printed, wherever it was.
console()
{
	local i

	for ((i = 0; i <= hop; i++)); do
		[ ! -e "vm$i/console" ] || cat "vm$i/console"
	done | tr -d '\r'
}

tick()
{
	console | last_tick "$1"
}

has_ticked()
{
	kill -0 "$vm" 2>/dev/null && [ "$(tick 2)" -ge "$1" ]
}

# What the guest's processor is at, twice, and what it waits for: a guest that stands still,
# though it runs, has lost a timer or an interrupt, or loops.
autopsy()
{
	local what

	for what in registers registers lapic pic; do
		"$built/qmp" "vm$hop/qmp2" human-monitor-command "{\"command-line\": \"info $what\"}" 2>&1 |
			sed 's/\\r\\n/\n/g' | grep -E 'IP=|HLT=|IRR|ISR|LVTT|Timer|Error|qmp:|irr' || :
		sleep 1
	done
	ps -o pid,stat,etimes,cputimes,args -p "$vm" --ppid "$vm" | cut -c 1-100
}

is_well()
{
	local status before

	status=$("$built/qmp" "vm$hop/qmp2" query-status)
	before=$(tick 2)
	grep -q '"running": true' <<<"$status" && wait_for has_ticked $((before + 2)) &&
		[ "$(tick 8)" = 0 ] && return
	note "$SECONDS s: $status; tick $before, now $(console | tail -n 2)"
	note "$(autopsy)"
	return 1
}

no_tick_is_lost()
{
	console | grep '^tick .* bad [0-9]*$' | awk '$2 != NR { exit 1 }'
}

# machine N: the command line of the Nth machine, all of one kind.
machine()
{
	slots=(--slot "ram$1=${ram_mib}M" --slot "more$1=${more_mib}M")
	qemu=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -nodefaults -display none
		-no-reboot -machine pc -m "$((ram_mib + more_mib))M"
		-object "memory-backend-file,id=ram,share=on,size=${ram_mib}M,mem-path={ram$1}"
		-object "memory-backend-file,id=more,share=on,size=${more_mib}M,mem-path={more$1}"
		-numa node,memdev=ram -numa node,memdev=more
		-kernel "$GUEST/vmlinux" -initrd "$GUEST/initrd.gz"
		-append "console=ttyS0 panic=-1 quiet -- $workload"
		-serial "file:vm$1/console"
		-qmp "unix:vm$1/qmp,server=on,wait=off"
		-qmp "unix:vm$1/qmp2,server=on,wait=off"
		-qmp "unix:vm$1/qmp3,server=on,wait=off")
}

receiver()
{
	machine "$1"
	exec "$DIRTYTRACK" receive "${slots[@]}" --timeout 60 \
		${PLUGIN:+--plugin "$PLUGIN"} "${@:2}" -- "${qemu[@]}" -incoming defer
}

is_waiting()
{
	kill -0 "$new" && grep -qs "waiting for a guest" "$said"
}

has_monitor()
{
	kill -0 "$new" && [ -S "vm$((hop + 1))/qmp" ]
}

# waiting RECEIVE_OPTION...: the next QEMU is.
waiting()
{
	said=receive$((hop + 1)).out
	rm -f "$said"
	mkdir -p "vm$((hop + 1))"
	receiver "$((hop + 1))" "$@" >"$said" 2>&1 &
	new=$!
	wait_for is_waiting || { kill "$new"; return 1; }
}

# migrate STATUS OPTION... URI: there, which ends with that status.
migrate()
{
	local want=$1 status=0

	shift
	within "$DIRTYTRACK" migrate --qmp "vm$hop/qmp" --answer 60 \
		"ram$hop=ram$((hop + 1))" "more$hop=more$((hop + 1))" "$@" >migrate.out 2>&1 ||
		status=$?
	[ "$status" = "$want" ] || note "status $status, not $want: $(cat migrate.out "$said")"
	[ "$status" = "$want" ]
}

# event NAME FILTER: of the last of that name, with --json.
event()
{
	grep '^{' migrate.out | jq -rs "map(select(.event == \"$1\"))[-1] | $2"
}

identical()
{
	grep -q "^identical: $pages pages" migrate.out ||
		[ "$(event verified '"\(.pages) \(.different)"')" = "$pages 0" ]
}

# has_left MIGRATE_OPTION... TARGET: it is there, and its QEMU has ended.
has_left()
{
	migrate 0 --verify "$@" || return 1
	old=$vm
	identical && wait_for eval "! kill -0 $old 2>/dev/null"
}

# is_moved MIGRATE_OPTION... TARGET: to the QEMU that waits.
is_moved()
{
	has_left "$@" || return 1
	vm=$new
	hop=$((hop + 1))
}

hop=0
printf 'user:%064d\n' 7 >psk
plan "$((4 + 2 * hops + (${#full} ? 7 : 0)))"

mkdir vm0
machine 0
starts()
{
	"$DIRTYTRACK" run "${slots[@]}" -- "${qemu[@]}" >vm.out 2>&1 &
	vm=$!
}
check "an unmodified QEMU boots a Debian kernel in a slot" begins vm0/console starts
[ "$ktap_failed" = 0 ] || bail_out "no guest: $(cat vm.out; console | tail -n 5)"

socket="nbd+unix:///?socket=$dir/socket"

without_receiver()
{
	! within "$DIRTYTRACK" migrate --qmp vm0/qmp "nbd+unix:///?socket=$dir/none" \
		2>refused.out && is_well
}

# The other half would be left behind.
half_refused()
{
	local status=0

	waiting --listen "unix:$dir/socket" || return 1
	within "$DIRTYTRACK" migrate --qmp vm0/qmp ram0=ram1 "$socket" 2>refused.out || status=$?
	kill "$new"
	wait "$new" 2>/dev/null || :
	[ "$status" = 1 ] && grep -q "memory more: it is shared and not on one of the slots" refused.out && is_well
}

# It writes as fast as it is copied, or faster.
slow_link=(--max-bandwidth 2M --downtime 500 --strict --json --output +THROTTLE)

rounds()
{
	grep '^{' migrate.out | jq -c 'select(.event == "round") |
		[.round, .pages, .skipped, .left, .throttle]' | paste -s -d ' '
}

does_not_converge()
{
	waiting --listen "unix:$dir/socket" || return 1
	migrate 3 "${slow_link[@]}" "$socket" || return 1
	note "$(rounds)"
	[ "$(event rounds_end .reason)" = no-progress ] &&
		wait_for eval "! kill -0 $new 2>/dev/null" && is_well
}

new_receiver()
{
	rm -rf vm1
	# Slots of the stand-in are files.
	[ -z "${DIRTYTRACK_STANDIN:-}" ] || rm -f "$DIRTYTRACK_STANDIN"/{ram,more}1*
}

if [ -n "$full" ]; then
	check "without a receiver it stays and is well" without_receiver
	check "without half of its memory it stays and is well" half_refused
	new_receiver
	check "a link too slow for it: rounds bring no progress, it stays and is well" does_not_converge
	new_receiver
fi

by_unix_socket()
{
	waiting --listen "unix:$dir/socket" && is_moved --downtime 2000 "$socket"
}

by_tls()
{
	waiting --listen 127.0.0.1:10809 --tls-psk "$dir/psk" &&
		is_moved --downtime 2000 "nbds://user@127.0.0.1:10809/?tls-psk-file=$dir/psk"
}

# A QEMU on this host that nobody looks after.
to_slots()
{
	said=receive$((hop + 1)).out
	mkdir -p "vm$((hop + 1))"
	machine "$((hop + 1))"
	"$DIRTYTRACK" run "${slots[@]}" -- "${qemu[@]}" -incoming defer >"$said" 2>&1 &
	new=$!
	wait_for has_monitor || { kill "$new"; return 1; }
	is_moved --downtime 2000 --to-qmp "vm$((hop + 1))/qmp" slot:
}

runs_again()
{
	kill -0 "$new" && grep -qs "the guest runs here" "$said"
}

# Nobody has it meanwhile.
by_files()
{
	rm -rf saved
	mkdir saved
	said=receive$((hop + 1)).out
	: >"$said"
	has_left --downtime 2000 saved || return 1
	mkdir -p "vm$((hop + 1))"
	machine "$((hop + 1))"
	"$DIRTYTRACK" receive "${slots[@]}" --timeout 60 --from saved -- "${qemu[@]}" \
		-incoming defer >"$said" 2>&1 &
	new=$!
	wait_for runs_again || { kill "$new"; return 1; }
	vm=$new
	hop=$((hop + 1))
	rm -r saved
}

# moves NAME COMMAND...: it does, and is well there.
moves()
{
	check "$1: memory identical" "${@:2}"
	note "$(grep -E '^(downtime|identical)' migrate.out | paste -s -d ' ')"
	[ "$ktap_failed" = 0 ] || bail_out "$(cat migrate.out "$said")"
	check "$1: the guest is well" is_well
}

for ((i = 1; i <= hops; i++)); do
	case $((i % 4)) in
	1)	moves "hop $i, by a Unix socket" by_unix_socket ;;
	2)	moves "hop $i, by TCP with TLS" by_tls ;;
	3)	moves "hop $i, to other slots" to_slots ;;
	0)	moves "hop $i, to files and from there" by_files ;;
	esac
done

# The stand-in has no limit for who does not ask for it.
slowed_down()
{
	waiting --listen "unix:$dir/socket" &&
		is_moved "${slow_link[@]}" --throttle auto "$socket" || return 1
	note "$(rounds)"
	[ "$(event rounds_end .reason)" = fits ] && was_throttled
}

# More with each step, if there were several.
was_throttled()
{
	[ "$(grep '^{' migrate.out | jq -s 'map(select(.event == "round").throttle // empty) |
		length > 0 and . == (sort | reverse)')" = true ]
}

has_version()
{
	kill -0 "$job" && [ -e "versions/more$hop.$1.qcow2" ]
}

# By a monitor of its own; the guest stands still for one at a time. When its QEMU is gone
# there is nothing to make versions of.
beside_others()
{
	local from=$hop

	mkdir versions
	"$DIRTYTRACK" backup "ram$hop" "more$hop" versions --incremental --interval 1 --retries 1 \
		--qmp "vm$hop/qmp3" --timeout 60 >backup.out 2>&1 &
	job=$!
	"$DIRTYTRACK" rate "ram$hop" --interval 1 --count 1000000 --json >rates 2>&1 &
	monitor=$!
	wait_for has_version 1 || { note "$(cat backup.out)"; return 1; }
	waiting --listen "unix:$dir/socket" && is_moved --downtime 2000 "$socket" &&
		wait_for eval "! kill -0 $job 2>/dev/null" && kill "$monitor" || return 1
	wait "$monitor" 2>/dev/null || :
	job='' monitor=''
	[ "$(jq -s 'map(.dirty) | add > 100' rates)" = true ] && versions_are_readable "$from" ||
		{ note "$(cat backup.out)"; return 1; }
}

# versions_are_readable N: of the Nth machine, with all that they are based on.
versions_are_readable()
{
	local file mib

	[ -z "$(find versions -name '*.partial')" ] || return 1
	for file in versions/*.qcow2; do
		case $file in
		versions/ram"$1".*) mib=$ram_mib ;;
		*) mib=$more_mib ;;
		esac
		qemu-img check -q "$file" && qemu-img convert -O raw "$file" image &&
			[ "$(stat -c %s image)" = $((mib << 20)) ] || return 1
	done
	# The guest's kernel is in it, and not only zeroes.
	qemu-img convert -O raw "versions/ram$1.0.qcow2" image && grep -qa "Linux version" image
}
if [ -n "$full" ]; then
	moves "by a link too slow for it, the guest slowed down" slowed_down
	moves "beside a backup and a monitor" beside_others
fi

check "no tick was lost on the way" no_tick_is_lost
check "no page was bad" [ "$(tick 8)" = 0 ]
two_slots_left()
{
	# The stand-in's slots are files, and stay.
	[ -n "${DIRTYTRACK_STANDIN:-}" ] ||
		[ "$("$DIRTYTRACK" list --noheadings --output LOGS | tr -d ' \n')" = 00 ]
}
check "its two slots are left, and nothing tracks them" two_slots_left

note "$(cat migrate.out)"
note "$(console | tail -n 1)"
finish
