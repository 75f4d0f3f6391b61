# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Stand-ins for QEMU (standin-qemu.c), whose guests hold a lock while they run. Sourced by
# tests, which have functions guest_WHERE.

# shellcheck source=tools/tests/processes.sh
. "$SRC/tests/processes.sh"

# What a guest last did, by what its QEMU said: "runs", or "stands".
last_word()
{
	grep -E ": (runs|stands) at" "$1" | tail -1 | awk '{ print $3 }'
}

# Does a QEMU migrate all memory, as any other?  It was told so, if it was told otherwise.
migrates_all()
{
	[ "$(grep -o "x-ignore-shared o.*" "$1" | tail -1)" != "x-ignore-shared on" ]
}

# locked [LOCK]: is it?
# shellcheck disable=SC2120 # there may be several
locked()
{
	[ -n "$(locks "${1:-lock}")" ]
}

# guest_is WHERE ARGUMENT...: soon, as what is being killed, or given up, takes its time; and
# it stays so.
guest_is()
{
	local where=$1

	shift
	until_true "guest_$where" "$@" || { echo "the guest is not $where"; return 1; }
	sleep 0.2
	"guest_$where" "$@" || { echo "the guest does not stay $where"; return 1; }
	! grep -E "TWO GUESTS|not what it was" src.log dst.log
}
