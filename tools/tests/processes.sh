# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Processes that a test has started, and what it waits for. Sourced by tests.
#
# Whatever is waited for comes soon, or never; on a machine that is busy, or stands still for
# a while, not so soon.
patience=120

# until_true COMMAND...
until_true()
{
	local end=$((SECONDS + patience))

	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || { echo "never: $*"; return 1; }
		sleep 0.02
	done
}

alive()
{
	kill -0 "$1" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" != Z ]
}

# await PROCESS COMMAND...: until the command succeeds. False if the process ends before.
await()
{
	local process=$1 end=$((SECONDS + patience))

	shift
	until "$@"; do
		if ! alive "$process"; then
			# It may have been the last that it did.
			"$@"
			return
		fi
		[ "$SECONDS" -lt "$end" ] || { echo "never: $*"; return 1; }
		sleep 0.02
	done
}

# ends STATUS: the process $tool does, with it.
ends()
{
	local got=0

	# shellcheck disable=SC2154 # of who sources this
	wait "$tool" 2>/dev/null || got=$?
	[ "$got" = "$1" ] || { echo "status $got, not $1"; return 1; }
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

# listens PATH: somebody listens there, and does not only have the name yet.
listens()
{
	awk -v path="$1" '$4 == "00010000" && $8 == path { found = 1 } END { exit !found }' \
		/proc/net/unix
}

# free_port: one of TCP.
free_port()
{
	python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# locks FILE: the processes that have it locked, a line each. Nobody is kept from
# it by looking.
locks()
{
	local major minor inode

	# Other files may have the number, elsewhere.
	read -r major minor inode < <(stat -c "%Hd %Ld %i" "$1" 2>/dev/null) || return 0
	sed -n "s/.*FLOCK .* \\([0-9]*\\) $(printf "%02x:%02x:%d" "$major" "$minor" "$inode") .*/\\1/p" \
		/proc/locks
}
