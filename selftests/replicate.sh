#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A guest that works, a stock Debian kernel under an unmodified QEMU with KVM, is replicated
# to a secondary, epoch by epoch, with somebody killed on the way, and with others writing to
# the secondary's slot; then its QEMU is killed, and it goes on at the secondary. It checks
# its own memory, see tools/demo/workload.c.
#
# INTERVAL is that of the epochs, in milliseconds. ACCEL is kvm unless given.
# "make -C tools check-qemu" runs it without a module, all but the tracking being real; see
# tools/tests/standin.c.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"
# shellcheck source=selftests/guest.sh
. "$here/guest.sh"

export DIRTYTRACK=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
export GUEST=${GUEST:-$here/../build/demo}
epochs=10
[ -z "${DIRTYTRACK_FULL:-}" ] || epochs=50
interval=${INTERVAL:-200}
ram_mib=96

accel=${ACCEL:-kvm}
cpu=max
if [ "$accel" = kvm ]; then
	cpu=host
	need_kvm
fi
[ -n "${DIRTYTRACK_STANDIN:-}" ] || [ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -x "$DIRTYTRACK" ] || bail_out "there is no $DIRTYTRACK: build tools first"
for program in nbdkit jq; do
	command -v "$program" >/dev/null || bail_out "$program is not installed"
done
[ -s "$GUEST/vmlinux" ] || bail_out "there is no guest in $GUEST: run tools/demo/build-guest"

dir=$(mktemp -d)
cd "$dir"
target="nbd+unix:///?socket=$dir/socket"
vm='' tool='' secondary=''
clean_up()
{
	local pid

	# The secondary ends what it has started, a guest that runs there, too.
	for pid in $tool $vm $secondary; do
		kill "$pid" 2>/dev/null || :
	done
	wait 2>/dev/null || :
	rm -rf "$dir"
}
trap clean_up EXIT

# machine NAME: the command line of one, both being of one kind.
machine()
{
	qemu=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -nodefaults -display none
		-no-reboot -machine "pc,memory-backend=ram" -m "${ram_mib}M"
		-object "memory-backend-file,id=ram,share=on,size=${ram_mib}M,mem-path={$1}"
		-kernel "$GUEST/vmlinux" -initrd "$GUEST/initrd.gz"
		-append "console=ttyS0 panic=-1 quiet -- 24 1000"
		-serial "file:$1.console")
}

# tick NAME FIELD: of its guest's last.
tick()
{
	cat "$1.console" 2>/dev/null | last_tick "$2"
}

has_ticked()
{
	[ "$(tick "$1" 2)" -ge "$2" ]
}

# It works, and finds its memory as it left it.
is_well()
{
	wait_for has_ticked "$1" $(($(tick "$1" 2) + 2)) && [ "$(tick "$1" 8)" = 0 ] && return
	note "$(tail -n 2 "$1.console")"
	return 1
}

options=(--qmp qmp --interval "$interval" --answer 60 --checksum)

epoch_is_beyond()
{
	local n

	n=$("$DIRTYTRACK" failover --dry-run --json "$target" | jq .epoch) && [ "$n" -gt "$1" ]
}

plan 9

machine here
starts()
{
	"$DIRTYTRACK" run --slot "here=${ram_mib}M" -- "${qemu[@]}" \
		-qmp "unix:qmp,server=on,wait=off" >vm.out 2>&1 &
	vm=$!
}
check "an unmodified QEMU boots a Debian kernel in a slot" begins here.console starts
[ "$ktap_failed" = 0 ] || bail_out "no guest: $(cat vm.out; tail -n 5 here.console)"

machine there
"$DIRTYTRACK" secondary --undo --slot "there=${ram_mib}M" --timeout 60 --listen "unix:$dir/socket" \
	${REPLICA_PLUGIN:+--plugin "$REPLICA_PLUGIN"} -- "${qemu[@]}" -incoming defer \
	>secondary.out 2>&1 &
secondary=$!

waits()
{
	"$DIRTYTRACK" failover --dry-run "$target" >/dev/null 2>&1
}
check "a secondary waits for epochs" wait_for waits
[ "$ktap_failed" = 0 ] || bail_out "$(cat secondary.out)"

slot_there()
{
	local fd

	for fd in /proc/"$secondary"/fd/*; do
		case $(readlink "$fd") in
		*/there | */dirtytrack:there)	echo "$fd"; return ;;
		esac
	done
	return 1
}

# Others write there: a page in 16 of what the kernel and its data are in, and a hole.
scribble()
{
	local slot page

	slot=$(slot_there) || return 1
	for ((page = RANDOM % 16 + 4096; page < 8192; page += 16)); do
		echo "who writes here?" | dd of="$slot" bs=4k seek="$page" conv=notrunc \
			status=none || return 1
	done
	fallocate --punch-hole --offset 24M --length 64K "$slot"
}

undone()
{
	"$DIRTYTRACK" failover --dry-run --json "$target" | jq .undone
}

replicated()
{
	within "$DIRTYTRACK" replicate "${options[@]}" --count "$epochs" here=there "$target" >replicate.out 2>&1 &&
		grep -q "^$epochs epochs" replicate.out && return
	note "$(cat replicate.out secondary.out)"
	return 1
}
check "$epochs epochs get there" replicated
note "$(tail -n 2 replicate.out)"
check "the guest is well" is_well here

# The checksum of memory, at the failover, tells whether it was all undone.
undone_there()
{
	local before

	before=$(undone)
	scribble && within "$DIRTYTRACK" replicate "${options[@]}" --count 2 here=there \
		"$target" >replicate.out 2>&1 && [ "$(undone)" -ge $((before + 256)) ] && return
	note "$before, $(undone) pages; $(cat replicate.out secondary.out)"
	return 1
}
check "what others write there is undone by the next epoch" undone_there

# Another one of them goes on from the last epoch.
nbdkit_killed()
{
	local pid

	"$DIRTYTRACK" replicate "${options[@]}" --lease 10 here=there "$target" >replicate.out 2>&1 &
	tool=$!
	wait_for epoch_is_beyond $((epochs + 4)) || return 1
	pid=$(pgrep -f "^nbdkit .*slot=there:") && kill -KILL "$pid" &&
		wait_for epoch_is_beyond $((epochs + 8)) && return
	note "$(cat replicate.out secondary.out)"
	return 1
}
check "its nbdkit is killed, and epochs go on" nbdkit_killed

goes_on_there()
{
	"$DIRTYTRACK" failover "$target" >failover.out 2>&1
}

# Neither is asked. The lease is over after 10 seconds, a tenth of it and one more.
went_on_there()
{
	kill -KILL "$tool" "$vm"
	wait "$tool" "$vm" 2>/dev/null || :
	tool='' vm=''
	scribble || return 1
	wait_for goes_on_there &&
		grep -q "pages that others had written were restored" secondary.out &&
		grep -q "memory is what the primary sent" secondary.out && return
	note "$(cat failover.out secondary.out)"
	return 1
}
check "all is killed, and after the lease the guest goes on there" went_on_there
note "$(cat failover.out)"

check "there the guest is well" is_well there

# From an epoch, which is not far from where it was.
goes_on_from_an_epoch()
{
	local first

	first=$(tr -d '\r' <there.console | sed -n 's/^tick \([0-9]*\) .*/\1/p' | head -n 1)
	[ "$first" -gt 2 ] && [ "$first" -le $(($(tick here 2) + 1)) ]
}
check "it goes on from an epoch" goes_on_from_an_epoch

finish
