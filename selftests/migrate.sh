#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A guest that works, a stock Debian kernel under an unmodified QEMU with KVM, is moved
# to another one and back, over a Unix socket and over TCP with TLS.  It checks its own
# memory, see tools/demo/workload.c; its console shows whether a tick was lost.
#
# HOPS says how often, 4 unless given, 20 with DIRTYTRACK_FULL. ACCEL is kvm unless
# given. "make -C tools check-qemu" runs it without a module, all but the tracking being
# real; see tools/tests/standin.c.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

export DIRTYTRACK=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
built=${OUTPUT:-$here/../build/selftests}
export GUEST=${GUEST:-$here/../build/demo}
hops=${HOPS:-$([ -n "${DIRTYTRACK_FULL:-}" ] && echo 20 || echo 4)}

export RAM_MIB=160
pages=$((RAM_MIB * 256))
export WORKLOAD="24 2000"

accel=${ACCEL:-kvm}
cpu=max
if [ "$accel" = kvm ]; then
	cpu=host
	[ -e /dev/kvm ] || modprobe -q kvm-amd || modprobe -q kvm-intel || :
	[ -e /dev/kvm ] || skip_all "there is no /dev/kvm"
fi
[ -n "${DIRTYTRACK_STANDIN:-}" ] || [ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
for file in "$DIRTYTRACK" "$built/qmp"; do
	[ -x "$file" ] || bail_out "there is no $file: build tools and selftests first"
done
command -v nbdkit >/dev/null || bail_out "nbdkit is not installed"
[ -s "$GUEST/vmlinux" ] || bail_out "there is no guest in $GUEST: run tools/demo/build-guest"

dir=$(mktemp -d)
cd "$dir"
# The guest's process, and that of the one it came from.
vm= old=
clean_up()
{
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

# field N of the guest's last tick: 2 is its number, 8 bad pages
tick()
{
	{ console | grep '^tick .* bad [0-9]*$' || echo "tick 0 pages 0 checked 0 bad 0"; } |
		tail -n 1 | cut -d ' ' -f "$1"
}

has_ticked()
{
	kill -0 "$vm" && [ "$(tick 2)" -ge "$1" ]
}

is_well()
{
	[ "$("$built/qmp" "vm$hop/qmp2" query-status | grep -c '"running": true')" = 1 ] &&
		wait_for 60 has_ticked $(($(tick 2) + 2)) && [ "$(tick 8)" = 0 ]
}

no_tick_is_lost()
{
	console | grep '^tick .* bad [0-9]*$' | awk '$2 != NR { exit 1 }'
}

# machine N SLOT: the command line of the machine, Nth of its kind, on SLOT.
machine()
{
	local ram=${RAM_MIB}M

	qemu=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -nodefaults -display none
		-no-reboot -machine pc,memory-backend=ram -m "$ram"
		-object "memory-backend-file,id=ram,share=on,size=$ram,mem-path={$2}"
		-kernel "$GUEST/vmlinux" -initrd "$GUEST/initrd.gz"
		-append "console=ttyS0 panic=-1 quiet -- $WORKLOAD"
		-serial "file:vm$1/console"
		-qmp "unix:vm$1/qmp,server=on,wait=off"
		-qmp "unix:vm$1/qmp2,server=on,wait=off")
}

receiver()
{
	machine "$1" "ram$1"
	exec "$DIRTYTRACK" receive --slot "ram$1=${RAM_MIB}M" --timeout 60 \
		${PLUGIN:+--plugin "$PLUGIN"} "${@:2}" -- "${qemu[@]}" -incoming defer
}

is_waiting()
{
	kill -0 "$new" && grep -qs "waiting for a guest" "receive$hop.out"
}

# moves URI RECEIVE_OPTION...: to the next QEMU.
moves()
{
	local uri=$1 from=vm$hop name=ram$hop status=0

	shift
	[ "$hop" -gt 0 ] || name=ram
	hop=$((hop + 1))
	mkdir "vm$hop"
	receiver "$hop" "$@" >"receive$hop.out" 2>&1 &
	new=$!
	old=$vm
	wait_for 60 is_waiting || { kill "$new"; return 1; }
	within 150 "$DIRTYTRACK" migrate --qmp "$from/qmp" --answer 60 --verify \
		--downtime 2000 "$name=ram$hop" "$uri" >migrate.out 2>&1 || status=$?
	[ "$status" = 0 ] || { cat migrate.out "receive$hop.out"; return 1; }
	vm=$new
	grep -q "^identical: $pages pages" migrate.out && wait_for 20 eval "! kill -0 $old 2>/dev/null"
}

hop=0
printf 'user:%064d\n' 7 >psk
plan $((2 + 2 * hops + 3))

mkdir vm0
machine 0 ram
"$DIRTYTRACK" run --slot "ram=${RAM_MIB}M" -- "${qemu[@]}" >vm.out 2>&1 &
vm=$!
check "an unmodified QEMU boots a Debian kernel in a slot" wait_for 120 has_ticked 2
[ "$ktap_failed" = 0 ] || bail_out "no guest: $(cat vm.out; console | tail -n 5)"

refused()
{
	! within 60 "$DIRTYTRACK" migrate --qmp vm0/qmp "nbd+unix:///?socket=$dir/none" \
		2>refused.out && is_well
}
check "without a receiver it stays and is well" refused

for ((i = 1; i <= hops; i++)); do
	if ((i % 2)); then
		check "hop $i: by a Unix socket, memory identical" moves \
			"nbd+unix:///?socket=$dir/socket" --listen "unix:$dir/socket"
	else
		check "hop $i: by TCP with TLS, memory identical" moves \
			"nbds://user@127.0.0.1:10809/?tls-psk-file=$dir/psk" \
			--listen 127.0.0.1:10809 --tls-psk "$dir/psk"
	fi
	note "$(grep -E '^(downtime|identical)' migrate.out | paste -s -d ' ')"
	[ "$ktap_failed" = 0 ] || { note "$(cat migrate.out "receive$hop.out")"; break; }
	check "hop $i: the guest is well" is_well
done

check "no tick was lost on the way" no_tick_is_lost
check "no page was bad" [ "$(tick 8)" = 0 ]
one_slot_left()
{
	# The stand-in's slots are files, and stay.
	[ -n "${DIRTYTRACK_STANDIN:-}" ] ||
		[ "$("$DIRTYTRACK" list --noheadings --output LOGS | tr -d ' ')" = 0 ]
}
check "one slot is left, and nothing tracks it" one_slot_left

note "$(cat migrate.out)"
note "$(console | tail -n 1)"
finish
