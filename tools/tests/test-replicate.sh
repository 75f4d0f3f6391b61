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
checksum=$OUT/tests/checksum
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
			${there:-}; do
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

is_an_epoch()
{
	n=$(epoch)
	[ "$n" != 0 ] || return 1
	want=$(checksum_of "$n")
	got=$("$checksum" dst/ram)
	[ "$got" = "$want" ]
}

# The slot is the last epoch, nobody being there to change it; when a commit that had begun
# has ended.
slot_is_an_epoch()
{
	local n want='' got=''

	until_true is_an_epoch && return
	echo "epoch $n: the slot's checksum is $got, not $want"
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

failover()
{
	"$cmd" failover "$@" "$(uri)"
}

# The primary is dead: nothing but the guest there.
takes_over()
{
	failover --force && grep -q "memory is what the primary sent" dst.log && guest_is there
}

start()
{
	start_secondary -- && start_primary && replicate "$@" && replicated_to 2
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
		[ "$(jq -s 'map(select(.event == "end"))[0] |
			.epochs == 5 and .pause_min <= .pause_median and
			.pause_median <= .pause_p99 and .pause_p99 == .pause_max' out)" = true ] &&
		[ "$(jq -s 'map(select(.event == "epoch") |
			(.phases | add) - .pause | fabs < 0.0001) | all' out)" = true ] &&
		guest_is here && slot_is_an_epoch
}

case_interrupted()
{
	start || return 1
	kill -INT "$tool"
	ends 130 && guest_is here && slot_is_an_epoch && [ "$(status .attached)" = false ]
}

# A link on which there is always an epoch under way, and a guest that writes little enough
# for pages that were lost to stay lost.
slow_primary()
{
	start_primary --rate 1000 "$@" && replicate --max-bandwidth 6M
}

# What an epoch had that did not get there is sent with the next, and not all of memory.
case_reconnect()
{
	local before i

	# However long an epoch takes, it is of few pages.
	start_secondary -- && slow_primary --hot 1000 && await "$tool" beyond 2 || return 1
	for ((i = 0; i < 3; i++)); do
		before=$(epoch)
		kill -KILL "$(of_worker nbdkit)"
		await "$tool" beyond "$((before + 2))" || return 1
	done
	kill_quietly "$tool"
	kill_quietly "$src"
	[ "$(jq -s 'map(select(.event == "epoch").pages) | max < 2000' out)" = true ] &&
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

# It ends in an orderly way: the guest goes on, and the secondary knows it.
case_lease_interrupted()
{
	start --lease 2 || return 1
	kill -INT "$tool"
	ends 130 && guest_is here || return 1
	sleep 4
	! failover 2>err && grep -q "which has no lease" err && guest_is here
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

# Too much for the link: the guest is let write less, or epochs take longer.
case_throttle()
{
	start_secondary -- && start_primary --rate 100000 &&
		replicate --max-bandwidth 20M --on-slow throttle --report 0.2 --interval 100 \
			-o +THROTTLE && await "$tool" beyond 12 && await "$tool" is_throttled
}

is_throttled()
{
	[ "$(jq -s 'map(select(.event == "interval" and .throttle)) | length > 0' out)" = true ]
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
async def client(r, w):
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

start_cutter()
{
	rm -f cut cut.new
	python3 "$top/cutter" cut nbd 2>/dev/null &
	cutter=$!
	await "$cutter" [ -S cut ]
}

# The secondary has come to rest: its server is there, and nothing goes on.
is_settled()
{
	status '.phase == "replica"'
}

start_all()
{
	clean_up
	out_of_others
	start_secondary -- && start_cutter && begin_primary && await "$tool" beyond 1
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

# One kill: everything is started again when it is not there to go on.
kill_one()
{
	local victim=$1 before

	before=$(epoch)
	await "$tool" beyond "$before" || { echo "it does not go on"; return 1; }
	sleep "0.0$((RANDOM % 90 + 10))"
	case $victim in
	tool)		kill_quietly "$tool" ;;
	primary-qemu)	kill_quietly "$src" ;;
	nbdkit)		kill -KILL "$(of_worker nbdkit)" ;;
	worker)		kill -KILL "$(worker)" ;;
	supervisor)	there=$(worker)
			kill_quietly "$dst" ;;
	secondary-qemu)	kill -KILL "$(of_worker standin-qemu)" ;;
	connection)	kill_quietly "$cutter" ;;
	esac
	# So that nothing more gets there until it was looked at.
	kill -STOP "$tool" 2>/dev/null || :
	until_true is_settled >/dev/null || { echo "it does not settle"; return 1; }
	slot_is_an_epoch || return 1
	kill -CONT "$tool" 2>/dev/null || :
	case $victim in
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
				slot_is_an_epoch && takes_over && start_all
			fi ;;
	esac
}

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
	slot_is_an_epoch && takes_over
}

cases=(
	failover small_buffer count interrupted reconnect refused taken_over lease
	lease_interrupted lease_qemu_killed lease_tool_killed automatic fence "fails_there load error"
	"fails_there cont error" "fails_there cont die" throttle tcp_tls
)
for ((n = 0; n < 4; n++)); do
	cases+=("killed $((kills / 4)) $((seed + n))")
done
[ $# = 0 ] || cases=("$@")

run_cases 4 out err src.log dst.log
