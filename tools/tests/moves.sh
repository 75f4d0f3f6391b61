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

# Answers come, however late; to cases that are about one that does not come, or somebody who
# is gone, it is enough to wait a little: seconds of the receiver, and of the sender.
# shellcheck disable=SC2034 # of who sources this
timeout=60 answer=60 reconnect=60

impatient_there()
{
	# shellcheck disable=SC2034 # likewise
	timeout=3
}

impatient_here()
{
	answer=4 reconnect=4
}

# migrate OPTION...: in the background; to $uri.
uri=
migrate()
{
	DIRTYTRACK_STANDIN=$PWD/src env --default-signal=INT "$cmd" migrate --qmp qmp \
		--answer "$answer" --reconnect "$reconnect" "$@" "${uri:-nbd+unix:///?socket=$PWD/nbd}" >out 2>err &
	tool=$!
}

# Children of the receiver, by their names.
receiver_child()
{
	child_of "$dst" "$1"
}

# kill_victim WHO: in the middle of a move; who was held up or slow then goes on.
kill_victim()
{
	case $1 in
	tool)	kill -KILL "$tool" ;;
	# It has to see that before QEMU goes on.
	int)	kill -INT "$tool" && sleep 1 ;;
	receive) kill -KILL "$dst" ;;
	nbdkit)	kill -KILL "$(receiver_child nbdkit)" ;;
	src)	kill -KILL "$src" ;;
	dst)	kill -KILL "$there" ;;
	esac
	touch go
	go_on
}

# give_up SIGNAL: by the command, when QEMU there has loaded all, and holds the lock of the image.
give_up()
{
	await "$tool" is_slow_at loaded || return 1
	kill -"$1" "$tool"
	# It has to see that before it hears that all is loaded.
	[ "$1" = KILL ] || sleep 1
	touch go
}

# Here, and nothing of it there: neither QEMU nor slot.
guest_here()
{
	alive "$src" && [ "$(last_word src.log)" = runs ] && locked &&
		migrates_all src.log && ! grep -q "runs at" dst.log && ! alive "$dst"
}

guest_there()
{
	[ "$(last_word dst.log)" = runs ] && locked && alive "$there" && migrates_all dst.log &&
		{ ! alive "$src" || [ "$(last_word src.log)" = stands ]; }
}

guest_nowhere()
{
	! alive "$src" && ! locked && ! alive "$dst" && ! grep -q "runs at" dst.log
}

stop_guest()
{
	tell_guest stop
}

# tell_guest COMMAND: by QMP.
tell_guest()
{
	python3 - "$1" <<-'END'
	import json, socket, sys
	s = socket.socket(socket.AF_UNIX)
	s.connect("qmp")
	f = s.makefile("rw")
	f.readline()
	for c in "qmp_capabilities", sys.argv[1]:
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
	end_jobs
}
