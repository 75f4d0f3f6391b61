#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack copy to NBD servers of all kinds, and to those that misbehave, on a
# stand-in for the module.
set -eu
# shellcheck source=tools/tests/nbd-log.sh
. "$SRC/tests/nbd-log.sh"
# shellcheck source=tools/tests/processes.sh
. "$SRC/tests/processes.sh"

cmd=$OUT/tests/dirtytrack-standin
tmp=$(mktemp -d /dev/shm/test-nbd.XXXXXX)
export DIRTYTRACK_STANDIN=$tmp/slots
ram=$DIRTYTRACK_STANDIN/ram
uri="nbd+unix:///?socket=$tmp/socket"
server=
trap 'stop_server; rm -rf "$tmp"' EXIT
n=0 bad=0

check()
{
	local name=$1

	shift
	n=$((n + 1))
	if "$@" >"$tmp/log" 2>&1; then
		echo "ok $n $name"
	else
		echo "not ok $n $name"
		tail -5 "$tmp/log" | sed 's/^/# /'
		sed 's/^/# /' "$tmp/err" "$tmp/out" 2>/dev/null || :
		bad=$((bad + 1))
	fi
	stop_server
}

# serve COMMAND...: a server in the background, that listens at the socket.
serve()
{
	rm -f "$tmp/socket"
	"$@" 2>"$tmp/server" &
	server=$!
	await "$server" listens "$tmp/socket" || { cat "$tmp/server"; return 1; }
}

nbdkit_serve()
{
	serve nbdkit -f -U "$tmp/socket" "$@"
}

stop_server()
{
	[ -n "$server" ] || return 0
	kill "$server" 2>/dev/null || :
	wait "$server" 2>/dev/null || :
	server=
}

# copies STATUS OPTION...: the slot to the server.
copies()
{
	local want=$1 got=0

	shift
	"$cmd" copy ram "$uri" --no-pause "$@" >"$tmp/out" 2>"$tmp/err" || got=$?
	[ "$got" = "$want" ] || echo "status $got, not $want"
	[ "$got" = "$want" ]
}

said()
{
	grep -qF -- "$1" "$tmp/err" || { echo "not said: $1"; return 1; }
}

# What the server has, read by somebody else.
holds_memory()
{
	nbdcopy --request-size=16384 "$uri" "$tmp/got" && cmp "$tmp/got" "$ram"
}

to_memory()
{
	nbdkit_serve memory 64M && copies 0 --verify && holds_memory &&
		grep -q '^identical: 16384 pages' "$tmp/out"
}

old_content()
{
	nbdkit_serve memory 64M &&
		dd if=/dev/urandom of="$tmp/junk" bs=1M count=64 status=none &&
		nbdcopy "$tmp/junk" "$uri" && copies 0 && holds_memory
}

# each server that can do less than it might.
plain_servers()
{
	local filter

	for filter in nozero noextents nocache "multi-conn multi-conn-mode=disable" \
		"blocksize-policy blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=16384 blocksize-error-policy=error"; do
		# shellcheck disable=SC2086 # name and parameters
		set -- $filter
		nbdkit_serve --filter="$1" memory 64M "${@:2}" && copies 0 --verify &&
			holds_memory || { echo "with $filter"; return 1; }
		stop_server
	done
}

sparse_is_sparse()
{
	rm -f "$tmp/file" && truncate -s 64M "$tmp/file" &&
		nbdkit_serve file "$tmp/file" && copies 0 && cmp "$tmp/file" "$ram" &&
		[ "$(stat -c %b "$tmp/file")" -le "$(stat -c %b "$ram")" ]
}

to_qcow2()
{
	qemu-img create -q -f qcow2 "$tmp/disk" 64M &&
		serve qemu-nbd -f qcow2 -k "$tmp/socket" -t -e 8 "$tmp/disk" &&
		copies 0 && stop_server && qemu-img check -q "$tmp/disk" &&
		qemu-img compare -f raw -F qcow2 "$ram" "$tmp/disk"
}

over_tls()
{
	printf 'user:%064d\n' 7 >"$tmp/psk"
	nbdkit_serve --tls=require --tls-psk="$tmp/psk" memory 64M || return 1
	copies 1 && ! said "cannot write" || return 1
	uri="nbds+unix://user@/?socket=$tmp/socket&tls-psk-file=$tmp/psk"
	copies 0 --verify && holds_memory
}

over_tcp()
{
	local port

	port=$(free_port)
	nbdkit -f -i 127.0.0.1 -p "$port" --tls=off memory 64M 2>"$tmp/server" &
	server=$!
	uri=nbd://127.0.0.1:$port
	await "$server" quietly_succeeds nbdinfo --size "$uri" && copies 0 --verify && holds_memory
}

quietly_succeeds()
{
	"$@" >/dev/null 2>&1
}

to_a_slot()
{
	"$cmd" run --slot other=64M true &&
		"$cmd" copy ram slot:other --no-pause --verify >"$tmp/out" 2>"$tmp/err" &&
		cmp "$ram" "$DIRTYTRACK_STANDIN/other"
	rm -f "$DIRTYTRACK_STANDIN"/other*
	fails 1 "slot none: there is none" "$cmd" copy ram slot:none --no-pause &&
	fails 1 "it is what is to be copied" "$cmd" copy ram slot:ram --no-pause
}

to_nothing()
{
	"$cmd" copy ram null: --no-pause --json >"$tmp/out" 2>"$tmp/err" &&
		[ "$(jq -s 'map(select(.event == "end"))[0].npages' "$tmp/out")" = 16384 ] &&
		fails 2 "cannot be compared" "$cmd" copy ram null: --no-pause --verify
}

# The plugin by itself, to others: content, holes, and writes of theirs.
plugin_serves()
{
	local blocks

	blocks=$(stat -c %b "$ram")
	exec 9<>"$ram"
	nbdkit_serve "$OUT/nbdkit-dirtytrack-plugin.so" fd=ram:9 || return 1
	exec 9>&-
	holds_memory && nbdinfo --map --totals "$uri" | grep -q 'hole,zero' &&
		[ "$(nbdinfo --list --json "$uri" | jq -r '.exports[]."export-name"')" = ram ] &&
		qemu-io -f raw -c 'write -P 7 63M 64k' -c 'write -z 63M 8k' "$uri" &&
		cmp -n 8192 -i 66060288:0 "$ram" /dev/zero &&
		[ "$(stat -c %b "$ram")" = "$((blocks + 112))" ]
}

# fails STATUS TEXT COMMAND...
fails()
{
	local want=$1 text=$2 got=0

	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err" || got=$?
	[ "$got" = "$want" ] && said "$text"
}

refusals()
{
	nbdkit_serve -r memory 64M && copies 1 && said "it is read-only" || return 1
	stop_server
	nbdkit_serve memory 63M && copies 1 &&
		said "it has 66060288 bytes, 67108864 are to be copied" || return 1
	stop_server
	copies 1 && said "cannot connect"
}

no_space()
{
	nbdkit_serve --filter=error memory 64M error-pwrite=ENOSPC error-pwrite-rate=50% &&
		copies 1 && said "cannot write: No space left on device" || return 1
	# Once, however many requests failed.
	[ "$(grep -c 'cannot write' "$tmp/err")" = 1 ]
}

# Each kind of request fails, and all say how.
failing_requests()
{
	dd if=/dev/urandom of="$tmp/junk" bs=1M count=64 status=none || return 1
	local op error what text

	while IFS=, read -r op error what text; do
		cp "$tmp/junk" "$tmp/file" &&
			nbdkit_serve --filter=error file "$tmp/file" "error-$op=$error" \
				"error-$op-rate=100%" && copies 1 --verify && said "$what" && said "$text" ||
			{ echo "with $op: $error"; return 1; }
		stop_server
	done <<-END
		pwrite,EIO,cannot write,Input/output error
		zero,ENOSPC,cannot write,No space left on device
		extents,EIO,cannot ask what it has,Input/output error
		pread,EIO,cannot read,Input/output error
	END
}

# A server that tries again by itself: the client sees nothing of it.
server_tries_again()
{
	touch "$tmp/inject"
	nbdkit_serve --filter=log --filter=retry --filter=error memory 64M \
		logfile="$tmp/requests" retry-delay=1 retries=10 error-file="$tmp/inject" \
		error-pwrite-rate=100% || return 1
	"$cmd" copy ram "$uri" --no-pause >"$tmp/out" 2>"$tmp/err" &
	copy=$!
	await "$copy" grep -q ' Write ' "$tmp/requests" || return 1
	kill -0 "$copy" || return 1
	rm "$tmp/inject"
	wait "$copy" && holds_memory && ! grep -q '^reconnected' "$tmp/out" &&
		[ -z "$(pages Write <"$tmp/requests" | repeated)" ] || return 1
	stop_server
	touch "$tmp/inject"
	# And gives up at last.
	nbdkit_serve --filter=retry --filter=error memory 64M retry-delay=1 retries=1 \
		error-file="$tmp/inject" error-pwrite-rate=100% &&
		copies 1 && said "cannot write: Input/output error"
}

# Each page that has data is written once. To a server that has nothing, nothing else is
# sent; one that has something is asked to make zero what is zero, once each.
asks_for_what_it_needs()
{
	nonzero_pages "$ram" | sort >"$tmp/data" || return 1
	seq 0 16383 | sort | comm -23 - "$tmp/data" >"$tmp/zero"
	nbdkit_serve --filter=log memory 64M logfile="$tmp/requests" && copies 0 || return 1
	stop_server
	pages Write <"$tmp/requests" | sort | cmp - "$tmp/data" &&
		! grep -E ' (Zero|Trim|Read) ' "$tmp/requests" &&
		grep -q ' Flush ' "$tmp/requests" || return 1
	dd if=/dev/urandom of="$tmp/file" bs=1M count=64 status=none &&
		nbdkit_serve --filter=log file "$tmp/file" logfile="$tmp/requests" &&
		copies 0 && cmp "$tmp/file" "$ram" || return 1
	pages Write <"$tmp/requests" | sort | cmp - "$tmp/data" &&
		pages Zero <"$tmp/requests" | sort | cmp - "$tmp/zero"
}

# Pages that are data and hole by turns, which it says in one answer: it is asked for them
# once before anything is sent, and once more, in all, to compare.
asks_in_bulk()
{
	local asked

	python3 - "$tmp/file" <<-'END' || return 1
	import sys
	with open(sys.argv[1], "wb") as f:
	    f.truncate(64 << 20)
	    for page in range(0, 2048, 2):
	        f.seek(page * 4096)
	        f.write(b"old" * 1000)
	END
	nbdkit_serve --filter=log file "$tmp/file" logfile="$tmp/requests" &&
		copies 0 --verify && cmp "$tmp/file" "$ram" || return 1
	asked=$(grep -c ' Extents ' "$tmp/requests")
	echo "asked $asked times"
	[ "$asked" -le 4 ]
}

# Killed while it is asked something: it is said that it is gone.
dies_when_asked()
{
	local got=0

	nbdkit_serve --filter=log --filter=delay memory 64M logfile="$tmp/requests" \
		delay-extents=60 || return 1
	"$cmd" copy ram "$uri" --no-pause >"$tmp/out" 2>"$tmp/err" &
	copy=$!
	await "$copy" grep -q ' Extents ' "$tmp/requests" && kill -9 "$server" || return 1
	wait "$copy" || got=$?
	[ "$got" = 1 ] && said "cannot ask what it has" &&
		grep -qE "not connected|disconnected|shutdown" "$tmp/err"
}

# A server that ends with its last client is there as long as it is wanted.
server_ends_with_us()
{
	rm -f "$tmp/file" && truncate -s 64M "$tmp/file" &&
		nbdkit_serve --filter=exitlast file "$tmp/file" && copies 0 --verify || return 1
	wait "$server" && cmp "$tmp/file" "$ram"
}

# Requests that take long each do not take long together, unless the machine has something
# else to do each time.
slow_answers()
{
	local requests ms try

	nbdkit_serve --filter=log --filter=delay memory 64M logfile="$tmp/requests" \
		delay-write=300ms delay-zero=300ms || return 1
	for try in {1..10}; do
		: >"$tmp/requests"
		ms=$(date +%s%3N)
		copies 0 && ms=$(($(date +%s%3N) - ms)) && holds_memory || return 1
		requests=$(grep -c ' Write ' "$tmp/requests")
		echo "$requests requests in $ms ms, try $try"
		[ "$ms" -ge $((requests * 300 / 3)) ] || return 0
	done
	return 1
}

has_some()
{
	[ "$(stat -c %b "$tmp/file")" -gt 5000 ]
}

# A copy at work, that would take a minute to end. What the rate filter lets through at first
# is less than what is waited for.
start_copy()
{
	nbdkit_serve --filter=log --filter=rate file "$tmp/file" rate=4M \
		logfile="$tmp/requests" || return 1
	env --default-signal=INT "$cmd" copy ram "$uri" --no-pause --json --progress -o +RESENT --reconnect 60 "$@" \
		>"$tmp/out" 2>"$tmp/err" &
	copy=$!
	await "$copy" has_some
}

server_comes_back()
{
	rm -f "$tmp/file" && truncate -s 64M "$tmp/file"
	start_copy && kill -9 "$server" && quietly wait "$server" || return 1
	nbdkit_serve --filter=log file "$tmp/file" logfile="$tmp/again" && wait "$copy" &&
		holds_memory || return 1
	# Nothing had been flushed: each page is sent to it, and none twice.
	resent=$(jq -s 'map(select(.event == "round"))[0].resent' "$tmp/out")
	echo "sent again: $resent"
	[ "$resent" -gt 0 ] && [ "$resent" -le "$(wc -l <"$tmp/data")" ] &&
		[ -z "$(pages Write <"$tmp/requests" | repeated)" ] &&
		pages Write <"$tmp/again" | sort | cmp - "$tmp/data"
}

# The server is not the one it was, and has nothing of what was not flushed.
another_server_comes()
{
	rm -f "$tmp/file" && truncate -s 64M "$tmp/file"
	start_copy && kill -9 "$server" && quietly wait "$server" || return 1
	nbdkit_serve memory 64M && wait "$copy" && holds_memory
}

quietly()
{
	"$@" 2>/dev/null || :
}

server_stays_away()
{
	local got=0

	rm -f "$tmp/file" && truncate -s 64M "$tmp/file"
	start_copy --reconnect 0.5 && kill -9 "$server" && quietly wait "$server" || return 1
	rm -f "$tmp/socket"
	wait "$copy" || got=$?
	[ "$got" = 1 ] && said "could not be made again in 0.5 s" &&
		[ "$(jq -rs '.[-1].event' "$tmp/out")" = failed ]
}

interrupted()
{
	local got=0

	rm -f "$tmp/file" && truncate -s 64M "$tmp/file"
	start_copy && kill -STOP "$server" && kill -INT "$copy" || return 1
	quietly wait "$copy" || :
	wait "$copy" 2>/dev/null || got=$?
	kill -CONT "$server"
	[ "$got" = 130 ] && [ "$(jq -rs '.[-1].message' "$tmp/out")" = interrupted ]
}

# When the guest stands still, the server does: it is not waited for.
stuck_in_the_pause()
{
	local filter got

	# What it has is asked of one, and read from the other.
	for filter in nocache noextents; do
		nbdkit_serve --filter="$filter" memory 64M || return 1
		rm -f "$tmp/resumed"
		got=0
		timeout 60 "$cmd" copy ram "$uri" --verify --timeout 2 --pause-cmd "kill -STOP $server" \
			--resume-cmd "touch $tmp/resumed" >"$tmp/out" 2>"$tmp/err" || got=$?
		kill -CONT "$server"
		[ "$got" = 1 ] && said "nothing was done there in 2 s" && [ -e "$tmp/resumed" ] ||
			{ echo "with $filter: status $got"; return 1; }
		stop_server
	done
}

mkdir "$DIRTYTRACK_STANDIN"
"$cmd" run --slot ram=64M true
# Data, zero pages in it, zero pages without, and holes.
dd if=/dev/urandom of="$ram" bs=1M count=24 conv=notrunc status=none
dd if=/dev/zero of="$ram" bs=4k count=3 seek=100 conv=notrunc status=none
dd if=/dev/zero of="$ram" bs=1M count=4 seek=30 conv=notrunc status=none
dd if=/dev/urandom of="$ram" bs=1M count=8 seek=50 conv=notrunc status=none

echo "TAP version 13"
echo "1..24"
check "memory, verified" to_memory
check "old content of the target goes" old_content
check "servers without zero, extents, several connections, large blocks" plain_servers
check "a sparse file stays sparse" sparse_is_sparse
check "qcow2 behind qemu-nbd" to_qcow2
saved=$uri
check "TLS" over_tls
uri=$saved
check "TCP" over_tcp
uri=$saved
check "a slot" to_a_slot
check "nothing" to_nothing
check "the plugin" plugin_serves
check "servers that are of no use" refusals
check "no space left" no_space
check "requests that fail" failing_requests
check "slow answers" slow_answers
check "the server tries again" server_tries_again
check "the server is asked for what it needs, once" asks_for_what_it_needs
check "the server is asked in bulk what it has" asks_in_bulk
check "the server dies when it is asked" dies_when_asked
check "the server ends with its last client" server_ends_with_us
check "the server dies and comes back" server_comes_back
check "the server dies and another comes" another_server_comes
check "the server dies and stays away" server_stays_away
check "interrupted, the server being stuck" interrupted
check "stuck while the guest is paused" stuck_in_the_pause
echo "# Totals: pass:$((n - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
[ "$bad" = 0 ]
