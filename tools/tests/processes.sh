# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Processes that a test has started, on a stand-in for the module (standin.c) or not, and what
# it waits for. Sourced by tests, after cases.sh; a command that is tested is $tool.
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

is_gone()
{
	! alive "$1"
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

# ends STATUS [OTHER]: the command does, with it. OTHER is how it ends where a guest, or it
# itself, does not run in time.
ends()
{
	local got=0

	# shellcheck disable=SC2154 # of who sources this
	wait "$tool" 2>/dev/null || got=$?
	[ "$got" != "${2:-none}" ] || exit "$again"
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

# ---- on the stand-in ----

# logs_of SLOT: the files of those logs of a slot that are the command's.
logs_of()
{
	local n

	for n in 0 1 2 3; do
		! locks "$1.dirty$n" | grep -qx "$tool" || echo "$1.dirty$n"
	done
}

# has_logs SLOT NUMBER: so many are, and have all that is declared from now on.
has_logs()
{
	[ "$(logs_of "$1" | wc -l)" = "$2" ]
}

# all_dirty SLOT FIRST LAST: those pages are, in each of them.
all_dirty()
{
	# shellcheck disable=SC2046 # files
	python3 - "$2" "$3" "$1.dirty" $(logs_of "$1") <<-'END'
	import sys
	first, last = int(sys.argv[1]), int(sys.argv[2])
	# In this order: it moves from the first to all others.
	declared, *logs = [open(f, "rb").read() for f in sys.argv[3:]]
	sys.exit(not all((declared[p // 8] | log[p // 8]) >> p % 8 & 1
	                 for log in logs for p in range(first, last + 1)))
	END
}

# hold PASSES: the command goes on until it has done so many over the memory. held PASS: it
# waits before that one, for more to be allowed, or for "go_on".
hold()
{
	export DIRTYTRACK_STANDIN_HOLD=$PWD/hold
	echo "$1" >hold
}

held()
{
	[ -e "hold.$1" ]
}

go_on()
{
	rm -f hold
}
