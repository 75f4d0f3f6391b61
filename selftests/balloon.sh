#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Memory that a guest gives up goes back to the host, with an unmodified QEMU and a stock
# Debian kernel in slots: by virtio-balloon, by free page reporting, and by virtio-mem; and
# is not moved, when the guest is.  It checks its own memory, see tools/demo/workload.c.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"
# shellcheck source=selftests/guest.sh
. "$here/guest.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
built=${OUTPUT:-$here/../build/selftests}
demo=$here/../tools/demo
export DIRTYTRACK=$dirtytrack
export GUEST=${GUEST:-$here/../build/demo}

# ram MIB: of the next guest.
ram()
{
	export RAM_MIB=$1
	pages=$((RAM_MIB * 256))
	# What the host has may differ by so much from what the guest left: 1 %.
	slack=$((pages / 100))
}

# MiB and pages a second.
export WORKLOAD="24 500"
spare=96

need_kvm
[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
for file in "$dirtytrack" "$built/qmp"; do
	[ -x "$file" ] || bail_out "there is no $file: build tools and selftests first"
done
[ -s "$GUEST/vmlinux" ] || bail_out "there is no guest in $GUEST: run tools/demo/build-guest"
for program in jq nbdkit; do
	command -v $program >/dev/null || bail_out "$program is not installed"
done

dir=$(mktemp -d)
cd "$dir"
# The guest's process, and that of one who waits for it.
vm='' new=''
clean_up()
{
	stop_guest
	stop_new
	rm -rf "$dir"
}
trap clean_up EXIT

# ---- the guest ----

# boots QEMU-OPTION...
boots()
{
	begins console starts "$@"
}

starts()
{
	"$demo/start-guest" "$dir" "$@" >vm.out 2>&1 &
	vm=$!
}

stop_guest()
{
	[ -n "$vm" ] || return 0
	kill "$vm" 2>/dev/null || :
	wait "$vm" 2>/dev/null || :
	vm=
	rm -f console
}

tick()
{
	last_tick "$1" <console
}

has_ticked()
{
	kill -0 "$vm" && [ -e console ] && [ "$(tick 2)" -ge "$1" ]
}

# It goes on working, and no page is bad.
is_well()
{
	wait_for has_ticked $(($(tick 2) + 3)) && [ "$(tick 8)" = 0 ] &&
		! grep -q 'memory is bad' console
}

# ask COMMAND ARGUMENTS FILTER: what the filter makes of QEMU's answer.
ask()
{
	"$built/qmp" qmp2 "$1" "$2" | jq "$3"
}

# ---- memory ----

# resident SLOT: its pages that have memory.
resident()
{
	echo $(($("$dirtytrack" info "$1" --json | jq .resident) / 4096))
}

# is_near SLOT PAGES
is_near()
{
	local now

	now=$(resident "$1")
	[ "$now" -ge $(($2 - slack)) ] && [ "$now" -le $(($2 + slack)) ]
}

# near SLOT PAGES: soon, and says what it was.
near()
{
	local status=0

	wait_for is_near "$1" "$2" || status=1
	note "slot $1 has $(resident "$1") pages, wanted are $2"
	return "$status"
}

# populate SLOT SIZE: so that it is known what there is.
populate()
{
	"$dirtytrack" release "$1" --populate "0+$2" --json >populate.out &&
		[ "$(jq '.after / 4096' populate.out)" = "$(resident "$1")" ]
}

full()
{
	populate ram "${RAM_MIB}M" && [ "$(resident ram)" = "$pages" ]
}

# ---- virtio-balloon ----

balloon_is()
{
	[ "$(ask query-balloon '{}' .return.actual)" = "$1" ]
}

# balloon MIB: what is to be left to the guest.
balloon()
{
	local bytes=$(($1 << 20))

	ask balloon "{\"value\": $bytes}" .return >/dev/null && wait_for balloon_is "$bytes"
}

inflates()
{
	balloon "$1" && near ram $(($1 * 256))
}

# rises SLOT PAGES: to as many, or more.
rises()
{
	wait_for eval 'seen=$(resident '"$1"') && [ "$seen" -ge '"$2"' ]' ||
		{ note "slot $1 has $seen pages, not $2"; return 1; }
	note "slot $1 has $seen pages, wanted are $2"
}

# Deflating is a promise: memory comes when the guest touches it. It does at once, if not the
# same pages to the last one: half of them.
deflates()
{
	local before

	before=$(resident ram)
	balloon "$RAM_MIB" && rises ram $((before + (pages - before) / 2)) &&
		wait_for grep -q 'used new memory' console && full
}

# The first round is of pages that have memory, and no others: what was given back before is
# in no log any more, once there was one to tell. What the guest writes just then is left to a
# later one.
copies_what_is_there()
{
	local before sent

	"$dirtytrack" log ram --count 1 >/dev/null || return 1
	before=$(resident ram)
	within "$dirtytrack" copy --qmp qmp --verify --json ram image >copy.out 2>copy.err ||
		{ note "$(cat copy.err)"; return 1; }
	sent=$(jq -s 'map(select(.event == "round")) | .[0].pages' copy.out)
	note "$before pages have memory, $(resident ram) after the copy, whose first round has $sent"
	[ "$sent" -ge $((before * 3 / 4)) ] && [ "$sent" -le $((before + slack)) ] && [ "$(stat -c %b image)" -le $((before * 8)) ] &&
		is_near ram "$before"
}

# ---- a ballooned guest is moved ----

# What it leaves zero goes back first: then what has memory is what has content.
zeros_go()
{
	within "$dirtytrack" release ram --zero --json >zero.out 2>&1 || { note "$(cat zero.out)"; return 1; }
	before=$(resident ram)
	[ "$before" -gt $((pages / 10)) ] && [ "$before" -le $(($1 * 256 + slack)) ]
}

is_waiting()
{
	kill -0 "$new" && grep -qs "waiting for a guest" there.out
}

stop_new()
{
	[ -z "$new" ] || { kill "$new" && wait "$new"; } 2>/dev/null || :
	new=
}

# To a QEMU like its own, whose slot is "there".
moves()
{
	mkdir there
	RAM=there RECEIVE="--listen unix:$dir/socket --timeout 120" "$demo/start-guest" there \
		-device virtio-balloon-pci >there.out 2>&1 &
	new=$!
	wait_for is_waiting && written=$(tick 4) &&
		within "$dirtytrack" migrate --qmp qmp --answer 120 --downtime 2000 --verify \
			--json ram=there "nbd+unix:///?socket=$dir/socket" >migrate.out 2>migrate.err &&
		wait_for eval '! kill -0 "$vm" 2>/dev/null' ||
		{ note "$(cat there.out migrate.???)"; stop_new; return 1; }
	vm=$new new=''
	cd there
	wait_for has_ticked 1
}

# rounds FILTER: what the filter makes of them
rounds()
{
	jq -s "map(select(.event == \"round\")) | $1" "$dir/migrate.out"
}

# Each page with content once, and those once more that were written meanwhile: by the
# workload, which counts them, and a few in each round by the guest's kernel.
moved_what_is_there()
{
	local first later more

	first=$(rounds '.[0].written / 4096') later=$(rounds '.[1:] | map(.written / 4096) | add // 0')
	written=$(($(tick 4) - written))
	more=$(rounds 'length - 1')
	note "$before pages had memory; the first round sent $first, $more more sent $later; the guest wrote $written"
	[ "$first" -le $((before + slack)) ] && [ $((first + later)) -ge $((before - slack)) ] &&
		[ "$later" -le $((written + more * slack)) ]
}

# ---- free page reporting ----

used()
{
	grep -c 'used spare memory' console || :
}

# From when the guest frees its spare memory until it has used it again, and frees it:
# $low and $high are the pages that had memory.
watch_spare()
{
	local now seen

	seen=$(used)
	high=0 low=$pages
	while [ "$(used)" = "$seen" ] && [ $SECONDS -lt "$1" ]; do
		now=$(resident ram)
		[ "$now" -le "$high" ] || high=$now
		[ "$now" -ge "$low" ] || low=$now
		sleep 0.5
	done
	note "$low to $high pages of $pages, for a guest that uses $((spare * 256)) more at times"
	[ "$(used)" != "$seen" ]
}

# Runs of 2 MiB are reported, and not all that was freed is in one: half of it, and not
# yet in the first round, when much of the guest has just begun.
follows_spare()
{
	local end=$((SECONDS + 120 * ${DIRTYTRACK_SLOW:-1})) low high

	wait_for eval '[ "$(used)" -ge 1 ]' && watch_spare "$end" && watch_spare "$end" &&
		[ $((high - low)) -ge $((spare * 256 / 2)) ]
}

# ---- virtio-mem ----

hot_is()
{
	[ "$(ask qom-get '{"path": "vmem", "property": "size"}' .return)" = "$1" ]
}

hot()
{
	ask qom-set "{\"path\": \"vmem\", \"property\": \"requested-size\", \"value\": $1}" \
		.return >/dev/null && wait_for hot_is "$1"
}

# Of 64 MiB, of which the guest makes use at once; and which has what it reports as free again
# go back.
hot_pages=$((64 * 256))

plugs()
{
	hot $((64 << 20)) && rises hot $((hot_pages / 2)) && wait_for grep -q 'used new memory' console &&
		[ "$(resident hot)" -le "$hot_pages" ]
}

# Within 1 % of what was plugged. Nothing of that is the guest's any more.
unplugs()
{
	local slack=$((hot_pages / 100))

	populate hot 64M && rises hot $((hot_pages / 2)) && hot 0 && near hot 0
}

plan 20
ram 160
export KERNEL_OPTIONS="devices=1 touch=1"
check "a guest with a balloon boots" boots -device virtio-balloon-pci
[ "$ktap_failed" = 0 ] ||
	bail_out "no guest: $(cat vm.out; tail -n 5 console 2>/dev/null)"
check "all of its memory is there" full
check "inflated by 40 MiB: the host has as much more, within 1 %" inflates $((RAM_MIB - 40))
check "the guest is well" is_well
check "a copy is of what is there, and gives no memory" copies_what_is_there
check "deflated: memory comes back as the guest uses it" deflates
check "inflated again, by 24 MiB" inflates $((RAM_MIB - 24))
check "the guest is well" is_well
check "its zero pages go back" zeros_go $((RAM_MIB - 24))
check "it is moved to another QEMU, memory identical" moves
check "what was sent is what had memory, within 1 %" moved_what_is_there
check "as much has memory there, within 1 %" near there "$before"
check "the balloon is as it was" balloon_is $(((RAM_MIB - 24) << 20))
check "the guest is well" is_well
stop_guest
cd "$dir"

# With memory that can be plugged, its kernel keeps 64 MiB for devices of 32 bits; and it
# reports what is free only while that is more than 64 MiB.
ram 384
export KERNEL_OPTIONS="devices=1 touch=1 spare=$spare memhp_default_state=online_movable loglevel=7"
export SLOTS="hot=256M"
export MEMORY=${RAM_MIB}M,slots=1,maxmem=1G
check "a guest that reports free pages boots" boots \
	-device virtio-balloon-pci,free-page-reporting=on \
	-object "memory-backend-file,id=hot,share=on,size=256M,mem-path={hot}" \
	-device virtio-mem-pci,id=vmem,memdev=hot
has_ticked 2 ||
	bail_out "no guest: $(cat vm.out; tail -n 25 console 2>/dev/null)"
check "what it frees goes back to the host, and what it uses comes" follows_spare
check "virtio-mem: 64 MiB are plugged, and come as the guest uses them" plugs
check "the guest is well" is_well
check "they are unplugged, and go back to the host, within 1 %" unplugs
check "the guest is well" is_well
[ "$ktap_failed" = 0 ] || note "$(cat vm.out; tr -d '\r' <console | tail -n 30)"
finish
