#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# An unmodified QEMU with KVM runs a stock Debian kernel in a slot, which is copied
# while the guest works.  The guest checks its own memory, see tools/demo/workload.c.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"
# shellcheck source=selftests/guest.sh
. "$here/guest.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
built=${OUTPUT:-$here/../build/selftests}
demo=$here/../tools/demo
export DIRTYTRACK=$dirtytrack
export GUEST=${GUEST:-$here/../build/demo}

# Enough for the kernel and the workload: all of it is compared, again and again.
export RAM_MIB=160
pages=$((RAM_MIB * 256))

# MiB and pages a second.  A processor writes to guest page tables by looking
# addresses up in them, which is a constant few dozen pages that mostly stay as they
# are; what is to be seen here is whether more than that is reported in vain.
export WORKLOAD="24 2000"

# Of the pages reported, so many percent may be as they were.
in_vain_limit=5

need_kvm
[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
for file in "$dirtytrack" "$built/overreport" "$built/qmp"; do
	[ -x "$file" ] || bail_out "there is no $file: build tools and selftests first"
done
[ -s "$GUEST/vmlinux" ] || bail_out "there is no guest in $GUEST: run tools/demo/build-guest"

dir=$(mktemp -d)
cd "$dir"
vm=
clean_up()
{
	if [ -n "$vm" ]; then
		kill "$vm" 2>/dev/null || :
		wait "$vm" 2>/dev/null || :
	fi
	rm -rf "$dir"
}
trap clean_up EXIT

# ---- the guest ----

tick()
{
	last_tick "$1" <console
}

has_ticked()
{
	kill -0 "$vm" && [ -e console ] && [ "$(tick 2)" -ge "$1" ]
}

starts()
{
	"$demo/start-guest" "$dir" > vm.out 2>&1 &
	vm=$!
}

# It works, and goes on working: one tick more, and no page is bad.
is_well()
{
	[ "$("$built/qmp" qmp2 query-status | grep -c '"running": true')" = 1 ] &&
		wait_for has_ticked $(($(tick 2) + 1)) && [ "$(tick 8)" = 0 ]
}

is_paused()
{
	"$built/qmp" qmp2 query-status | grep -q '"running": false'
}

logs_are()
{
	[ "$("$dirtytrack" list --noheadings --output LOGS | tr -d ' ')" = "$1" ]
}

# ---- copies ----

copies()
{
	within "$dirtytrack" copy --qmp qmp --verify ram image > copy.out 2>&1 &&
		grep -q "^identical: $pages pages" copy.out
}

has_rounds()
{
	[ "$(awk '$1 + 0 > 0 && $2 > 0' copy.out | wc -l)" -ge 2 ]
}

# start_copy: in a job of its own, or the shell would have it ignore SIGINT.
start_copy()
{
	set -m
	"$dirtytrack" copy --qmp qmp --verify ram image.cut > cut.out 2>&1 &
	copy=$!
	set +m
	wait_for logs_are 1
}

# What a shell says of a command that a signal ended.
died_of()
{
	local status=0

	wait "$copy" 2>/dev/null || status=$?
	[ "$status" = $((128 + $1)) ]
}

interrupted()
{
	start_copy && kill -INT "$copy" && died_of 2 && [ ! -e image.cut ]
}

killed()
{
	start_copy && kill -KILL "$copy" && died_of 9
}

# The pause is long: all memory is compared in it.
killed_in_pause()
{
	start_copy && wait_for is_paused && kill -KILL "$copy" && died_of 9
}

# ---- what is reported ----

# reported FILE KEY
reported()
{
	sed -n "s/^$2: //p" "$1"
}

measure()
{
	within "$built/overreport" -i 2000 -n 4 -q qmp ram > still.out 2>&1 &&
		[ "$(reported still.out lost)" = 0 ]
}

# Few harvests where interrupts between processors are slow: the guest is hit by one
# for each run of pages.
measure_racing()
{
	within "$built/overreport" -i 20 -r 25 -n 2 -t 20 -q qmp ram \
		> racing.out 2>&1 &&
		[ "$(reported racing.out lost)" = 0 ] &&
		[ "$(reported racing.out 'harvests while working')" -ge 4 ]
}

little_in_vain()
{
	[ "$(reported still.out reported)" -ge 2000 ] &&
		awk -v share="$(reported still.out 'reported in vain, percent')" \
		    -v limit=$in_vain_limit 'BEGIN { exit !(share < limit) }'
}

plan 14

check "an unmodified QEMU boots a Debian kernel in a slot" begins console starts
[ "$ktap_failed" = 0 ] ||
	bail_out "no guest: $(cat vm.out; tail -n 5 console 2>/dev/null)"

check "no page is lost, guest stopped for each harvest" measure
check "under $in_vain_limit % are reported in vain" little_in_vain
check "no page is lost, guest working under harvests" measure_racing

check "copy --qmp while it works: image and memory are identical" copies
check "the copy took more than one round" has_rounds
check "the guest is well after it" is_well

check "Ctrl-C ends a copy and leaves no image" interrupted
check "the guest is well after it" is_well
check "kill -9 ends a copy" killed
check "tracking ends with it, and the guest is well" eval "wait_for logs_are 0 && is_well"
check "kill -9 ends a copy that has the guest paused" killed_in_pause
check "the guest is resumed, and well" eval "wait_for eval '! is_paused' && is_well"

check "tracking is off at the end" logs_are 0

note "$(cat still.out)"
note "under harvests: $(paste -s -d ';' racing.out)"
note "$(cat copy.out)"
note "$(tr -d '\r' < console | tail -n 1)"
[ "$ktap_failed" = 0 ] || note "$(cat vm.out; tr -d '\r' < console | tail -n 30)"
finish
