#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# An unmodified program writes to a slot through its own mapping, and images are
# taken while it works: fio with its mmap engine, whose every block carries a
# checksum, so that fio itself says whether an image is right.
#
# The slot is full of noise before.  Blocks are an eighth of a page and are written
# in random order, so every page is written again and again, far apart: a page
# that is copied too early and not again keeps noise in some of its blocks.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

dirtytrack=${DIRTYTRACK:-$here/../build/tools/dirtytrack}
mib=16
rate=3000

[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -x "$dirtytrack" ] || bail_out "there is no $dirtytrack: run make tools"
command -v fio >/dev/null || bail_out "fio is not installed"

dir=$(mktemp -d)
cd "$dir"
owner=
watcher=
clean_up()
{
	local pid

	# The owner last: until then it is clear whose children the fios are.
	for pid in $(cat endless.pid fio.pid 2>/dev/null) $watcher $owner; do
		kill -KILL "$pid" 2>/dev/null || :
	done
	rm -rf "$dir"
}
trap clean_up EXIT

# What both the writing and the checking fio must agree on.
job=(--name=slot "--size=${mib}M" --bs=512 --rw=randwrite --verify=crc32c
	--verify_fatal=1 --allow_file_create=0 --thread --minimal)

# First a fio that writes without an end, then, over new noise, one that writes each
# block once.  The slot is there until this is killed.
# Arguments: path of the slot, options of fio.
cat > writer <<'EOS'
set -u
path=$1
shift

fill()
{
	dd if=noise of="$path" bs=1M conv=notrunc status=none || exit
}

# tell FILE TEXT: a file that is there has all its text
tell()
{
	echo "$2" > "$1.new" && mv "$1.new" "$1"
}

fill
tell slot "/proc/$$/fd/${path##*/}"
fio "$@" --loops=1000000 > endless.out 2>&1 &
tell endless.pid $!
until [ -e next ]; do sleep 0.1; done
kill -KILL "$(cat endless.pid)"
wait
fill
fio "$@" > fio.out 2>&1 &
tell fio.pid $!
wait $!
tell fio.status $?
# In its place: a child would outlive it, and keep the slot.
exec sleep 1000
EOS

verify_image()
{
	within fio "${job[@]}" --ioengine=psync --verify_only \
		"--filename=$1" > verify.out 2>&1
}

# Of a written image, so that there is no doubt that noise would be found.
verify_notices()
{
	cp image bad
	dd if=noise of=bad bs=512 count=1 seek=4711 skip=4711 conv=notrunc status=none
	! verify_image bad
}

fio_is_fine()
{
	wait_for test -e fio.status && [ "$(cat fio.status)" = 0 ]
}

# Since the slot was filled: what is not noise is from fio.
fio_has_written()
{
	! cmp -s noise "$(cat slot)"
}

fio_still_writes()
{
	local before

	before=$(watched)
	wait_for eval "[ \$(watched) -gt $((before + 1000)) ]"
}

# Pages that the watcher saw become dirty, one counted as often as it did.
watched()
{
	awk '$1 + 0 > 0 { sum += $2 } END { print sum + 0 }' rate.out
}

copy_paused()
{
	within "$dirtytrack" copy --pid "$(cat endless.pid)" --verify fio image.early \
		> early.out 2>&1
}

# Rounds of the long copy, before its pause, that had something to copy.
rounds()
{
	awk '$NF == "no" && $2 > 0' copy.out | wc -l
}

enough_happened()
{
	[ "$(rounds)" -ge 3 ] && [ "$(watched)" -ge $((4 * mib * 256)) ]
}

plan 9

head -c $((mib << 20)) /dev/urandom > noise
"$dirtytrack" run --slot "fio=${mib}M" -- sh writer "{fio}" \
	"${job[@]}" --ioengine=mmap --do_verify=0 "--filename={fio}" \
	"--rate_iops=$rate" > owner.out 2>&1 &
owner=$!
wait_for test -e endless.pid || bail_out "fio did not start: $(cat owner.out)"
wait_for fio_has_written || bail_out "fio writes nothing: $(cat endless.out)"

# One more consumer, whose harvests take write permission all the time.
"$dirtytrack" rate --interval 0.1 fio > rate.out 2>&1 &
watcher=$!

check "copy --pid pauses fio, image and memory are identical" copy_paused
check "the copy says so" grep -q "^identical: $((mib * 256)) pages" early.out
check "fio writes on after it" fio_still_writes

touch next
wait_for test -e fio.pid || bail_out "fio did not start again: $(cat owner.out)"
wait_for fio_has_written || bail_out "fio writes nothing: $(cat fio.out)"

# Started while fio writes, ends when fio has ended: what it has of the pages that
# it copied first must have been brought up to date.
within "$dirtytrack" copy --verify --downtime 0 --resume-cmd true \
	--pause-cmd 'until [ -e fio.status ]; do sleep 0.1; done' \
	fio image > copy.out 2>&1 &
copy=$!

check "fio ends without an error" fio_is_fine
check "the copy that began while fio wrote ends" wait "$copy"
check "fio finds every block of the image right" verify_image image
check "fio would have found a wrong one" verify_notices
check "fio finds every block of the slot right" \
	verify_image "$(cat slot)"

check "all this was of pages written again and again" enough_happened

note "$(cat early.out copy.out)"
note "the watcher saw $(watched) pages become dirty in $(wc -l < rate.out) harvests"
[ ! -s fio.out ] || note "fio: $(head -c 80 fio.out)"
finish
