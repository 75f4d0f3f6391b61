# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# A guest that works and says so on its console, see tools/demo/workload.c. Sourced by the
# tests of guests, after ktap.sh.

# Without KVM there is nothing to be tested.
need_kvm()
{
	[ -e /dev/kvm ] || modprobe -q kvm-amd || modprobe -q kvm-intel || :
	[ -e /dev/kvm ] || skip_all "there is no /dev/kvm"
}

# last_tick FIELD <CONSOLE: of the guest's last tick; 2 is its number, 4 pages written, 8 bad
# ones. A line that is not complete yet is none.
last_tick()
{
	{ tr -d '\r' | grep '^tick .* bad [0-9]*$' || echo "tick 0 pages 0 checked 0 bad 0"; } |
		tail -n 1 | cut -d ' ' -f "$1"
}

# Its process $vm has ended, or it has ticked twice on CONSOLE.
ended_or_ticks()
{
	! kill -0 "$vm" 2>/dev/null ||
		[ "$({ cat "$1" 2>/dev/null || :; } | last_tick 2)" -ge 2 ]
}

# begins CONSOLE COMMAND...: the command starts a guest, whose process is $vm then; does it
# come to work?
begins()
{
	local console=$1
	shift

	"$@"
	wait_for ended_or_ticks "$console" && kill -0 "$vm" 2>/dev/null
}
