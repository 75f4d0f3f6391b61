# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# A slot of the stand-in for the module (standin.c), which nobody writes to but the test, and
# a command at work on it. Sourced by tests, of whom $cmd is, after cases.sh.

# shellcheck source=tools/tests/processes.sh
. "$SRC/tests/processes.sh"

# new_slot: memory of 4096 pages with data.
new_slot()
{
	mkdir slots
	export DIRTYTRACK_STANDIN=$PWD/slots
	ram=$PWD/slots/ram
	yes data | head -c 16M >"$ram"
	truncate -s 512 "$ram.dirty"
	: >"$ram.limit"
}

# dirty WORD HEX: declares 64 pages, lowest bit first page.
dirty()
{
	local i bytes=

	for ((i = 14; i >= 0; i -= 2)); do
		bytes+="\\x${2:i:2}"
	done
	printf '%b' "$bytes" | dd of="$ram.dirty" bs=8 seek="$1" conv=notrunc status=none
}

# start_tool ARGUMENT...: the command in the background, where it can be interrupted.
start_tool()
{
	env --default-signal=INT "$cmd" "$@" >out 2>err &
	tool=$!
}

# lines NUMBER: it has printed as many, or more.
lines()
{
	[ "$(wc -l <out)" -ge "$1" ]
}
