#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack migrate and receive, on a stand-in for the module, with stand-ins for QEMU
# whose guests check themselves: moved, and with everybody killed, or failing, at each
# step. Guests that run at the same time, and memory that is not what it was, end in a
# guest that dies of it.
#
# usage: test-migrate.sh [NAME...]
set -eu
# shellcheck source=tools/tests/nbd-log.sh
. "$SRC/tests/nbd-log.sh"
# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/guests.sh
. "$SRC/tests/guests.sh"
# shellcheck source=tools/tests/moves.sh
. "$SRC/tests/moves.sh"

plugin=$OUT/nbdkit-dirtytrack-plugin.so
top=$(mktemp -d /dev/shm/test-migrate.XXXXXX)
trap 'rm -rf "$top"' EXIT

# begin SOURCE_OPTIONS -- RECEIVE_OPTIONS -- QEMU_OPTIONS: a guest, and a receiver.
begin()
{
	local source=() receive=()

	while [ "$1" != -- ]; do source+=("$1"); shift; done
	shift
	while [ "$1" != -- ]; do receive+=("$1"); shift; done
	shift
	mkdir src dst
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run --slot ram=32M -- "$qemu" --ram '{ram}' \
		--qmp qmp --qmp qmp2 --lock lock "${source[@]}" 2>src.log &
	src=$!
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" receive --slot ram=32M --plugin "$plugin" \
		--timeout "$timeout" --listen "unix:$PWD/nbd" "${receive[@]}" -- \
		"$qemu" --ram '{ram}' --lock lock -incoming defer "$@" 2>dst.log &
	dst=$!
	await "$src" [ -S qmp ]
}

# start ...: likewise, and it waits for a guest.
start()
{
	begin "$@" || return 1
	await "$dst" grep -q "waiting for a guest" dst.log && return
	# Its QEMU had to answer in a moment.
	[ "$timeout" = 60 ] || exit "$again"
	return 1
}

# nbdkit_with FILTER... -- PARAMETER...: that is what the receiver will run.
nbdkit_with()
{
	local filters=()

	while [ "$1" != -- ]; do filters+=("--filter=$1"); shift; done
	shift
	mkdir bin
	{
		echo "#!/bin/bash"
		printf 'exec %q ' "$(type -P nbdkit)" "${filters[@]}" | sed 's/ exec / /g'
		# shellcheck disable=SC2016 # of the script
		printf '"$@"'
		printf ' %q' "$@"
		echo
	} >bin/nbdkit
	chmod +x bin/nbdkit
	PATH=$PWD/bin:$PATH
}

# ---- cases: functions named case_*; some have arguments ----

moved()
{
	there=$(receiver_child standin-qemu)
	migrate "$@"
	ends 0 && guest_is there && until_true is_gone "$src" && grep -q '^downtime: ' out
}

case_unix()
{
	start -- -- && moved --verify && grep -q '^identical: 8192 pages' out
}

case_tcp_tls()
{
	local port

	port=$(free_port)
	printf 'user:%064d\n' 7 >psk
	start -- --listen "127.0.0.1:$port" --tls-psk psk -- || return 1
	uri=nbd://127.0.0.1:$port
	migrate
	ends 1 && [ "$(last_word src.log)" = runs ] || return 1
	uri="nbds://user@127.0.0.1:$port/?tls-psk-file=$PWD/psk"
	moved
}

# A guest that writes a little in many places, and one that writes faster than it is sent.
case_busy()
{
	start --rate 200000 -- -- && moved --downtime 10 --max-rounds 5
}

case_strict()
{
	start --rate 400000 -- -- && migrate --downtime 0 --strict --max-rounds 3 || return 1
	ends 3 0 && guest_is here
}

# Pages become dirty far faster than they can be sent, also where the guest does not run all
# the time.
start_too_fast()
{
	start --rate 100000 -- --
	there=$(receiver_child standin-qemu)
}
slow_link=(--max-bandwidth 16M --downtime 100 --max-rounds 100 --json -o +THROTTLE)

case_does_not_converge()
{
	start_too_fast && migrate "${slow_link[@]}" --strict || return 1
	ends 3 0 && guest_is here || return 1
	[ "$(event rounds_end .reason)" = no-progress ] || return "$again"
}

case_throttled()
{
	start_too_fast && migrate "${slow_link[@]}" --strict --throttle auto || return 1
	ends 0 3 && [ "$(event rounds_end .reason)" = fits ] && guest_is there &&
		# More with each step,
		[ "$(jq -s 'map(select(.throttle).throttle) | . == (sort | reverse)' out)" = true ] ||
		return 1
	# and only as far as it has to be.
	[ "$(jq -s 'map(select(.throttle)) | length > 1 and .[-1].throttle > 256' out)" = true ] ||
		return "$again"
}

case_throttled_to_a_rate()
{
	start_too_fast && migrate "${slow_link[@]}" --strict --throttle 800 || return 1
	ends 0 3 && guest_is there &&
		[ "$(jq -s 'map(select(.event == "round" and .paused == false).throttle) |
			unique == [800]' out)" = true ]
}

# The first round takes longer than all are allowed, and leaves something.
start_too_slow()
{
	start --rate 2000 -- -- && there=$(receiver_child standin-qemu) &&
		migrate --max-bandwidth 12M --downtime 0 --json --timeout 1 "$@"
}

case_timeout_cancel()
{
	start_too_slow || return 1
	ends 3 0 && grep -q "^dirtytrack: after 1 s" err && guest_is here
}

case_timeout_pause()
{
	start_too_slow --on-timeout pause || return 1
	ends 0 && guest_is there || return 1
	[ "$(event rounds_end .reason)" = timeout ] || return "$again"
}

# Each has a log of its own, and the guest is paused by one at a time. The versions are of
# moments at which it stood still: what it has in memory says so.
case_beside_others()
{
	local backup monitor before

	mkdir versions tmp
	start --rate 4000 -- -- && there=$(receiver_child standin-qemu) || return 1
	DIRTYTRACK_STANDIN=$PWD/src TMPDIR=$PWD/tmp "$cmd" backup ram versions --incremental \
		--interval 0.1 --retries 1 --qmp qmp2 --timeout 60 --json --verify >rows 2>backup.err &
	backup=$!
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" rate ram --interval 0.2 --count 1000000 --json >rates &
	monitor=$!
	await "$backup" [ -e versions/ram.1.qcow2 ] || return 1
	hold 1
	migrate --verify --downtime 0 --max-rounds 3
	# There are versions after its first round, and before the next.
	await "$tool" held 2 || return 1
	before=$(versions)
	# Unless nothing was written in that: then the next is the last.
	await "$backup" more_versions "$before" || return "$again"
	go_on
	await "$monitor" saw_pages 50 && kill "$monitor" || return 1
	wait "$monitor"
	ends 0 && guest_is there && grep -q '^identical: 8192 pages' out || return 1
	# Its QEMU is gone, and so is what it made versions of.
	wait "$backup" && return 1
	[ "$(jq -s 'map(select(.event == "verified").different) | unique' rows | tr -d ' \n')" = '[0]' ] &&
		[ -z "$(ls tmp)" ] && [ ! -e versions/ram.partial ] &&
		check_versions
}

more_versions()
{
	[ "$(versions)" -gt "$1" ]
}

# saw_pages NUMBER: the monitor did.
saw_pages()
{
	[ "$(jq -s "map(.dirty) | add > $1" rates)" = true ]
}

versions()
{
	grep -c '"event": "version"' rows
}

# The guest's own check of its memory, of each version; see standin-qemu.c.
check_versions()
{
	local file

	for file in versions/ram.*.qcow2; do
		qemu-img convert -O raw "$file" image &&
			"$qemu" --check image >/dev/null || return 1
	done
}

# Pages that are written all the time: the link is for others until the last round.
case_skips()
{
	start --rate 100000 --hot 1500 -- -- && there=$(receiver_child standin-qemu) &&
		migrate "${slow_link[@]}" --downtime 0 --max-rounds 4 --verify || return 1
	ends 0 && guest_is there && [ "$(event verified .different)" = 0 ] &&
		[ "$(event round '[.paused, .skipped]' | tr -d ' \n')" = '[true,0]' ] || return 1
	[ "$(jq -s 'map(select(.event == "round" and .paused == false)) |
		(map(.skipped) | add) > 500' out)" = true ] || return "$again"
}

# 24 MiB at 12 MiB a second.
case_bandwidth()
{
	local ms

	start --rate 100 -- -- && there=$(receiver_child standin-qemu) || return 1
	ms=$(date +%s%3N)
	migrate --max-bandwidth 12M --json --progress
	ends 0 && guest_is there && ms=$(($(date +%s%3N) - ms)) && [ "$ms" -gt 1700 ] || return 1
	[ "$(event rounds_end '.time > 1.5 and .bytes > 20e6')" = true ] || return 1
	# On its way: pages a second, and seconds to go, are by what was done so far.
	jq 'select(.event == "progress" and .round == 1 and .pages > 0 and .left > 0)' out >way
	[ -s way ] || return "$again"
	[ "$(jq -s 'def near(a; b): a > b * 0.98 - 1e-3 and a < b * 1.02 + 1e-3;
			all(.bytes > 0 and .left + .pages + .skipped == .expected and
			near(.speed * .time; .pages * 4096) and
			near(.eta * .pages; .left * .time))' way)" = true ]
}

case_dry_run()
{
	local receiver=$uri

	impatient_there
	start --rate 100000 -- -- || return 1
	uri=null:
	migrate --dry-run --max-bandwidth 16M
	ends 3 0 && grep -q '^does not converge' out && [ "$(last_word src.log)" = runs ] || return 1
	migrate --dry-run --max-bandwidth 16M --throttle 800
	ends 0 3 && grep -q '^converges: memory would take about' out &&
		[ "$(grep -c stands src.log)" = 0 ] || return 1
	# To a receiver, which gives up.
	uri=$receiver
	migrate --dry-run
	ends 0 && guest_is here && [ "$(grep -c stands src.log)" = 0 ]
}

# What is said to be free is left out; but not what the guest has written meanwhile, which
# are all pages of which it is said, in vain, that they are free.
case_free()
{
	local receiver=$uri

	start --rate 20000 --hot 1500 -- -- && there=$(receiver_child standin-qemu) || return 1
	echo 2000-2999 >free
	uri=null:
	migrate --dry-run --free free
	ends 0 3 && grep -q '1000 pages are free and left out; 0 were written' err &&
		[ "$(awk '$1 == 1 { print $2 <= 6144 - 1000 }' out)" = 1 ] || return 1
	uri=$receiver
	mkfifo hints
	migrate --free hints --verify
	await "$tool" has_logs src/ram 2 && await "$tool" all_dirty src/ram 100 1499 &&
		echo 100-1499 >hints && ends 0 && guest_is there && grep -q ' 0 pages are free and left out; 1400 were written' err
}

# Moved, and moved again.
case_again()
{
	local i

	for i in 1 2 3; do
		start --rate 50000 -- -- && moved --connections "$i" || return 1
		clean_up
		rm -rf src dst ./*.log nbd qmp lock
	done
	start -- -- && moved
}

guest_paused_there()
{
	! alive "$src" && alive "$there" && ! locked && migrates_all dst.log &&
		grep -q "paused as it was" dst.log && ! grep -q "runs at" dst.log
}

moved_paused()
{
	ends 0 && guest_is paused_there
}

# Somebody had paused it, and has reasons.
case_paused()
{
	start -- -- && there=$(receiver_child standin-qemu) && stop_guest || return 1
	migrate
	moved_paused
}

# By a log of its requests, the server was sent what of the memory is not zero, and once:
# but for the two pages that saving the state writes to.
sent_once()
{
	pages Write ram <"$1" | sort >written
	nonzero_pages src/ram | sort >data
	echo "$(wc -l <data) pages, $(wc -l <written) written, $(repeated <written | wc -l) twice"
	[ "$(repeated <written | wc -l)" -le 2 ] &&
		[ "$(uniq written | comm -3 - data | wc -l)" -le 2 ] &&
		[ "$(pages Zero ram <"$1" | wc -l)" -le 2 ] && ! grep ' Trim ' "$1"
}

# A guest that does nothing: each page with data once, and what is zero not at all.
case_filter_log()
{
	nbdkit_with log -- logfile=requests && start -- -- &&
		there=$(receiver_child standin-qemu) && stop_guest || return 1
	migrate --verify
	moved_paused && sent_once requests
}

# A guest that does things: holes and zeroes are asked for as such.
case_filter_log_busy()
{
	nbdkit_with log -- logfile=requests && start --rate 50000 -- -- &&
		moved --verify --downtime 0 --max-rounds 5 && ! grep -q ' Trim ' requests || return 1
	grep -q ' Zero ' requests || return "$again"
}

# When all is there and flushed, another server comes: what is missing is what saving the
# state has written.
case_filter_log_reconnect()
{
	nbdkit_with log -- logfile=requests logappend=true &&
		start --fail migrate:slow -- -- &&
		there=$(receiver_child standin-qemu) && stop_guest && migrate &&
		await "$tool" is_slow_at migrate || return 1
	kill -KILL "$(receiver_child nbdkit)"
	touch go
	moved_paused && last_server <requests >last &&
		[ "$(grep -c ' Ready ' requests)" = 2 ] &&
		[ "$(pages Write ram <last | wc -l)" -le 2 ] &&
		[ "$(pages Zero ram <last | wc -l)" -le 2 ]
}

wrote_some()
{
	[ "$(grep -c ' Write ' requests)" -gt 40 ]
}

# Before anything was flushed: all of it, but once.
case_filter_rate_reconnect()
{
	nbdkit_with log rate -- logfile=requests logappend=true rate=40M &&
		start -- -- && there=$(receiver_child standin-qemu) && stop_guest &&
		migrate --json -o +RESENT && await "$tool" wrote_some || return 1
	kill -KILL "$(receiver_child nbdkit)"
	moved_paused || return 1
	# Something was left to be sent.
	[ "$(grep -c ' Ready ' requests)" = 2 ] || return "$again"
	last_server <requests >last && sent_once last &&
		[ "$(jq -s 'map(select(.event == "round").resent) | add > 0' out)" = true ]
}

case_filter_delay()
{
	nbdkit_with delay -- delay-write=20ms delay-zero=20ms && start -- -- && moved --verify
}

case_filter_rate()
{
	nbdkit_with rate -- rate=160M && start -- -- && moved --verify
}

# The server tries again by itself: nobody sees anything of it.
case_filter_retry()
{
	touch inject
	nbdkit_with log retry error -- logfile=requests retries=10 retry-delay=1 \
		error-pwrite-rate=100% error-file=inject &&
		start -- -- && there=$(receiver_child standin-qemu) && migrate --verify &&
		await "$tool" grep -q ' Write ' requests || return 1
	rm inject
	ends 0 && guest_is there && ! grep -q '^reconnected' out
}

# Each time its clients leave, it ends; the receiver has another.
case_filter_exitlast()
{
	nbdkit_with log exitlast -- logfile=requests logappend=true && start -- -- &&
		nbdinfo --size "nbd+unix:///ram?socket=$PWD/nbd" &&
		await "$dst" another_server && moved --verify
}

another_server()
{
	[ "$(grep -c ' Ready ' requests)" -ge 2 ] && [ -n "$(receiver_child nbdkit)" ]
}

# filter_error OPERATION ERROR PHASE: requests fail from the start, or in the pause.
case_filter_error()
{
	# The receiver is not told that the sender has given up.
	impatient_there
	nbdkit_with error -- "error-$1=$2" "error-$1-rate=100%" error-file=inject || return 1
	case $3 in
	rounds)
		start -- -- && hold 0 && migrate --verify --json && has_begun || return 1
		touch inject
		go_on ;;
	pause)
		start --fail migrate:slow -- -- && migrate --verify &&
			await "$tool" is_slow_at migrate && touch inject go || return 1 ;;
	esac
	ends 1 && grep -qE "$4" err && guest_is here
}

# QEMU here fails at a command.
case_fail_here()
{
	[ "$2" != stall ] || impatient_here
	start --fail "$1:$2" -- -- && migrate && ends 1 && guest_is here
}

case_fail_there()
{
	[ "$2" = error ] || [ "$2" = die ] || impatient_there
	start -- -- --fail "$1:$2" && migrate && ends 1 && guest_is here
}

# By its state it runs: it is not let run by QEMU because of that.
case_running_state()
{
	start -- -- --fail load:run && moved && ! grep unasked dst.log
}

# interrupted_there PHASE WHERE STATUS: the receiver is.
case_interrupted_there()
{
	# Who is gone is not waited for.
	case $1 in
	rounds | stop | migrate) impatient_here ;;
	esac
	case $1 in
	rounds)	start -- -- && hold 1 && migrate --downtime 0 --max-rounds 3 --json &&
			await "$tool" held 2 ;;
	stop | migrate)
		start --fail "$1:slow" -- -- && migrate && await "$tool" is_slow_at "$1" ;;
	*)	start -- -- --fail "$1:slow" && migrate && await "$tool" is_slow_at "$1" ;;
	esac || return 1
	there=$(receiver_child standin-qemu)
	kill -TERM "$dst"
	# It has to see that before QEMU goes on.
	sleep 1
	touch go
	go_on
	ends "$3" && guest_is "$2"
}

# image SIGNAL STATUS: QEMU there has the guest's disk when the guest is to go on here.
case_image()
{
	start --image image -- -- --image image --fail loaded:slow && migrate && give_up "$1" &&
		ends "$2" 0 && guest_is here
}

case_image_moved()
{
	start --image image -- -- --image image && moved
}

# Two slots to one export: what came last would be in it.
case_same_name()
{
	mkdir src dst
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run --slot ram=8M --slot more=8M -- "$qemu" \
		--ram '{ram}' --ram '{more}' --qmp qmp --lock lock 2>src.log &
	src=$!
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" receive --slot a=8M --slot b=8M --plugin "$plugin" \
		--timeout "$timeout" --listen "unix:$PWD/nbd" -- "$qemu" --ram '{a}' --ram '{b}' \
		--lock lock -incoming defer 2>dst.log &
	dst=$!
	await "$src" [ -S qmp ] && await "$dst" grep -q "waiting for a guest" dst.log || return 1
	there=$(receiver_child standin-qemu)
	migrate ram=a more=a
	ends 1 && grep -q "a: two slots would be moved to it" err &&
		[ "$(last_word src.log)" = runs ] || return 1
	migrate ram=a more=b --verify
	ends 0 && guest_is there
}

# migrate_second: another sender, of the same guest, while the first one is held up.
migrate_second()
{
	env -u DIRTYTRACK_STANDIN_HOLD DIRTYTRACK_STANDIN="$PWD/src" "$cmd" migrate --qmp qmp2 \
		--answer "$answer" --reconnect "$reconnect" "$@" "nbd+unix:///?socket=$PWD/nbd" >out2 2>err2
}

# One has the receiver: others are refused, and nothing of theirs is there. It is known again
# when it has lost its connections.
case_two_senders()
{
	local got=0

	start -- -- && there=$(receiver_child standin-qemu) && hold 1 || return 1
	migrate --downtime 0 --max-rounds 3 --verify --json
	await "$tool" held 2 || return 1
	migrate_second --dry-run || got=$?
	[ "$got" = 1 ] && grep -q "another sender has the receiver" err2 || return 1
	kill -KILL "$(receiver_child nbdkit)"
	await "$dst" receiver_has nbdkit || return 1
	got=0
	migrate_second || got=$?
	[ "$got" = 1 ] && grep -q "another sender has the receiver" err2 || return 1
	go_on
	ends 0 && guest_is there && [ "$(event verified .different)" = 0 ]
}

# One that fails before it has begun leaves it to others.
case_sender_leaves()
{
	start -- -- && there=$(receiver_child standin-qemu) || return 1
	migrate nonesuch
	ends 1 && moved
}

# QEMU there does not wait for a guest: then nobody does.
case_not_incoming()
{
	local got=0

	[ "$2" != hang ] || impatient_there
	begin -- -- --fail "$1:$2" || return 1
	wait "$dst" || got=$?
	[ "$got" = 125 ] && ! grep -q "waiting for a guest" dst.log && guest_is here
}

# It does not quit: it must not run either.
case_no_quit()
{
	start --fail quit:error -- -- && there=$(receiver_child standin-qemu)
	migrate
	ends 0 && guest_is there && grep -q "do not let it run" err
}

is_paused_here()
{
	[ "$(last_word src.log)" = stands ]
}

# Somebody else writes, what is there already, when it is to run: not until that is done.
case_write_under_way()
{
	local got=0

	nbdkit_with log -- logfile=requests && sed -i "2i export LD_PRELOAD=$OUT/tests/hold-write.so HOLD_WRITE=$PWD/held" \
		bin/nbdkit && start --hot 1500 -- -- --fail load:slow &&
		there=$(receiver_child standin-qemu) || return 1
	qemu-io -f raw -c 'write -P 0 32764k 4k' "nbd+unix:///ram?socket=$PWD/nbd" &
	await "$dst" [ -e held ] || return 1
	migrate
	await "$tool" is_slow_at load || return 1
	! grep -q "runs at" dst.log && touch go && await "$tool" is_paused_here || return 1
	# It is loaded, and would run by now.
	sleep 1
	! grep -q "runs at" dst.log || got=1
	rm held
	ends 0 && guest_is there && [ "$got" = 0 ]
}

# The receiver has seen it, and it goes no further.
has_begun()
{
	await "$tool" grep -q '"event": "begin"' out && await "$tool" held 1
}

case_interrupted()
{
	start -- -- && hold 0 && migrate --json && has_begun || return 1
	kill -INT "$tool"
	go_on
	ends 130 && guest_is here
}

receiver_has()
{
	[ -n "$(receiver_child "$1")" ]
}

# It does not answer, and who started it is killed.
case_killed_at_start()
{
	mkdir dst
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" receive --slot ram=1M --plugin "$plugin" \
		--listen "unix:$PWD/nbd" -- sh -c 'exec sleep 1000' 2>dst.log &
	dst=$!
	await "$dst" receiver_has sleep && there=$(receiver_child sleep) &&
		kill -KILL "$dst" && await "$$" is_gone "$there"
}

case_no_receiver()
{
	start -- -- || return 1
	nbdkit -f -U "$PWD/other" memory 32M 2>/dev/null &
	local other=$!
	await "$other" listens "$PWD/other" || return 1
	uri="nbd+unix:///?socket=$PWD/other"
	migrate
	ends 1 && grep -q "it is no receiver" err && [ "$(last_word src.log)" = runs ]
	local got=$?
	kill "$other"
	return $got
}

# A sender that vanished: the receiver does not wait for ever.
case_sender_gone()
{
	impatient_there
	start -- -- && hold 0 && migrate --json && has_begun || return 1
	kill -KILL "$tool"
	guest_is here
}

# stuck PHASE TEXT STATUS [OPTION...]: a server that is, and not dead: what is waited for does
# not come.
case_stuck()
{
	local phase=$1 text=$2 status=$3 server ret=1

	shift 3

	impatient_here
	impatient_there
	case $phase in
	rounds)	start -- -- ;;
	pause)	start --fail stop:slow -- -- ;;
	esac || return 1
	server=$(receiver_child nbdkit)
	if [ "$phase" = rounds ]; then
		hold 1
		migrate --downtime 0 --max-rounds 3 --timeout 2 "$@"
		await "$tool" held 2 || return "$again"
	else
		migrate --downtime 0 --max-rounds 3
		await "$tool" is_slow_at stop || return "$again"
	fi
	kill -STOP "$server"
	touch go
	go_on
	until_true is_gone "$tool" && ret=0
	# It has no sender any more, and can see that now.
	kill -CONT "$server"
	[ "$ret" = 0 ] && ends "$status" && grep -q "$text" err && guest_is here
}

# killed VICTIM PHASE WHERE STATUS: in the phase, or interrupted ("int", the tool); where the
# guest is in the end.
case_killed()
{
	local victim=$1 phase=$2 where=$3 status=$4 ret=1

	case $victim in
	tool)	impatient_there ;;
	receive) impatient_here ;;
	esac
	# It may have been the machine that did not answer in time.
	[ "$timeout $answer" = "60 60" ] || ret=$again
	case $phase in
	rounds)	start -- -- ;;
	stop | migrate)
		start --fail "$phase:slow" -- -- ;;
	load | cont)
		start -- -- --fail "$phase:slow" ;;
	esac || return 1
	there=$(receiver_child standin-qemu)
	if [ "$phase" = rounds ]; then
		# The first pages are there, and the second harvest comes. It must not
		# be the last, after which QEMU is not needed any more: without rounds to
		# come, what is left might be little enough for the pause.
		hold 1
		migrate --downtime 0 --max-rounds 3 --json
		await "$tool" held 2 && grep -q '"event": "round"' out || return "$ret"
	else
		migrate
		await "$tool" is_slow_at "$phase" || return "$ret"
	fi
	kill_victim "$victim"
	ends "$status" && guest_is "$where"
}

cases=(
	unix tcp_tls busy strict again paused no_quit interrupted no_receiver sender_gone killed_at_start
	write_under_way
	beside_others does_not_converge skips throttled throttled_to_a_rate timeout_cancel timeout_pause
	bandwidth dry_run free
	filter_log filter_log_busy filter_log_reconnect filter_rate_reconnect filter_delay
	filter_rate filter_retry filter_exitlast
	"filter_error pwrite ENOSPC rounds No.space.left" "filter_error pwrite EIO pause ."
	"filter_error pread EIO pause cannot.read"
	"fail_here stop error" "fail_here migrate error" "fail_here migrate stall"
	"not_incoming migrate-incoming error" "not_incoming migrate-incoming die"
	"not_incoming migrate-incoming hang" "not_incoming getfd error"
	"fail_there load error" "fail_there load die" "fail_there load stall" "fail_there cont error" "fail_there cont die"
	"fail_there cont hang"
	"stuck rounds after.2.s,.[0-9]*.pages.would.still.have.to.be.copied 3"
	"stuck rounds nothing.was.done.there.in.4.s 1 --on-timeout pause"
	"stuck pause nothing.was.done.there.in.4.s 1"
	running_state same_name two_senders sender_leaves
	"interrupted_there rounds here 1" "interrupted_there stop here 1"
	"interrupted_there migrate here 1" "interrupted_there load here 1"
	"interrupted_there cont there 0"
	image_moved "image INT 130" "image KILL 137"
	"killed tool rounds here 137" "killed tool stop here 137"
	"killed tool migrate here 137" "killed tool load here 137"
	"killed tool cont there 137"
	"killed int stop here 130" "killed int migrate here 130" "killed int load here 130"
	"killed int cont there 0"
	"killed receive rounds here 1" "killed receive stop here 1"
	"killed receive migrate here 1" "killed receive load here 1"
	"killed receive cont there 5"
	"killed nbdkit rounds there 0" "killed nbdkit stop there 0"
	"killed nbdkit migrate there 0" "killed nbdkit load here 1"
	"killed nbdkit cont there 0"
	"killed src rounds nowhere 1" "killed src stop nowhere 1"
	"killed src migrate nowhere 1" "killed src load there 0"
	"killed src cont there 0"
	"killed dst rounds here 1" "killed dst stop here 1" "killed dst migrate here 1"
	"killed dst load here 1" "killed dst cont here 1"
)
[ $# = 0 ] || cases=("$@")

run_cases 5 err src.log dst.log
