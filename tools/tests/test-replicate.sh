#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack replicate, secondary and failover, on a stand-in for the module, with stand-ins
# for QEMU whose guests check themselves. Whoever is killed, the secondary's slot is an
# epoch, byte for byte by the checksum that the primary noted before it was sent, and a
# guest that is let run there finds its memory as it left it.
#
# usage: [KILLS=N] [SEED=N] test-replicate.sh [NAME...]
set -eu
# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/guests.sh
. "$SRC/tests/guests.sh"

cmd=$OUT/tests/dirtytrack-standin
qemu=$OUT/tests/standin-qemu
plugin=$OUT/nbdkit-dirtytrack-replica-plugin.so
# On the stand-in, too: it harvests.
undo_plugin=$OUT/tests/nbdkit-dirtytrack-replica-plugin.so
checksum=$OUT/tests/checksum
scribble=$OUT/tests/scribble
top=$(mktemp -d /dev/shm/test-replicate.XXXXXX)
trap 'rm -rf "$top"' EXIT

# How often somebody is killed, in all cases together, and where from the moments follow.
kills=${KILLS:-16}
seed=${SEED:-$(($(date +%s) % 100000))}

# ---- processes ----

# As if there were two hosts, with another lock.
lock_there=lock

start_primary()
{
	rm -rf src qmp
	mkdir src
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run --slot ram=16M -- "$qemu" --ram '{ram}' \
		--qmp qmp --lock lock "$@" 2>>src.log &
	src=$!
	await "$src" [ -S qmp ]
}

# start_secondary OPTIONS -- QEMU_OPTIONS
start_secondary()
{
	local options=()

	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	rm -rf dst nbd
	mkdir dst
	: >dst.log
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" secondary --slot ram=16M --plugin "$plugin" \
		--timeout 60 --listen "unix:$PWD/nbd" "${options[@]}" -- \
		"$qemu" --ram '{ram}' --lock "$lock_there" -incoming defer "$@" 2>>dst.log &
	dst=$!
	await "$dst" grep -q "waiting for epochs" dst.log && await "$dst" status .phase
}

uri()
{
	echo "nbd+unix:///?socket=$PWD/${1:-nbd}"
}

# replicate OPTION...: in the background.
replicate()
{
	DIRTYTRACK_STANDIN=$PWD/src env --default-signal=INT "$cmd" replicate --qmp qmp \
		--answer 60 --interval 20 --checksum --json "$@" \
		"$(uri "${via:-nbd}")" >>out 2>>err &
	tool=$!
}
via=
dst=

# Without a signal's message from the shell.
kill_quietly()
{
	kill -KILL "$1" 2>/dev/null || :
	wait "$1" 2>/dev/null || :
}

worker()
{
	[ -z "$dst" ] || child_of "$dst" dirtytrack-stan
}

of_worker()
{
	local pid

	pid=$(worker)
	[ -z "$pid" ] || child_of "$pid" "$1"
}

clean_up()
{
	local pid

	# The one first that would start others.
	for pid in ${dst:-} $(worker) $(of_worker standin-qemu) ${tool:-} ${src:-} ${cutter:-} \
			${there:-} ${others:-}; do
		kill -KILL "$pid" 2>/dev/null || :
	done
	end_jobs
}

# ---- what is to be ----

# status FILTER: what the secondary says of itself. False when it does not.
status()
{
	local said

	said=$("$cmd" failover --dry-run --json --timeout 60 "$(uri)" 2>/dev/null) &&
		jq -er "$1" <<<"$said"
}

epoch()
{
	status .epoch || echo 0
}

# There is an epoch after that one.
beyond()
{
	[ "$(epoch)" -gt "$1" ]
}

# replicated_to EPOCH: one after that gets there. If the primary was not let run for so long
# that its lease ended, it was taken over instead.
replicated_to()
{
	await "$tool" beyond "$1" && return
	alive "$tool" || ends 0 6
	return 1
}

# Of what was said of the epoch, the last counts: an earlier one never got there.
checksum_of()
{
	jq -rs --argjson n "$1" \
		'map(select(.event == "sent" and .epoch == $n))[-1].checksum' out
}

# The last that the primary knows to be there.
acknowledged()
{
	jq -s 'map(select(.event == "epoch").epoch) | max // 0' out
}

is_an_epoch()
{
	known=$(acknowledged)
	n=$(epoch)
	[ "$n" != 0 ] && [ "$n" -ge "$known" ] || return 1
	want=$(checksum_of "$n")
	got=$("$checksum" dst/ram)
	[ "$got" = "$want" ]
}

# The slot is the last epoch, nobody being there to change it; when a commit that had begun
# has ended.
slot_is_an_epoch()
{
	local n want='' got='' known=

	until_true is_an_epoch && return
	echo "epoch $n, $known was acknowledged: the slot's checksum is $got, not $want"
	return 1
}

guest_there()
{
	[ "$(last_word dst.log)" = runs ] && locked "$lock_there" && [ "$(status .phase)" = running ]
}

guest_here()
{
	alive "$src" && [ "$(last_word src.log)" = runs ] && locked &&
		! grep -q "runs at" dst.log
}

# How often it was let run.
runs()
{
	grep -c "runs at" src.log
}

# It stands still for a moment in each epoch, and may be seen in none but these.
guest_goes_on()
{
	local before end=$((SECONDS + patience))

	before=$(runs)
	while [ "$SECONDS" -lt "$end" ]; do
		! guest_here || return 0
		[ "$(runs)" = "$before" ] || { alive "$src" && ! grep -q "runs at" dst.log; return; }
		sleep 0.01
	done
	return 1
}

guest_stands()
{
	[ "$(last_word src.log)" = stands ] && ! locked
}

# For longer than in an epoch.
guest_stays_fenced()
{
	guest_stands && sleep 0.5 && guest_stands
}

failover()
{
	"$cmd" failover "$@" "$(uri)"
}

# The primary is dead: nothing but the guest there.
takes_over()
{
	[ -z "${others:-}" ] || others_stand || return 1
	failover --force && grep -q "memory is what the primary sent" dst.log && guest_is there &&
		migrates_all dst.log && [ "$(epoch)" -ge "$(acknowledged)" ]
}

# ---- others write to the slot there ----

start_others()
{
	: >others.log
	"$scribble" dst/ram "$1" >others.log &
	others=$!
}

others_stand()
{
	kill -USR1 "$others"
	await "$others" is_last_line stands others.log
}

others_go_on()
{
	kill -USR2 "$others"
	await "$others" is_last_line "goes on" others.log
}

is_last_line()
{
	[ "$(tail -n 1 "$2")" = "$1" ]
}

# Between two writes.
end_others()
{
	kill -TERM "$others"
	wait "$others"
	others=
}

# The others standing still, the next commit undoes what they wrote before.
undone_by_next()
{
	if ! others_stand || ! await "$tool" beyond "$(($(epoch) + 1))"; then
		echo "it does not go on after others wrote"
		return 1
	fi
	kill -STOP "$tool"
	settle && slot_is_an_epoch || return 1
	kill -CONT "$tool"
}

# Nobody has a log of the slot there.
is_not_logged()
{
	flock --nonblock dst/ram.dirty0 true
}

start()
{
	start_secondary -- && start_primary && replicate "$@" && replicated_to 2
}

# A primary without a guest, who does what he is told to: by lines from standard input, each of
# which is answered by one. The first word is of which connection; it is made when it is named.
cat >"$top/talk" <<'END'
import socket, struct, sys
CONTROL, SIZE = b".control", 328
def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise OSError("gone")
        data += more
    return data
class Connection:
    def __init__(self, path):
        self.s = s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        receive(s, 18)
        s.sendall(struct.pack(">I", 3))
        s.sendall(b"IHAVEOPT" + struct.pack(">III", 7, len(CONTROL) + 6, len(CONTROL)) + CONTROL + b"\0\0")
        kind = 3
        while kind == 3:
            _, _, kind, n = struct.unpack(">QIII", receive(s, 20))
            receive(s, n)
        assert kind == 1
    def request(self, kind, data=b"", n=0):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 7, 0, len(data) or n) + data)
        _, error, _ = struct.unpack(">IIQ", receive(self.s, 16))
        return error, receive(self.s, n) if n and not error else b""
    def status(self):
        _, data = self.request(0, n=SIZE)
        return struct.unpack_from("<QII16sQQI", data), data[56:312].split(b"\0")[0].decode()
    def command(self, verb, session, epoch=0, lease=0):
        return self.request(1, struct.pack("<QII16sQQQII", 0x4143494c504552, 1, verb, session,
                                           epoch, 0, 0, lease, 0))[0]
connections, session = {}, bytes(16)
for line in sys.stdin:
    who, what, *args = line.split()
    try:
        c = connections.setdefault(who, None) or Connection(sys.argv[1])
        connections[who] = c
        if what == "attach":
            said = c.command(1, session, lease=int(args[0]))
        elif what == "session":
            session = c.status()[0][3]
            said = session.hex()
        elif what == "forget":
            session, said = bytes(16), 0
        elif what == "commit":
            said = c.command(2, session, epoch=int(args[0]))
        elif what == "detach":
            said = c.command(3, session)
        elif what == "flush":
            said = c.request(3)[0]
        elif what == "phase":
            said = c.status()[0][2]
        elif what == "message":
            said = c.status()[1]
        elif what == "close":
            c.s.close()
            del connections[who]
            said = 0
    except OSError as e:
        connections[who] = None
        said = "lost"
    print(said, flush=True)
END

start_talking()
{
	coproc TALK { exec python3 "$top/talk" nbd; }
}

# says ANSWER WORD...
says()
{
	local want=$1 got=
	shift

	echo "$*" >&"${TALK[1]}" && read -r got <&"${TALK[0]}" && is "$*" "$got" "$want"
}

# tells WORD...: the answer
tells()
{
	local got

	echo "$*" >&"${TALK[1]}" && read -r got <&"${TALK[0]}" && echo "$got"
}

# attached LEASE: by one who has committed an epoch.
attached()
{
	start_secondary "${@:2}" -- && start_talking && says 0 a attach "$1" &&
		tells a session >/dev/null && says 0 a commit 1 && says 0 a flush
}

# ---- cases ----

case_failover()
{
	start || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	slot_is_an_epoch && takes_over || return 1
	! failover 2>err && grep -q "already" err
}

# A guest that writes a lot, by a buffer that holds little of it.
# The guest that it has let run ends with it, and nothing is left.
case_ended()
{
	start && kill_quietly "$src" && ends 5 6
	failover --force && guest_is there || return 1
	kill -TERM "$dst"
	until_true is_gone "$dst" && ! locked
}

case_small_buffer()
{
	start_secondary -- && start_primary --rate 100000 &&
		replicate --buffer 256K --threads 3 && await "$tool" beyond 3 || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	slot_is_an_epoch && takes_over || return 1
	[ "$(jq -s 'map(select(.event == "epoch").in_pause) | add > 0' out)" = true ] ||
		return "$again"
}

# The number that was asked for, and then the guest goes on.
case_count()
{
	start_secondary -- && start_primary && replicate --count 5 && ends 0 || return 1
	[ "$(jq -s 'map(select(.event == "epoch").epoch) == [1, 2, 3, 4, 5]' out)" = true ] &&
		[ "$(jq -s 'map(select(.event == "end"))[0].data >
			(map(select(.event == "epoch").data) | add) + 2000' out)" = true ] &&
		[ "$(jq -s 'map(select(.event == "end"))[0] |
			.epochs == 5 and .pause_min <= .pause_median and
			.pause_median <= .pause_p99 and .pause_p99 == .pause_max' out)" = true ] &&
		[ "$(jq -s 'map(select(.event == "epoch") |
			(.phases | add) - .pause | fabs < 0.0001) | all' out)" = true ] &&
		guest_is here && slot_is_an_epoch && migrates_all src.log
}

case_interrupted()
{
	start || return 1
	kill -INT "$tool"
	ends 130 && guest_is here && slot_is_an_epoch && [ "$(status .attached)" = false ] &&
		migrates_all src.log
}

# A link on which there is always an epoch under way, and a guest that writes little enough
# for pages that were lost to stay lost.
slow_primary()
{
	start_primary --rate 1000 "$@" && replicate --max-bandwidth 6M
}

# synchronised TIMES
synchronised()
{
	[ "$(grep -c '"event": "synchronised"' out)" -ge "$1" ]
}

# What an epoch had that did not get there is sent with the next, and not all of memory.
case_reconnect()
{
	local i

	# However long an epoch takes, it is of few pages.
	start_secondary -- && slow_primary --hot 200 && await "$tool" beyond 2 || return 1
	for ((i = 0; i < 3; i++)); do
		kill -KILL "$(of_worker nbdkit)"
		await "$tool" synchronised "$((i + 2))" && await "$tool" beyond "$(($(epoch) + 2))" ||
			return 1
	done
	kill_quietly "$tool"
	kill_quietly "$src"
	[ "$(jq -s 'map(select(.event == "epoch").pages) | max < 2000' out)" = true ] &&
		[ "$(jq -s 'map(select(.event == "synchronised").pages) |
			length > 3 and .[0] > 3000 and (.[1:] | max < 2000)' out)" = true ] &&
		slot_is_an_epoch && takes_over || return 1
	# Something was under way.
	[ "$(jq -s 'map(.event) | index("lost") != null' out)" = true ] || return "$again"
}

# Without a lease, and without force, nobody knows whether the guest runs there.
case_refused()
{
	local got=0

	start_secondary -- && start_primary || return 1
	failover 2>err || got=$?
	[ "$got" = 1 ] && grep -q "no epoch yet" err || return 1
	replicate && await "$tool" beyond 2 || return 1
	got=0
	failover 2>err || got=$?
	[ "$got" = 1 ] && grep -q "which has no lease" err && guest_is goes_on
}

# The primary lives and is told by the secondary that the guest is there.
case_taken_over()
{
	lock_there=lock2
	start && failover --force || return 1
	ends 6 && [ "$(last_word src.log)" = stands ] && guest_is there
}

# Whoever comes back by his number has it for ever, whether he had an answer or not: nobody
# else has sent anything.
case_session()
{
	local first

	attached 0 || return 1
	first=$(tells a session)
	says 0 b attach 0 && says "$first" b session && says 22 a commit 2 &&
		says 0 b commit 2 && says 0 b flush || return 1
	# Of somebody else it is another.
	says 0 b detach && says 0 c forget && says 0 c attach 0 || return 1
	! says "$first" c session >/dev/null
}

# Who is not the one any more must not believe that an epoch of his is there.
case_flush_refused()
{
	attached 0 && says 0 b attach 0 && says 22 a flush && says 0 b flush && says 22 c flush
}

# What is wrong with it is said.
case_commit_refused()
{
	attached 0 && says 0 a commit 3 && says 22 a flush &&
		says "epoch 3: it is not the one after epoch 1" a message &&
		says 0 a commit 2 && says 0 a flush
}

# However long it takes to be refused, the primary has its answers meanwhile.
case_refused_late()
{
	local ours

	start --lease 2 || return 1
	ours=$(worker)
	kill -STOP "$ours"
	failover 2>err2 &
	sleep 3
	alive "$!" && "$cmd" failover --dry-run --timeout 10 "$(uri)" >said && guest_is goes_on ||
		return 1
	kill -CONT "$ours"
	! wait "$!" && grep -q "whose lease has not ended" err2 &&
		! grep -q '"event": "fenced"' out
}

# One who is connected and silent is in the way of another, but not for longer.
case_silence()
{
	attached 0 --silence "$1" && says 0 b forget && sleep 1.5 && says "$2" b attach 0
}

# A name that has another meaning for the server, or none.
case_bad_name()
{
	local name got

	mkdir dst
	for name in a:b .state .control; do
		got=0
		DIRTYTRACK_STANDIN=$PWD/dst timeout 20 "$cmd" secondary --slot "$name=16M" --plugin "$plugin" \
			--listen "unix:$PWD/nbd" -- "$qemu" --ram "{$name}" -incoming defer 2>err || got=$?
		[ "$got" = 125 ] && grep -qF "slot $name: a secondary's cannot have that name" err ||
			return 1
	done
}

# A QEMU that hangs is in the way of no epoch, and of no server.
case_qemu_hangs()
{
	start_secondary -- --fail qmp_capabilities:hang && start_primary && replicate &&
		await "$tool" beyond 2 && grep -q "at qmp_capabilities" dst.log || return 1
	kill -KILL "$(of_worker nbdkit)"
	await "$tool" beyond "$(($(epoch) + 1))" && ! grep -q "none waits" dst.log
}

# One that does not start any more: the epochs stay, and there is one when it does.
case_qemu_fails()
{
	local real=$qemu n

	mkdir bin
	qemu=$PWD/bin/standin-qemu
	ln -s "$real" "$qemu"
	start || return 1
	ln -sf /bin/false "$qemu"
	n=$(epoch)
	kill -KILL "$(worker)"
	await "$dst" grep -q "none waits now" dst.log && await "$tool" beyond "$((n + 1))" ||
		return 1
	ln -sf "$real" "$qemu"
	kill_quietly "$tool"
	kill_quietly "$src"
	slot_is_an_epoch && takes_over
}

# Before there is an epoch there is nothing to wait for.
case_qemu_wrong()
{
	local got=0

	mkdir dst
	DIRTYTRACK_STANDIN=$PWD/dst timeout 60 "$cmd" secondary --slot ram=16M --plugin "$plugin" \
		--listen "unix:$PWD/nbd" -- /bin/false 2>err || got=$?
	is status "$got" 125
}

# Nobody answers, and nobody says so: it is lost all the same, and comes back.
case_silent()
{
	local pid

	# Mostly pages are being sent, which wait for no more than the connection.
	start_secondary -- && start_primary && replicate --answer 5 --max-bandwidth 6M &&
		await "$tool" beyond 1 || return 1
	pid=$(of_worker nbdkit)
	kill -STOP "$pid"
	await "$tool" grep -q '"event": "lost"' out || return 1
	kill -CONT "$pid"
	await "$tool" beyond "$(epoch)" && guest_is goes_on
}

# All connections end when the first of those to a slot is made: it is tried again.
case_lost_early()
{
	start_secondary -- && start_primary && start_cutter 3 || return 1
	via="cut"
	replicate && await "$tool" beyond 2 && grep -q '"event": "lost"' out
}

# Its guest stands still when the secondary is silent, and goes on when it is not.
case_lease()
{
	local pid

	start --lease 2 || return 1
	failover 2>err && return "$again"
	grep -q "whose lease has not ended" err || return 1
	pid=$(of_worker nbdkit)
	kill -STOP "$pid"
	# Not by the pause of an epoch.
	await "$tool" grep -q '"event": "fenced"' out && guest_is stands || return 1
	kill -CONT "$pid"
	guest_is goes_on
}

# What it says finds no reader: the guest stands still first.
case_lease_stuck_output()
{
	start_secondary -- && start_primary && mkfifo said || return 1
	# A reader who reads nothing, and is no one else's.
	exec 8<>said
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" replicate --qmp qmp --answer 60 --interval 20 \
		--lease 2 "$(uri)" >out 2>said 8>&- &
	tool=$!
	await "$tool" beyond 2 || return 1
	timeout 2 head -c 1M /dev/zero >said || :
	kill -STOP "$(of_worker nbdkit)"
	until_true guest_stays_fenced
}

# QEMU does not stop it in time, and does it when nobody waits any more: it is not resumed.
case_lease_slow_stop()
{
	touch go
	start_secondary -- && start_primary --fail stop:slow &&
		replicate --lease 2 --answer 3 && replicated_to 2 || return 1
	rm go
	kill -KILL "$(worker)"
	kill_quietly "$dst"
	ends 5 && grep -q "could not be stopped" err || return 1
	touch go
	guest_is stands
}

# The lease ends in an epoch's pause, and by the time it is known that it is not needed any
# more nothing goes on but the end of the command: the guest runs.
case_lease_interrupted_in_pause()
{
	start_secondary -- && start_primary --save 1500000 && replicate --lease 1 &&
		await "$tool" beyond 0 || return 1
	until_true stood 2
	kill -INT "$tool"
	ends 130 || return 1
	grep -q '"event": "fenced"' out || return "$again"
	guest_is here
}

stood()
{
	[ "$(grep -c "stands at" src.log)" -ge "$1" ]
}

# It ends in an orderly way: the guest goes on, and the secondary knows it.
case_lease_interrupted()
{
	start --lease 2 || return 1
	kill -INT "$tool"
	ends 130 && guest_is here || return 1
	sleep 4
	! failover 2>err && grep -q "which has no lease" err && guest_is here
}

# Until its server is dead the secondary may be heard of: who was answered goes on.
case_lease_heard_last()
{
	export DIRTYTRACK_STANDIN_KILL=$PWD/hold
	attached 1000 || return 1
	sleep 2.5
	touch hold
	failover 2>err &
	await "$!" [ -e hold.held ] && says 2 a phase && rm hold || return 1
	! wait "$!" && grep -q "heard of again" err && [ "$(status .phase)" = replica ] || return 1
	# He is back, and gone in the end.
	says lost a phase
	says 0 a attach 1000 && tells a session >/dev/null && says 0 a commit 2 && says 0 a flush || return 1
	sleep 2.5
	failover 2>err
	! grep -q "lease" err
}

# It was certain when it was decided, also for the worker that goes on with it.
case_forced_goes_on()
{
	export DIRTYTRACK_STANDIN_KILL=$PWD/hold
	start_secondary --fence "touch fenced; false" -- && start_primary && replicate &&
		await "$tool" beyond 2 || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	touch hold
	failover --force 2>err &
	await "$!" [ -e hold.held ] || return 1
	kill -KILL "$(worker)"
	rm hold
	wait "$!" && guest_is there && [ ! -e fenced ]
}

# Its QEMU is dead, which is not such an end.
case_lease_qemu_killed()
{
	start_secondary --auto 1 -- && start_primary && replicate --lease 2 &&
		replicated_to 2 || return 1
	kill_quietly "$src"
	ends 5 6 && guest_is there
}

# The one who kept the lease is killed: the guest must not go on without.
case_lease_tool_killed()
{
	start --lease 2 || return 1
	kill_quietly "$tool"
	guest_is stands || return 1
	# The lease is over then, and nobody has to say that it is certain.
	sleep 4
	failover && guest_is there
}

case_automatic()
{
	start_secondary --auto 1 -- && start_primary && replicate --lease 2 &&
		replicated_to 2 || return 1
	kill_quietly "$tool"
	guest_is there && grep -q "nothing was heard of the primary" dst.log
}

# By a command that makes certain of it, as the lock is free when the primary is dead, and by one that fails.
case_fence()
{
	# shellcheck disable=SC2016 # of the command
	start_secondary --fence 'test -e allowed && kill -KILL $(cat primary) && flock lock touch fenced' -- &&
		start_primary && replicate && await "$tool" beyond 2 || return 1
	echo "$src" >primary
	failover 2>err && return 1
	grep -q "the fence command failed" err && guest_is goes_on &&
		await "$tool" beyond "$(epoch)" || return 1
	touch allowed
	failover && [ -e fenced ] && guest_is there
}

# While the command is at work nobody knows how it ends: the guest stands still until then.
case_fence_slow()
{
	local pid

	start_secondary --fence 'touch fencing; sleep 3; false' -- && start_primary && replicate &&
		await "$tool" beyond 2 || return 1
	failover 2>/dev/null &
	pid=$!
	await "$pid" [ -e fencing ] && await "$pid" stands_here || return 1
	wait "$pid" && return 1
	guest_is goes_on && await "$tool" beyond "$(epoch)"
}

stands_here()
{
	grep -q '"event": "fenced"' out && [ "$(last_word src.log)" = stands ]
}

# The QEMU there fails at a command: it can be tried again, and is what it was.
case_fails_there()
{
	start_secondary -- --fail "$1:$2" && start_primary && replicate &&
		await "$tool" beyond 2 || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	failover --force 2>err && return 1
	[ "$(status .phase)" = failed ] && ! grep -q "runs at" dst.log && ! locked
}

# Where one has failed no epochs are taken any more, also when it was not to be tried again.
case_fence_fails_later()
{
	start_secondary --fence 'test ! -e refuse' -- --fail cont:error && start_primary &&
		replicate && await "$tool" beyond 2 || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	failover 2>err && return 1
	touch refuse
	failover 2>err && return 1
	grep -q "the fence command failed" err && is phase "$(status .phase)" failed
}

# Too much for the link: the guest is let write less, or epochs take longer.
case_throttle()
{
	start_secondary -- && start_primary --rate 100000 &&
		replicate --max-bandwidth 20M --on-slow throttle --report 0.2 --interval 100 \
			-o +THROTTLE && await "$tool" beyond 12 && await "$tool" is_throttled &&
		await "$tool" is_limited || return 1
	# By whom it was slow is gone.
	there=$(worker)
	kill_quietly "$dst"
	kill -KILL "$there"
	await "$tool" is_not_limited && alive "$tool"
}

# Pages a second that the guest is held to, 0 when to none.
limit()
{
	local pages

	pages=$(od -An -t u8 src/ram.limit)
	echo "$((pages))"
}

is_limited()
{
	[ "$(limit)" -gt 0 ]
}

is_not_limited()
{
	[ "$(limit)" = 0 ]
}

is_throttled()
{
	[ "$(jq -s 'map(select(.event == "interval" and .throttle)) | length > 0' out)" = true ]
}

# What others write is undone by each commit, and before the guest is let run there.
case_undo()
{
	plugin=$undo_plugin
	start_secondary --undo -- || return 1
	start_others 300
	! is_not_logged && start_primary && replicate && await "$tool" beyond 3 &&
		undone_by_next && [ "$(status .undone)" -gt 0 ] || return 1
	others_go_on
	kill_quietly "$tool"
	kill_quietly "$src"
	await "$others" is_no_epoch || return 1
	end_others
	takes_over && grep -q "pages that others had written were restored" dst.log &&
		await "$dst" is_not_logged
}

is_no_epoch()
{
	! slot_is_an_epoch >/dev/null
}

# Without the option they are not, which is found.
case_not_undone()
{
	start || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	slot_is_an_epoch || return 1
	start_others 300
	await "$others" is_no_epoch || return 1
	end_others
	! failover --force 2>err && grep -q "memory is not what the primary sent" err
}

# Who does not stand still while an epoch is committed keeps it from being one, no more.
case_undo_refused()
{
	plugin=$undo_plugin
	start_secondary --undo -- || return 1
	start_primary && replicate && await "$tool" beyond 2 || return 1
	start_others 3000000
	await "$tool" grep -q "keeps writing to the slots" err || return 1
	others_stand && await "$tool" beyond "$(($(epoch) + 1))" &&
		[ "$(status .late)" -gt 0 ] && guest_is goes_on || return 1
	undone_by_next || return 1
	end_others
	kill_quietly "$tool"
	kill_quietly "$src"
	takes_over
}

# What a QEMU did that failed is undone before the next one has it.
case_undo_tries_again()
{
	plugin=$undo_plugin
	start_secondary --undo -- --fail cont:once && start_primary && replicate &&
		await "$tool" beyond 2 || return 1
	kill_quietly "$tool"
	kill_quietly "$src"
	failover --force 2>err && return 1
	[ "$(status .phase)" = failed ] && slot_is_an_epoch || return 1
	start_others 300
	await "$others" is_no_epoch || return 1
	end_others
	takes_over
}

# is_asked_when_silent PORT: of a connection to there the kernel will ask whether it lives.
is_asked_when_silent()
{
	awk -v port="$(printf "%04X" "$1")" '$3 ~ ":" port "$" && $6 ~ /^02:/ { found = 1 }
		END { exit !found }' /proc/net/tcp
}

# By TCP with TLS, and what is said to people.
case_tcp_tls()
{
	local port via_uri

	port=$(free_port)
	printf 'user:%064d\n' 7 >psk
	rm -rf dst
	mkdir dst
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" secondary --slot ram=16M --plugin "$plugin" \
		--timeout 60 --listen "127.0.0.1:$port" --tls-psk psk -- \
		"$qemu" --ram '{ram}' --lock lock -incoming defer 2>>dst.log &
	dst=$!
	await "$dst" grep -q "waiting for epochs" dst.log && start_primary || return 1
	via_uri="nbds://user@127.0.0.1:$port/?tls-psk-file=$PWD/psk"
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" replicate --qmp qmp --count 5 --interval 20 \
		"$via_uri" >out 2>err &
	tool=$!
	ends 0 && grep -q "^5 epochs" out || return 1
	DIRTYTRACK_STANDIN=$PWD/src env --default-signal=INT "$cmd" replicate --qmp qmp \
		"$via_uri" >out 2>err &
	tool=$!
	await "$tool" is_asked_when_silent "$port" || return 1
	kill -INT "$tool"
	ends 130 || return 1
	kill_quietly "$src"
	"$cmd" failover --force "$via_uri" && [ "$(last_word dst.log)" = runs ]
}

# ---- killed at any moment ----

# Connections go through a process that can be killed.
cat >"$top/cutter" <<'END'
import asyncio, os, sys
async def pump(a, b):
    try:
        while data := await a.read(1 << 16):
            b.write(data)
            await b.drain()
    except OSError:
        pass
    finally:
        b.close()
cut_at = int(sys.argv[3]) if len(sys.argv) > 3 else 0
clients = []
async def client(r, w):
    clients.append(w)
    if len(clients) == cut_at:
        for c in clients:
            c.transport.abort()
        return
    try:
        r2, w2 = await asyncio.open_unix_connection(sys.argv[2])
    except OSError:
        w.close()
        return
    await asyncio.gather(pump(r, w2), pump(r2, w))
async def main():
    # Who sees the name can connect.
    server = await asyncio.start_unix_server(client, sys.argv[1] + ".new")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    await server.serve_forever()
asyncio.run(main())
END

# start_cutter [N]: it cuts all of them, once, when the Nth is made.
start_cutter()
{
	rm -f cut cut.new
	python3 "$top/cutter" cut nbd "$@" 2>/dev/null &
	cutter=$!
	await "$cutter" [ -S cut ]
}

# The secondary has come to rest: its server is there, and nothing goes on.
is_settled()
{
	status '.phase == "replica"'
}

# shellcheck disable=SC2086 # an option, or none
start_all()
{
	clean_up
	out_of_others
	start_secondary $undo -- && start_cutter || return 1
	[ -z "$undo" ] || start_others 300
	begin_primary && await "$tool" beyond 1
}

# Some are slow ones.
begin_primary()
{
	if ((RANDOM % 2)); then
		slow_primary
	else
		start_primary && replicate
	fi
}

# What an earlier secondary was sent says nothing of this one.
out_of_others()
{
	: >out
}

kill_victim()
{
	case $1 in
	tool)		kill_quietly "$tool" ;;
	primary-qemu)	kill_quietly "$src" ;;
	nbdkit)		kill -KILL "$(of_worker nbdkit)" ;;
	worker)		kill -KILL "$(worker)" ;;
	supervisor)	there=$(worker)
			kill_quietly "$dst" ;;
	secondary-qemu)	kill -KILL "$(of_worker standin-qemu)" ;;
	connection)	kill_quietly "$cutter" ;;
	esac
}

# Nothing gets there any more, and a commit that had begun ends.
settle()
{
	until_true is_settled >/dev/null || { echo "it does not settle"; return 1; }
}

# Everything is started again when it is not there to go on.
revive()
{
	case $1 in
	connection)	start_cutter ;;
	tool)		replicate ;;
	primary-qemu)	wait "$tool" 2>/dev/null || :
			if ((RANDOM % 2)); then
				takes_over && start_all
			else
				begin_primary
			fi ;;
	supervisor)	start_all ;;
	*)		if ((RANDOM % 4 == 0)); then
				kill_quietly "$tool"
				kill_quietly "$src"
				checked_slot && takes_over && start_all
			fi ;;
	esac
}

# With others about, it is an epoch only when they stand still and it was restored.
checked_slot()
{
	[ -n "$undo" ] || slot_is_an_epoch
}

kill_one()
{
	local victim=$1

	await "$tool" beyond "$(epoch)" || { echo "it does not go on"; return 1; }
	sleep "0.0$((RANDOM % 90 + 10))"
	kill_victim "$victim"
	if [ -z "$undo" ]; then
		# So that nothing more gets there until it was looked at.
		kill -STOP "$tool" 2>/dev/null || :
		settle && slot_is_an_epoch || return 1
		kill -CONT "$tool" 2>/dev/null || :
	fi
	revive "$victim" || return 1
	# Others had gone on while it was neither the one epoch nor the other.
	[ -z "$undo" ] || { undone_by_next && others_go_on; }
}

# While others write to the slot.
case_killed_beside_others()
{
	plugin=$undo_plugin undo=--undo
	case_killed "$@"
}
undo=

# killed NUMBER SEED
case_killed()
{
	local victims=(tool primary-qemu nbdkit worker supervisor secondary-qemu connection)
	local i victim

	RANDOM=$2 via=cut
	start_all || return 1
	for ((i = 0; i < $1; i++)); do
		victim=${victims[RANDOM % ${#victims[@]}]}
		echo "$i: $victim"
		kill_one "$victim" || { echo "seed $2, kill $i: $victim"; return 1; }
	done
	kill_quietly "$tool"
	kill_quietly "$src"
	checked_slot && takes_over
}

cases=(
	failover ended small_buffer count interrupted reconnect refused taken_over session flush_refused
	commit_refused refused_late bad_name "silence 60 22" "silence 1 0" qemu_hangs qemu_fails qemu_wrong lease
	lease_heard_last forced_goes_on lease_interrupted lease_qemu_killed lease_tool_killed automatic fence "fails_there load error"
	"fails_there cont error" "fails_there cont die" fence_fails_later throttle tcp_tls
	fence_slow lease_stuck_output lease_slow_stop lease_interrupted_in_pause
	silent lost_early
	undo not_undone undo_refused undo_tries_again
)
for ((n = 0; n < 4; n++)); do
	cases+=("killed $((kills / 4)) $((seed + n))")
done
cases+=("killed_beside_others $((kills / 4)) $((seed + n))")
[ $# = 0 ] || cases=("$@")

run_cases 4 out err src.log dst.log
