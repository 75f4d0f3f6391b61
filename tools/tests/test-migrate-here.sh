#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack migrate without a receiver, as test-migrate.sh: to files, and out of them by
# dirtytrack receive --from; to a QEMU that waits on other slots; and to nothing. With
# everybody killed, or failing, at each step.
#
# usage: test-migrate-here.sh [NAME...]
set -eu
# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/guests.sh
. "$SRC/tests/guests.sh"
# shellcheck source=tools/tests/moves.sh
. "$SRC/tests/moves.sh"

top=$(mktemp -d /dev/shm/test-migrate.XXXXXX)
trap 'rm -rf "$top"' EXIT

# start_alone SOURCE_OPTIONS: a guest.
start_alone()
{
	mkdir src
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run --slot ram=32M -- "$qemu" --ram '{ram}' \
		--qmp qmp --lock lock "$@" 2>src.log &
	src=$! dst=
	await "$src" [ -S qmp ]
}

# The same, on two slots.
start_on_two()
{
	mkdir src
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run --slot ram=24M --slot more=8M -- "$qemu" \
		--ram '{ram}' --ram '{more}' --qmp qmp --qmp qmp2 --lock lock "$@" 2>src.log &
	src=$! dst=
	await "$src" [ -S qmp ]
}

# wait_on SLOTS QEMU_OPTIONS: a QEMU on this host, for a guest, on slots "ram2", "more2".
wait_on()
{
	local slots=() ram=()

	[ "$1" = 1 ] && slots=(--slot ram2=32M) || slots=(--slot ram2=24M --slot more2=8M)
	[ "$1" = 1 ] && ram=(--ram '{ram2}') || ram=(--ram '{ram2}' --ram '{more2}')
	DIRTYTRACK_STANDIN=$PWD/src "$cmd" run "${slots[@]}" -- "$qemu" "${ram[@]}" \
		--qmp there --lock lock -incoming defer "${@:2}" 2>dst.log &
	there=$! dst=$!
	await "$dst" [ -S there ]
}

# restore FROM OPTION... -- QEMU_OPTION...: in the background.
restore()
{
	local from=$1 options=() ram=(--slot ram=32M)
	local qemu_ram=(--ram '{ram}')

	[ ! -d "$from" ] || ram=(--slot ram=24M --slot more=8M)
	[ ! -d "$from" ] || qemu_ram+=(--ram '{more}')
	shift
	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	rm -rf dst
	mkdir dst
	DIRTYTRACK_STANDIN=$PWD/dst "$cmd" receive --from "$from" --timeout "$timeout" "${ram[@]}" \
		"${options[@]}" -- "$qemu" "${qemu_ram[@]}" --lock lock -incoming defer "$@" 2>dst.log &
	dst=$!
}

# It is refused, or fails, and the files are as they were.
not_restored()
{
	local got=0 before

	before=$(sums)
	restore "$@"
	wait "$dst" || got=$?
	[ "$got" = 125 ] && ! grep -q "runs at" dst.log && [ "$before" = "$(sums)" ]
}

sums()
{
	find vm* -type f -exec md5sum {} +
}

# It is in files, and complete.
guest_saved()
{
	! alive "$src" && ! locked && [ -e "${1:-vm.state}" ] && ! leftovers
}

# Here, and no file of it.
guest_here_only()
{
	guest_here && [ ! -e vm ] && [ ! -e vm.state ] && ! leftovers
}

leftovers()
{
	ls ./*.partial vm/*.partial 2>/dev/null
}

restored()
{
	restore "$@"
	until_restored && guest_is restored
}

until_restored()
{
	await "$dst" grep -q "the guest runs here" dst.log && there=$(receiver_child standin-qemu)
}

guest_restored()
{
	[ "$(last_word dst.log)" = runs ] && locked && migrates_all dst.log && alive "$there" &&
		alive "$dst"
}

# ---- to files ----

to_vm()
{
	uri=vm
	migrate "$@"
}

case_file()
{
	start_alone --rate 50000 && to_vm --verify || return 1
	ends 0 && guest_is saved && grep -q '^identical: 8192 pages' out &&
		[ "$(stat -c %a:%s vm)" = "600:$((32 << 20))" ] && [ "$(stat -c %a vm.state)" = 600 ] &&
		restored vm --
}

# As long as it runs, it is not let run a second time; after that, it is.
case_file_twice()
{
	local first

	start_alone && to_vm || return 1
	ends 0 && guest_is saved && restored vm -- || return 1
	first=$dst
	mv dst first
	mv dst.log first.log
	restore vm --
	wait "$dst" && return 1
	grep -q "the guest runs, or is about to" dst.log && alive "$there" || return 1
	# Who started it is gone: it is still the one.
	kill -KILL "$first"
	restore vm --
	wait "$dst" && return 1
	grep -q "the guest runs, or is about to" dst.log && alive "$there" || return 1
	kill -KILL "$there"
	restored vm --
}

# A hole is one all the way; and there are some.
case_file_sparse()
{
	start_alone --rate 1 && to_vm || return 1
	ends 0 && [ "$(du -k vm | cut -f1)" -lt $((26 << 10)) ] &&
		restore vm -- --fail load:slow && await "$dst" is_slow_at load &&
		[ "$(du -k dst/ram | cut -f1)" -lt $((26 << 10)) ] &&
		touch go && until_restored && guest_is restored
}

case_file_dir()
{
	mkdir vm
	start_on_two && to_vm --verify || return 1
	ends 0 && guest_is saved vm/state && grep -q '^identical: 8192 pages' out &&
		[ "$(cd vm && echo ./*)" = "./more.img ./ram.img ./state" ] &&
		restored vm --
}

case_file_renamed()
{
	mkdir vm
	start_on_two && uri=vm/ && migrate ram=ram more=rest || return 1
	ends 0 && guest_is saved vm/state && [ -e vm/rest.img ] && mv vm/rest.img vm/more.img &&
		restored vm --
}

case_file_refused()
{
	start_on_two && to_vm || return 1
	ends 1 && grep -q "the guest has 2 slots, and it takes one" err && guest_is here_only || return 1
	clean_up
	rm -rf src src.log qmp
	start_alone && uri=vm && migrate ram=x || return 1
	ends 1 && grep -q "and '=x' something else" err && guest_is here_only || return 1
	echo old >vm
	to_vm
	ends 1 && grep -q "^dirtytrack: vm: it exists" err && [ "$(cat vm)" = old ] && ! leftovers &&
		mv vm vm.state || return 1
	to_vm
	ends 1 && grep -q "^dirtytrack: vm.state: it exists" err && [ "$(cat vm.state)" = old ] &&
		! leftovers && guest_is here
}

case_file_paused()
{
	start_alone && stop_guest || return 1
	to_vm
	ends 0 && guest_is saved && grep -q "the guest was paused" err || return 1
	restore vm --paused --
	await "$dst" grep -q "the guest is here, paused" dst.log || return 1
	there=$(receiver_child standin-qemu)
	sleep 0.5
	! grep -q "runs at" dst.log && alive "$there" && alive "$dst"
}

case_file_dry_run()
{
	start_alone && to_vm --dry-run || return 1
	ends 0 && guest_is here_only && ! grep -q stands src.log
}

# LIMIT MiB: for the file of the memory, of which 24 are data.
case_file_too_large()
{
	start_alone || return 1
	trap '' XFSZ
	ulimit -f $(($1 * 1024))
	to_vm
	ends 1 && grep -q "vm.partial: cannot" err && guest_is here_only
}

# Somebody takes one of the names in the last moment.
case_file_name_taken()
{
	start_alone --fail migrate:slow && to_vm && await "$tool" is_slow_at migrate || return 1
	mkdir "$1"
	touch go
	ends 1 && grep -q "cannot rename it to $1" err && rmdir "$1" && guest_is here_only
}

# file_fsync N: the Nth fails. Of memory, its name, the state, and its name.
case_file_fsync()
{
	start_alone || return 1
	DIRTYTRACK_STANDIN_FSYNC=$1:error to_vm
	ends 1 && grep -q "to storage: Input/output error" err && guest_is here_only
}

# file_fail COMMAND HOW
case_file_fail()
{
	[ "$2" = error ] || impatient_here
	start_alone --fail "$1:$2" && to_vm || return 1
	ends 1 && guest_is here_only
}

case_file_no_quit()
{
	start_alone --fail quit:error && to_vm || return 1
	ends 0 && grep -q "do not let it run" err && ! locked && [ "$(last_word src.log)" = stands ]
}

case_file_interrupted()
{
	start_alone || return 1
	DIRTYTRACK_STANDIN_FSYNC=1:slow to_vm
	await "$tool" is_slow_at fsync || return 1
	kill -INT "$tool"
	touch go
	ends 130 && guest_is here_only
}

# file_killed VICTIM PHASE WHERE STATUS
case_file_killed()
{
	local victim=$1 phase=$2 where=$3 status=$4

	case $phase in
	rounds)	hold 1
		start_alone && to_vm --downtime 0 --max-rounds 3 --json &&
			await "$tool" held 2 && grep -q '"event": "round"' out ;;
	fsync*)	start_alone && DIRTYTRACK_STANDIN_FSYNC=${phase#fsync}:slow to_vm &&
			await "$tool" is_slow_at fsync ;;
	*)	start_alone --fail "$phase:slow" && to_vm && await "$tool" is_slow_at "$phase" ;;
	esac || return 1
	case $victim in
	tool)	kill -KILL "$tool" ;;
	src)	kill -KILL "$src" ;;
	esac
	touch go
	go_on
	ends "$status" && guest_is "$where" || return 1
	case $where in
	saved)	restored vm -- ;;
	# What is left of it is nobody's guest, and in nobody's way.
	here)	[ ! -e vm.state ] && not_restored vm -- && rm -f vm && to_vm && ends 0 && guest_is saved ;;
	nowhere) [ ! -e vm ] && [ ! -e vm.state ] && ! leftovers ;;
	esac
}

case_restore_refused()
{
	start_alone && to_vm || return 1
	ends 0 && guest_is saved || return 1
	not_restored vm --slot x=4K -- && grep -q "it is the memory of one slot" dst.log &&
		mv vm.state state && not_restored vm -- &&
		grep -q "vm.state: no guest is there" dst.log &&
		head -c 1000 state >vm.state && not_restored vm -- &&
		mv state vm.state && truncate -s 16M vm && not_restored vm -- &&
		grep -q "it has 16777216 bytes, and slot ram 33554432" dst.log
}

# restore_fail COMMAND HOW: QEMU fails, and another one does not.
case_restore_fail()
{
	start_alone && to_vm || return 1
	ends 0 && guest_is saved || return 1
	[ "$2" = error ] || [ "$2" = die ] || impatient_there
	not_restored vm -- --fail "$1:$2" || return 1
	timeout=60
	restored vm --
}

# restore_killed PHASE: who starts it is killed.
case_restore_killed()
{
	local victim

	start_alone && to_vm || return 1
	ends 0 && guest_is saved && restore vm -- --fail "$1:slow" &&
		await "$dst" is_slow_at "$1" || return 1
	victim=$(receiver_child standin-qemu)
	kill -KILL "$dst"
	touch go
	case $1 in
	load)	until_true is_gone "$victim" && restored vm -- ;;
	# It had been let run.
	cont)	there=$victim
		await "$there" locked && [ "$(last_word dst.log)" = runs ] ;;
	esac
}

case_restore_interrupted()
{
	start_alone && to_vm || return 1
	ends 0 && guest_is saved && restore vm -- --fail load:slow &&
		await "$dst" is_slow_at load || return 1
	there=$(receiver_child standin-qemu)
	kill -TERM "$dst"
	touch go
	! wait "$dst" && until_true is_gone "$there" && rm go && restored vm --
}

# ---- to slots ----

to_slot()
{
	uri=slot:ram2
	migrate --to-qmp there "$@"
}

case_slot()
{
	start_alone --rate 50000 && wait_on 1 && to_slot --verify || return 1
	ends 0 && guest_is there && until_true is_gone "$src" && grep -q '^identical: 8192 pages' out
}

case_slots()
{
	start_on_two --rate 50000 && wait_on 2 && uri=slot: &&
		migrate ram=ram2 more=more2 --to-qmp there --verify || return 1
	ends 0 && guest_is there && grep -q '^identical: 8192 pages' out
}

case_slot_paused()
{
	start_alone && wait_on 1 && stop_guest || return 1
	to_slot
	ends 0 && sleep 0.3 && until_true is_gone "$src" && alive "$there" && ! locked &&
		! grep -q "runs at" dst.log
}

waits_there()
{
	migrates_all src.log && alive "$there" && [ "$(last_word src.log)" = runs ] && ! grep -q "at load" dst.log
}

# refused_slot TEXT OPTION...: both QEMUs are as they were.
refused_slot()
{
	local text=$1

	shift
	migrate "$@"
	ends 1 && grep -q "$text" err && waits_there
}

case_slot_refused()
{
	start_on_two && wait_on 2 || return 1
	uri=slot:ram2
	refused_slot "the guest has 2 slots, and it takes one" --to-qmp there || return 1
	uri=slot:
	refused_slot "ram: it is what is to be moved" --to-qmp there || return 1
	refused_slot "ram2: two slots would be moved to it" more=ram2 ram=ram2 --to-qmp there || return 1
	refused_slot "it has 8388608 bytes" ram=more2 more=ram2 --to-qmp there || return 1
	refused_slot "it does not wait for a guest" ram=ram2 more=more2 --to-qmp qmp2 || return 1
	# Rounds, and nothing else: it can be moved after that.
	migrate ram=ram2 more=more2 --to-qmp there --dry-run
	ends 0 && waits_there || return 1
	migrate ram=ram2 more=more2 --to-qmp there
	ends 0 && guest_is there
}

# Its memory is elsewhere.
case_slot_other_memory()
{
	start_alone && wait_on 1 || return 1
	truncate -s 32M src/other
	truncate -s 1K src/other.dirty
	: >src/other.limit
	uri=slot:other
	refused_slot "it is shared and on no slot that is received" --to-qmp there
}

# slot_fail COMMAND HOW STATUS
case_slot_fail()
{
	[ "$2" = error ] || [ "$2" = die ] || impatient_here
	start_alone && wait_on 1 --fail "$1:$2" && to_slot || return 1
	case $3 in
	# With so little patience it may have been given up before.
	5)	ends 5 1 ;;
	*)	ends "$3" ;;
	esac || return 1
	case $1:$3 in
	# Nothing has begun.
	migrate-incoming:1) waits_there ;;
	*:1)	guest_is here ;;
	# It does not answer: nobody knows.
	*:5)	sleep 0.5 && [ "$(last_word src.log)" = stands ] && ! locked && alive "$src" ;;
	esac
}

start_with_image()
{
	start_alone --image image && wait_on 1 --image image "$@" && to_slot
}

# slot_image SIGNAL STATUS: as of a receiver.
case_slot_image()
{
	start_with_image --fail loaded:slow && give_up "$1" && ends "$2" 0 && guest_is here
}

# slot_image_fail COMMAND HOW: it is told to quit, and quits after it has said so.
case_slot_image_fail()
{
	[ "$2" = error ] || impatient_here
	start_with_image --fail "$1:$2" && ends 1 && guest_is here
}

case_slot_image_moved()
{
	start_with_image && ends 0 && guest_is there
}

# It lets the guest run when it has it: it has none in the end.
case_slot_runs()
{
	start_alone && wait_on 1 --fail load:run && to_slot || return 1
	ends 1 && grep -q "it is to be started with -S" err && [ "$(last_word src.log)" = runs ] &&
		locked && ! alive "$dst" && rm -f dst.log || return 1
	clean_up
	rm -rf src src.log qmp there
	start_alone && wait_on 1 --fail load:run -S && to_slot || return 1
	ends 0 && guest_is there && ! grep unasked dst.log
}

# slot_killed VICTIM PHASE WHERE STATUS
case_slot_killed()
{
	local victim=$1 phase=$2 where=$3 status=$4

	case $phase in
	rounds)	hold 1
		start_alone && wait_on 1 && to_slot --downtime 0 --max-rounds 3 --json &&
			await "$tool" held 2 && grep -q '"event": "round"' out ;;
	stop | migrate)
		start_alone --fail "$phase:slow" && wait_on 1 && to_slot &&
			await "$tool" is_slow_at "$phase" ;;
	load | cont)
		start_alone && wait_on 1 --fail "$phase:slow" && to_slot &&
			await "$tool" is_slow_at "$phase" ;;
	esac || return 1
	kill_victim "$victim"
	ends "$status" && guest_is "$where"
}

# ---- to nothing ----

# All but the other side: the guest stands still, and goes on.
case_rehearsal()
{
	start_alone --rate 50000 || return 1
	uri=null:
	migrate --downtime 50
	ends 0 && guest_is here && grep -q '^downtime: .* the guest goes on here' out &&
		[ "$(grep -c stands src.log)" = 1 ] || return 1
	migrate --json
	ends 0 && guest_is here && [ "$(event resumed '.paused > 0')" = true ] &&
		[ "$(grep -c stands src.log)" = 2 ] &&
		stop_guest || return 1
	migrate
	ends 0 && [ "$(last_word src.log)" = stands ] && [ "$(grep -c runs src.log)" = 3 ] &&
		migrates_all src.log || return 1
	# Nothing was saved: it can be moved as it is.
	migrate
	ends 0 || return 1
	to_vm
	ends 0 && guest_is saved
}

# The same, after its state was saved, must be let go on before.
case_paused_again()
{
	start_alone && stop_guest || return 1
	DIRTYTRACK_STANDIN_FSYNC=1:error to_vm
	ends 1 && migrates_all src.log || return 1
	to_vm
	ends 1 && grep -q "paused due to previous migration" err && [ "$(last_word src.log)" = stands ] &&
		tell_guest cont || return 1
	to_vm
	ends 0 && guest_is saved
}

case_rehearsal_killed()
{
	start_alone --fail migrate:slow || return 1
	uri=null:
	migrate
	await "$tool" is_slow_at migrate || return 1
	kill -KILL "$tool"
	touch go
	ends 137 && guest_is here
}

# cont_refused SIGNAL STATUS: somebody has the lock of the image for a while, when the guest is
# to go on; it is let go on after that, by the command or its guard.
case_cont_refused()
{
	local holder

	start_alone --image image || return 1
	DIRTYTRACK_STANDIN_FSYNC=1:slow to_vm
	await "$tool" is_slow_at fsync || return 1
	flock image sleep 2 &
	holder=$!
	await "$holder" locked image || return 1
	kill -"$1" "$tool"
	touch go
	ends "$2" && until_true is_gone "$holder" && guest_is here && locked image
}

# paused_killed PHASE: the guard does all but resume it.
case_paused_killed()
{
	case $1 in
	migrate) start_alone --fail migrate:slow && stop_guest && wait_on 1 ;;
	*)	start_alone --image image && stop_guest && wait_on 1 --image image --fail "$1:slow" ;;
	esac || return 1
	to_slot
	await "$tool" is_slow_at "$1" || return 1
	kill -KILL "$tool"
	touch go
	ends 137 && until_true is_gone "$there" && until_true migrates_all src.log &&
		[ "$(last_word src.log)" = stands ] && tell_guest cont && guest_is here
}

# Nobody says that it was resumed when it was not.
case_not_resumed()
{
	impatient_here
	start_alone --fail cont:error || return 1
	DIRTYTRACK_STANDIN_FSYNC=1:slow to_vm
	await "$tool" is_slow_at fsync || return 1
	kill -KILL "$tool"
	ends 137 && until_true grep -q "killed while the guest was paused" err &&
		grep -q "it could not be resumed" err && [ "$(last_word src.log)" = stands ]
}

# Each slot has its own.
case_free_of_two()
{
	start_on_two --hot 1500 || return 1
	echo 2000-2999 >free
	echo 0-9 >free2
	uri=null:
	migrate --free free
	ends 1 && grep -q "the guest has 2 slots: SLOT=FILE says of which" err || return 1
	migrate --free nonesuch=free
	ends 1 || return 1
	migrate --free ram=free --free ram=free2
	ends 1 && grep -q "free: free2: its slot has another file" err || return 1
	mkdir vm
	to_vm --dry-run --free ram=free --free more=free2 --verify
	ends 0 && grep -q ": 1000 pages are free and left out; 0 were" err &&
		grep -q ": 10 pages are free and left out; 0 were" err &&
		[ "$(awk '$1 == 1 { print $2 <= 6144 - 1010 }' out)" = 1 ] && guest_here
}

cases=(
	free_of_two rehearsal rehearsal_killed paused_again not_resumed
	"cont_refused INT 130" "cont_refused KILL 137" "paused_killed migrate" "paused_killed loaded"
	file file_twice file_sparse file_dir file_renamed file_refused file_paused file_dry_run
	"file_too_large 20" "file_name_taken vm" "file_name_taken vm.state"
	"file_fsync 1" "file_fsync 2" "file_fsync 3" "file_fsync 4"
	"file_fail stop error" "file_fail migrate error" "file_fail migrate stall"
	file_no_quit file_interrupted
	"file_killed tool rounds here 137" "file_killed tool stop here 137"
	"file_killed tool migrate here 137" "file_killed tool fsync1 here 137"
	"file_killed tool fsync3 here 137" "file_killed tool fsync4 saved 137"
	"file_killed tool quit saved 137"
	"file_killed src rounds nowhere 1" "file_killed src stop nowhere 1"
	"file_killed src migrate nowhere 1" "file_killed src fsync1 saved 0"
	"file_killed src quit saved 0"
	restore_refused "restore_fail getfd error" "restore_fail load error" "restore_fail load die"
	"restore_fail load stall" "restore_fail cont error" "restore_fail cont hang"
	"restore_killed load" "restore_killed cont" restore_interrupted
	slot slots slot_paused slot_refused slot_other_memory
	"slot_fail load error 1" "slot_fail load die 1" "slot_fail load stall 1"
	"slot_fail cont error 1" "slot_fail cont die 1" "slot_fail cont hang 5"
	"slot_fail migrate-incoming error 1" slot_runs
	slot_image_moved "slot_image INT 130" "slot_image KILL 137"
	"slot_image_fail cont error" "slot_image_fail loaded error" "slot_image_fail loaded stall"
	"slot_killed tool rounds here 137" "slot_killed tool stop here 137"
	"slot_killed tool migrate here 137" "slot_killed tool load here 137"
	"slot_killed tool cont there 137"
	"slot_killed src rounds nowhere 1" "slot_killed src stop nowhere 1"
	"slot_killed src migrate nowhere 1" "slot_killed src load there 0"
	"slot_killed src cont there 0"
	"slot_killed dst rounds here 1" "slot_killed dst stop here 1"
	"slot_killed dst migrate here 1" "slot_killed dst load here 1"
	"slot_killed dst cont here 1"
)
[ $# = 0 ] || cases=("$@")

run_cases 5 err src.log dst.log
