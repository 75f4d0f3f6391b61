#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack backup, on a stand-in for the module: each version beside a copy of the
# memory taken in its pause, and what is left when something goes wrong.
#
# usage: test-backup.sh [NAME...]
set -eu
# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/processes.sh
. "$SRC/tests/processes.sh"

cmd=$OUT/tests/dirtytrack-standin
top=$(mktemp -d /dev/shm/test-backup.XXXXXX)
trap 'rm -rf "$top"' EXIT
pages=8192

# A guest that writes to pages, and declares them: those given, or for ever.  It stands
# still while there is a file "pause", and says so by another, "paused".
cat >"$top/guest" <<'END'
import mmap, os, random, sys, time
ram = os.open("slots/ram", os.O_RDWR)
dirty = mmap.mmap(os.open("slots/ram.dirty", os.O_RDWR), 0)
npages = os.fstat(ram).st_size // 4096
def write(page, data):
    os.pwrite(ram, data, page * 4096)
    dirty[page // 8] |= 1 << page % 8
for arg in sys.argv[1:]:
    for page in range(*[int(n) for n in arg.lstrip("z").split("-")]):
        write(page, bytes(4096) if arg[0] == "z" else os.urandom(4096))
random.seed(5)
while len(sys.argv) == 1:
    if os.path.exists("pause"):
        open("paused", "w").close()
        while os.path.exists("pause"):
            time.sleep(0.005)
        os.unlink("paused")
    open("writing", "w").close()
    for i in range(20):
        page = random.randrange(npages // 2)
        write(page, os.urandom(4096) if page % 3 else bytes(4096))
    time.sleep(0.002)
END

# A guest with two slots, "ram" and "more": what it writes to a page of one, it then writes
# to that of the other, and in the page 0 of each it counts them.
cat >"$top/guest2" <<'END'
import mmap, os, random, time
slots = []
for name in "ram", "more":
    slots.append((os.open("slots/" + name, os.O_RDWR),
                  mmap.mmap(os.open("slots/" + name + ".dirty", os.O_RDWR), 0)))
def write(page, data):
    for fd, dirty in slots:
        os.pwrite(fd, data, page * 4096)
        dirty[page // 8] |= 1 << page % 8
random.seed(7)
n = 0
while True:
    if os.path.exists("pause"):
        open("paused", "w").close()
        while os.path.exists("pause"):
            time.sleep(0.005)
        os.unlink("paused")
    open("writing", "w").close()
    for i in range(10):
        n += 1
        write(0, n.to_bytes(8, "little") * 512)
        write(random.randrange(1, 2000), os.urandom(4096))
    time.sleep(0.002)
END

start_two()
{
	mkdir slots out tmp
	export DIRTYTRACK_STANDIN=$PWD/slots TMPDIR=$PWD/tmp DIRTYTRACK_STANDIN_HOLD=$PWD/hold
	"$cmd" run --slot ram=32M --slot more=16M true
	python3 "$top/guest2" &
	until_true test -e writing
}

pausing_two=(
	--pause-cmd 'touch pause; until [ -e paused ]; do sleep 0.01; done; cp slots/ram ram.new; cp slots/more more.new'
	--resume-cmd 'rm -f pause; while [ -e paused ]; do sleep 0.01; done'
)
keep_two='mv ram.new ram.$DIRTYTRACK_VERSION; mv more.new more.$DIRTYTRACK_VERSION'

backup_two()
{
	"$cmd" backup ram more "${target:-out}" "${pausing_two[@]}" "$@" >rows 2>err
}

# both_same VERSION: the files are what the slots were, at one moment.
both_same()
{
	local slot

	for slot in ram more; do
		qemu-img compare -q -f raw -F qcow2 "$slot.$1" "out/$slot.$1.qcow2" ||
			{ echo "version $1 of $slot"; return 1; }
		qemu-img dd -f qcow2 -O raw bs=4096 count=1 "if=out/$slot.$1.qcow2" "of=count.$slot"
	done
	cmp count.ram count.more
}

start()
{
	mkdir slots out tmp
	export DIRTYTRACK_STANDIN=$PWD/slots TMPDIR=$PWD/tmp DIRTYTRACK_STANDIN_HOLD=$PWD/hold
	"$cmd" run --slot ram=32M true
	dd if=/dev/urandom of=slots/ram bs=1M count=8 conv=notrunc status=none
}

# Not two at once: they would take bits from each other.
writes()
{
	python3 "$top/guest" "$@"
}

start_guest()
{
	python3 "$top/guest" &
	until_true test -e writing
}

# What a version is to be is copied in the pause, and gets its number when it is there. With
# a file "arm", no more is done in the pause.
pausing=(
	--pause-cmd 'touch pause; until [ -e paused ]; do sleep 0.01; done; cp slots/ram new; [ ! -e arm ] || echo 0 >hold'
	--resume-cmd 'rm -f pause; while [ -e paused ]; do sleep 0.01; done'
)
keep='mv new ref.$DIRTYTRACK_VERSION'
hold_next='[ $DIRTYTRACK_VERSION != 0 ] || echo 0 >hold'

# backup OPTION...: to an end.
backup()
{
	"$cmd" backup ram "${target:-out}" "$@" >rows 2>err
}

# In the background, by the command "wrap" if it is set.
wrap=()
start_backup()
{
	"${wrap[@]}" env --default-signal=INT "$cmd" backup ram "${target:-out}" --incremental --json \
		"$@" >rows 2>err &
	tool=$!
}

# fails STATUS TEXT OPTION...
fails()
{
	local want=$1 text=$2 got=0

	shift 2
	backup "$@" || got=$?
	[ "$got" = "$want" ] && said "$text" || { echo "status $got"; return 1; }
}

said()
{
	grep -qF -- "$1" err || { echo "not said: $1"; return 1; }
}

events()	# FILTER
{
	jq -cs "$1" rows
}

made()	# NUMBER
{
	[ "$(grep -c '"event": "version"' rows)" -ge "$1" ]
}

# same VERSION FILE: two readers of qcow2 find that in it.
same()
{
	qemu-img compare -q -f raw -F qcow2 "$2" "out/ram.$1.qcow2" &&
		qemu-img check -q "out/ram.$1.qcow2" &&
		[ "$(stat -c %a "out/ram.$1.qcow2")" = 600 ] ||
		{ echo "version $1 is not $2"; return 1; }
}

all_same()	# LAST
{
	local i

	for ((i = 0; i <= $1; i++)); do
		same "$i" "ref.$i" || return 1
	done
}

nothing_left()
{
	[ -z "$(find out tmp ! -type d)" ] && [ -z "$(ls tmp)" ] || { ls out tmp; return 1; }
}

# Versions 0 to LAST, and nothing else.
only()
{
	local i want=

	for ((i = 0; i <= $1; i++)); do want+="ram.$i.qcow2 "; done
	[ "$(ls out | paste -s -d ' ') " = "$want" ] && [ -z "$(ls tmp)" ] ||
		{ ls out tmp; return 1; }
}

# The pages that a file has itself, as data or as zeroes.
own_pages()	# VERSION FILTER
{
	qemu-img map --output=json "out/ram.$1.qcow2" |
		jq -c "[.[] | select(.depth == 0 and $2) |
			range(.start; .start + .length; 4096) / 4096]"
}

child()	# NAME
{
	pgrep -P "$tool" -x "$1" >pid
}

# ---- cases: functions named case_*; some have arguments ----

case_one_full()
{
	start && backup --no-pause --verify && same 0 slots/ram && only 0 &&
		grep -q '^VERSION ' rows && grep -q ' full .*/out/ram.0.qcow2$' rows &&
		# As large as what it holds.
		[ "$(stat -c %b out/ram.0.qcow2)" -lt $((9 * 2048)) ]
}

# They are what the memory was, and stay so where they are moved to, read as a whole.
case_busy_guest()
{
	start && start_guest &&
		backup --incremental --interval 0.3 --count 5 "${pausing[@]}" --after "$keep" &&
		all_same 4 && only 4 && mv out elsewhere || return 1
	qemu-img convert -O raw elsewhere/ram.3.qcow2 got && cmp got ref.3
}

case_verified()
{
	start && start_guest &&
		start_backup --interval 0.1 --count 3 "${pausing[@]}" --verify --after "$keep" &&
		ends 0 && all_same 2 &&
		[ "$(events 'map(select(.event == "verified") | [.pages, .different])')" = \
			"[[$pages,0],[$pages,0],[$pages,0]]" ]
}

case_only_what_changed()
{
	start && start_backup --no-pause && until_true made 1 &&
		writes 5-8 z100-102 4000-4010 z7000-7001 && kill -USR1 "$tool" &&
		until_true made 2 && writes z5-6 && kill -USR1 "$tool" && until_true made 3 &&
		kill "$tool" && ends 143 && same 2 slots/ram && only 2 || return 1
	# A zero page where there was nothing is not sent; beyond it there is no data.
	[ "$(own_pages 1 .data)" = '[5,6,7,4000,4001,4002,4003,4004,4005,4006,4007,4008,4009]' ] &&
		[ "$(own_pages 1 '(.data | not)')" = '[100,101]' ] &&
		[ "$(own_pages 2 .data)" = '[]' ] && [ "$(own_pages 2 .zero)" = '[5]' ] &&
		[ "$(events 'map(select(.event == "version") | [.version, .kind, .pages, .written, .zero])')" = \
			"[[0,\"full\",2048,8388608,0],[1,\"changes\",16,53248,3],[2,\"changes\",1,0,1]]" ]
}

case_holes()
{
	start && start_backup --no-pause && until_true made 1 &&
		fallocate -p -o $((50 * 4096)) -l $((300 * 4096)) slots/ram &&
		writes 3000-3001 && kill -USR1 "$tool" && until_true made 2 &&
		kill "$tool" && ends 143 && same 1 slots/ram &&
		[ "$(own_pages 1 .zero | jq length)" = 300 ]
}

case_nothing_changed()
{
	start && backup --incremental --interval 0.1 --count 3 --no-pause && same 2 slots/ram &&
		only 2 && [ "$(own_pages 1 true)" = '[]' ] && [ "$(stat -c %s out/ram.2.qcow2)" -lt 300000 ]
}

# The name of the target is that of the files.
case_named_file()
{
	start && target="out/a:b.qcow2" && backup --incremental --count 2 --interval 0.1 --no-pause &&
		[ "$(ls out | paste -s -d ' ')" = "a:b.0.qcow2 a:b.1.qcow2" ] &&
		qemu-img compare -q -f raw -F qcow2 slots/ram ./out/a:b.1.qcow2
}

case_full_every()
{
	start && start_backup --interval 0.05 --count 5 --full-every 2 --no-pause && ends 0 &&
		[ "$(events 'map(select(.event == "version").kind)')" = \
			'["full","changes","full","changes","full"]' ] &&
		! qemu-img info out/ram.2.qcow2 | grep -q backing &&
		rm out/ram.[01].qcow2 && same 3 slots/ram
}

case_version_removed()
{
	start && start_backup --no-pause && until_true made 1 && writes 1-2 &&
		rm out/ram.0.qcow2 && kill -USR1 "$tool" && until_true made 2 &&
		kill "$tool" && ends 143 && same 1 slots/ram && said "the next version is a full one"
}

# Nobody knows what was written in between.
case_restarted()
{
	start && backup --incremental --count 2 --interval 0.05 --no-pause && cp slots/ram ref.1 &&
		writes 20-40 && backup --incremental --count 2 --interval 0.05 --no-pause &&
		said "ram.1.qcow2: what was written since it was made is not known" &&
		same 1 ref.1 && same 2 slots/ram && same 3 slots/ram && only 3 &&
		! qemu-img info out/ram.2.qcow2 | grep -q backing
}

case_after_fails()
{
	start && fails 1 "failed with status 7" --no-pause --after 'exit 7' && same 0 slots/ram &&
		only 0
}

# Monitors and copies have logs of their own.
case_beside_others()
{
	local i monitor

	start && start_guest && start_backup --interval 0.1 --count 6 "${pausing[@]}" --after "$keep"
	"$cmd" rate ram --interval 0.2 --count 1000000 --json >rates &
	monitor=$!
	for ((i = 0; i < 3; i++)); do
		"$cmd" copy ram null: --no-pause >/dev/null 2>copy.err || return 1
	done
	ends 0 && all_same 5 && await "$monitor" saw_pages 20
}

# saw_pages NUMBER: the monitor did, at once.
saw_pages()
{
	[ "$(jq -s "map(.dirty) | max > $1" rates)" = true ]
}

case_several()
{
	start_two && backup_two --incremental --interval 0.2 --count 4 --after "$keep_two" \
		--verify -o VERSION,SLOT,KIND --noheadings --raw || return 1
	both_same 0 && both_same 1 && both_same 2 && both_same 3 && [ "$(ls out | wc -l)" = 8 ] &&
		[ -z "$(ls tmp)" ] && printf '%s\n' '0 ram full' '0 more full' '1 ram changes' \
		'1 more changes' '2 ram changes' '2 more changes' '3 ram changes' '3 more changes' |
		cmp - rows
}

# All of a version, or nothing of it: here the second file cannot get its name.
case_several_half()
{
	local i

	start_two || return 1
	DIRTYTRACK_STANDIN_DELAY=100 backup_two --incremental --interval 0.1 --count 4 \
		--retries 1000000 --json --after "$keep_two; ! [ \$DIRTYTRACK_VERSION = 1 ] || touch out/more.2.qcow2" &
	tool=$!
	until_true grep -q "more.2.qcow2: somebody else made it meanwhile" err &&
		until_true [ ! -e out/ram.2.qcow2 ] && [ -e out/ram.1.qcow2 ] &&
		rm out/more.2.qcow2 || return 1
	ends 0 && for i in 0 1 2 3; do both_same "$i" || return 1; done &&
		[ "$(ls out | wc -l)" = 8 ] && [ -z "$(ls tmp)" ] &&
		# What had a name is whole in the next; the other goes on.
		[ "$(events 'map(select(.event == "version" and .version == 2) | [.slot, .kind])')" = \
			'[["ram","full"],["more","changes"]]' ]
}

# A number is of one moment, also if one of them was alone before.
case_several_numbers()
{
	start_two && "$cmd" backup more out --incremental --count 3 --interval 0.01 --no-pause >rows &&
		backup_two --after "$keep_two" && both_same 3 && [ ! -e out/ram.0.qcow2 ] &&
		[ "$(ls out | wc -l)" = 5 ]
}

# Each to the export of its name.
case_several_to_a_server()
{
	mkdir exports && truncate -s 32M exports/ram && truncate -s 16M exports/more && start_two &&
		{ nbdkit -f -U "$PWD/nbd" file dir=exports & } &&
		until_true listens "$PWD/nbd" && target="nbd+unix:///?socket=$PWD/nbd" &&
		backup_two --incremental --interval 0.1 --count 3 --after \
			"$keep_two; cp exports/ram got.ram.\$DIRTYTRACK_VERSION; cp exports/more got.more.\$DIRTYTRACK_VERSION" ||
		return 1
	local i
	for i in 0 1 2; do
		cmp "ram.$i" "got.ram.$i" && cmp "more.$i" "got.more.$i" || return 1
	done
	target="nbd+unix:///name?socket=$PWD/nbd"
	! backup_two && said "it names an export"
}

is_left_clean_two()
{
	[ "$(ls out | paste -s -d ' ')" = "more.0.qcow2 ram.0.qcow2" ] && [ -z "$(ls tmp)" ] && is_running
}

case_several_killed()
{
	start_two || return 1
	"$cmd" backup ram more out --incremental --interval 0.2 \
		"${pausing_two[@]}" --after "$keep_two; $hold_next" --json >rows 2>err &
	tool=$!
	is_in_version && kill -KILL "$tool" && ends 137 &&
		until_true is_left_clean_two && both_same 0
}

case_several_refused()
{
	start_two && target=out/one.qcow2 && ! backup_two && said "wanted for several slots" &&
		target= && ! "$cmd" backup ram ram out --no-pause 2>err &&
		said "another backup makes versions there" && nothing_left
}

# To a server of the user's, whose content after each version is what counts.
case_server()
{
	start && qemu-img create -q -f qcow2 disk 32M
	qemu-nbd -f qcow2 -t -e 8 -k "$PWD/nbd" disk &
	until_true listens "$PWD/nbd" && start_guest || return 1
	target="nbd+unix:///?socket=$PWD/nbd"
	backup --incremental --interval 0.1 --count 4 "${pausing[@]}" \
		--after "$keep; nbdcopy '$target' got.\$DIRTYTRACK_VERSION" || return 1
	cmp ref.0 got.0 && cmp ref.1 got.1 && cmp ref.2 got.2 && cmp ref.3 got.3 &&
		[ "$(grep -c ' changes ' rows)" = 3 ] && nothing_left
}

# in_version: the second version is at work, and does not get on until "go_on".
in_version()
{
	start && start_guest &&
		start_backup --interval 0.2 "${pausing[@]}" --after "$keep; $hold_next" "$@" &&
		is_in_version
}

is_in_version()
{
	until_true [ -e hold ] && until_true is_held 1 && until_true child qemu-nbd
}

# is_held TIMES
is_held()
{
	[ "$(find . -maxdepth 1 -name 'hold.*' | wc -l)" = "$1" ]
}

case_server_killed()
{
	in_version --count 4 && kill -KILL "$(cat pid)" && go_on && ends 0 && all_same 3 && only 3 &&
		[ "$(events 'map(select(.event == "failed")) | length')" = 1 ] &&
		said "qemu-nbd: it was killed by signal 9"
}

# It does nothing while the guest stands still: the guest is not kept for it.
case_server_stuck()
{
	in_version --count 4 --timeout 2 && touch arm && go_on && until_true is_held 2 &&
		[ -e paused ] && rm arm hold && kill -STOP "$(cat pid)" && go_on &&
		until_true is_running && ends 0 && all_same 3 && only 3 &&
		said "nothing was done there in 2 s"
}

is_running()
{
	[ ! -e pause ] && [ ! -e paused ]
}

# A pause that is over leaves no file; what was made of the version goes, too.
is_left_clean()
{
	[ "$(ls out)" = ram.0.qcow2 ] && [ -z "$(ls tmp)" ] && is_running
}

case_killed()
{
	in_version && kill -KILL "$tool" && ends 137 && go_on && until_true is_left_clean &&
		same 0 ref.0 && backup --incremental --interval 0.1 --count 2 "${pausing[@]}" --after "$keep" &&
		all_same 2
}

case_killed_in_pause()
{
	in_version && touch arm && go_on && until_true is_held 2 && [ -e paused ] && rm arm hold &&
		kill -KILL "$tool" && ends 137 &&
		until_true is_left_clean && same 0 ref.0
}

case_interrupted()
{
	in_version && kill -INT "$tool" && go_on && ends 130 && is_left_clean && same 0 ref.0 &&
		[ "$(events '.[-1] | [.event, .versions, .signal]')" = '["end",1,2]' ]
}

case_interrupted_between()
{
	start && start_backup --no-pause && until_true made 1 && kill -TERM "$tool" &&
		ends 143 && only 0
}

# In a filesystem that is full, and then is not.  It is the command's alone.
case_no_space()
{
	local fs

	start
	wrap=(unshare -rm sh -c 'mount -t tmpfs -o size=12m none out && exec "$@"' sh)
	start_backup --retries 1000 --no-pause --after \
		'qemu-img compare -q -f raw -F qcow2 slots/ram "$DIRTYTRACK_FILE" && touch good.$DIRTYTRACK_VERSION'
	until_true test -e good.0 || return 1
	fs=/proc/$tool/root$PWD/out
	# Enough for the beginning of a version.
	head -c 20M /dev/zero >"$fs/filler" 2>/dev/null || :
	truncate -s -300K "$fs/filler"
	writes 4000-4500 && kill -USR1 "$tool" &&
		until_true grep -q "cannot write: No space left on device" err &&
		until_true only_filler && rm "$fs/filler" && kill -USR1 "$tool" &&
		until_true has_good_version || return 1
	kill "$tool" && ends 143
}

only_filler()
{
	ls "$fs" | grep -qx filler && ! ls "$fs" | grep -q partial && qemu-img check -q "$fs/ram.0.qcow2"
}

has_good_version()
{
	[ "$(events 'map(select(.event == "version" and .pages >= 500)) | length > 0')" = true ] &&
		[ -e "good.$(events 'map(select(.event == "version" and .pages >= 500))[0].version')" ]
}

case_fails_first()
{
	start && PATH=$PWD/bin:$PATH && mkdir bin && printf '#!/bin/sh\nexit 3\n' >bin/qemu-img &&
		chmod +x bin/qemu-img &&
		fails 1 "qemu-img: it failed with status 3" --incremental --interval 0.1 --no-pause &&
		nothing_left || return 1
	rm bin/qemu-img && printf '#!/bin/sh\nexit 4\n' >bin/qemu-nbd && chmod +x bin/qemu-nbd &&
		fails 1 "qemu-nbd: it failed with status 4" --incremental --interval 0.1 --no-pause &&
		nothing_left
}

failed()	# TIMES
{
	[ "$(grep -c '"event": "failed"' rows)" = "$1" ]
}

# Others in between may succeed.
case_gives_up()
{
	local i

	start && start_backup --retries 2 --no-pause && until_true made 1 &&
		until_true is_between || return 1
	for i in 1 2; do
		mkdir -p out/ram.partial/x && kill -USR1 "$tool" && until_true failed "$i" || return 1
	done
	rm -r out/ram.partial && kill -USR1 "$tool" && until_true made 2 &&
		until_true is_between && mkdir -p out/ram.partial/x || return 1
	for i in 3 4 5; do
		kill -USR1 "$tool" && until_true failed "$i" || return 1
	done
	ends 1 && said "Is a directory" && same 1 slots/ram &&
		[ "$(events '.[-1] | [.event, .versions, .status]')" = '["end",2,1]' ]
}

# Nothing of a version is under way, nor of its server.
is_between()
{
	[ ! -e out/ram.partial ] && ! child qemu-nbd
}

case_strict()
{
	local got=0

	start && start_guest || return 1
	backup "${pausing[@]}" --downtime 0 --max-rounds 1 --strict || got=$?
	# The guest has written nothing while it was copied.
	[ "$got" != 0 ] || return "$again"
	is status "$got" 3 && said "are allowed" && nothing_left && is_running
}

case_in_the_way()
{
	start && echo hello >out/ram.7.qcow2 &&
		fails 1 "is not a qcow2 image" --no-pause && [ "$(ls out)" = ram.7.qcow2 ] &&
		rm out/* && qemu-img create -q -f qcow2 out/ram.7.qcow2 16M &&
		fails 1 "it is of a slot of 16777216 bytes, this one has 33554432" --no-pause &&
		rm out/* && exec 9>out/ram.lock && flock 9 &&
		fails 1 "another backup makes versions there" --no-pause && [ "$(ls out)" = ram.lock ] &&
		target=none && fails 1 "neither a directory" --no-pause &&
		target=none/a.qcow2 && fails 1 "none: No such file" --no-pause &&
		target=null: && fails 2 "keeps no versions" --no-pause
}

# What a process that was killed with its guard left is used up.
case_leftovers()
{
	start && echo half >out/ram.partial && : >out/ram.lock && backup --no-pause &&
		same 0 slots/ram && only 0
}

cases=(
	one_full busy_guest verified only_what_changed holes nothing_changed named_file
	full_every version_removed restarted after_fails beside_others server
	server_killed server_stuck killed killed_in_pause interrupted interrupted_between no_space
	fails_first gives_up strict in_the_way leftovers
	several several_half several_numbers several_to_a_server several_killed several_refused
)
[ $# = 0 ] || cases=("$@")

run_cases 4 err rows
