# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# dirtytrack migrate with stand-ins (guests.sh), and where the guest is then: $src is the
# QEMU that it comes from, whose words are in src.log; $dst what it goes to, with dst.log, and
# $there the QEMU of that. Sourced by tests.

cmd=$OUT/tests/dirtytrack-standin
# shellcheck disable=SC2034 # of who sources this
qemu=$OUT/tests/standin-qemu
src='' dst='' there='' tool=''

# migrate OPTION...: in the background; to $uri.
uri=
migrate()
{
	DIRTYTRACK_STANDIN=$PWD/src env --default-signal=INT "$cmd" migrate --qmp qmp \
		--answer 4 "$@" "${uri:-nbd+unix:///?socket=$PWD/nbd}" >out 2>err &
	tool=$!
}

# Children of the receiver, by their names.
receiver_child()
{
	child_of "$dst" "$1"
}

# guest_is WHERE ARGUMENT...: it gets there, and stays there.
guest_is()
{
	local is=guest_$1 i

	shift
	# What is being killed, or given up, takes its time.
	for ((i = 0; i < 300; i++)); do
		"$is" "$@" && break
		sleep 0.1
	done
	"$is" "$@" || { echo "not $is"; return 1; }
	sleep 0.2
	"$is" "$@" || { echo "it does not stay $is"; return 1; }
	! grep -E "TWO GUESTS|not what it was" src.log dst.log
}

# Here, and nothing of it there: neither QEMU nor slot.
guest_here()
{
	alive "$src" && [ "$(last_word src.log)" = runs ] && locked &&
		! grep -q "runs at" dst.log && ! alive "$dst"
}

guest_there()
{
	[ "$(last_word dst.log)" = runs ] && locked && alive "$there" &&
		{ ! alive "$src" || [ "$(last_word src.log)" = stands ]; }
}

guest_nowhere()
{
	! alive "$src" && ! locked && ! alive "$dst" && ! grep -q "runs at" dst.log
}

stop_guest()
{
	python3 - <<-'END'
	import json, socket
	s = socket.socket(socket.AF_UNIX)
	s.connect("qmp")
	f = s.makefile("rw")
	f.readline()
	for c in "qmp_capabilities", "stop":
	    f.write(json.dumps({"execute": c}) + "\n")
	    f.flush()
	    f.readline()
	END
}

# What an event of the command says: EVENT FILTER.
event()
{
	jq -rs "map(select(.event == \"$1\"))[-1] | $2" out
}

is_slow_at()
{
	grep -qs "at $1" src.log dst.log err
}

clean_up()
{
	local pid

	for pid in "${src:-}" "${dst:-}" "${tool:-}" "${there:-}"; do
		[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || :
	done
	wait
}
