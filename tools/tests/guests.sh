# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Processes and stand-ins for QEMU (standin-qemu.c), whose guests hold a lock while they
# run. Sourced by tests.

# await PROCESS COMMAND...: until the command succeeds. False if the process ends before,
# or in a minute.
await()
{
	local process=$1 end=$((SECONDS + 60))

	shift
	until "$@"; do
		alive "$process" && [ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# ends STATUS: the command does, with it.
ends()
{
	local got=0

	# shellcheck disable=SC2154 # of who sources this
	wait "$tool" 2>/dev/null || got=$?
	[ "$got" = "$1" ] || { echo "status $got, not $1"; return 1; }
}

alive()
{
	kill -0 "$1" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" != Z ]
}

# child_of PROCESS NAME: its children of that name.
child_of()
{
	local pid

	# shellcheck disable=SC2013 # words
	for pid in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || echo "$pid"
	done
}

# How many guests have the lock, and what they last did.
last_word()
{
	grep -E ": (runs|stands) at" "$1" | tail -1 | awk '{ print $3 }'
}

# shellcheck disable=SC2120 # there may be several
# locked [LOCK]: is it? Nobody is kept from it by looking.
locked()
{
	local major minor inode

	# Other files may have the number, elsewhere.
	read -r major minor inode < <(stat -c "%Hd %Ld %i" "${1:-lock}" 2>/dev/null) || return 1
	grep -q "FLOCK .* $(printf "%02x:%02x:%d" "$major" "$minor" "$inode") " /proc/locks
}
