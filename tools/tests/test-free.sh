#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack copy --free, on a stand-in for the module: pages that are said to be free are
# left out, unless they are written after that was said.
# shellcheck disable=SC2317 # cases are called by their names
set -eu

# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/slots.sh
. "$SRC/tests/slots.sh"

cmd=$OUT/tests/dirtytrack-standin
top=$(mktemp -d /dev/shm/test-free.XXXXXX)
trap 'rm -rf "$top"' EXIT

# copy OPTION...
copy()
{
	"$cmd" copy ram image --no-pause --json "$@" >out 2>err
}

start_copy()
{
	start_tool copy ram image --no-pause --json "$@"
}

# write PAGE: as a guest does.
write()
{
	printf new | dd of="$ram" bs=4k seek="$1" conv=notrunc status=none &&
		printf '%b' "\\x$(printf %02x $((1 << $1 % 8)))" |
		dd of="$ram.dirty" bs=1 seek=$(($1 / 8)) conv=notrunc status=none
}

# The image has zeros in the pages, "FIRST COUNT" each, and else what is in memory.
zeroed()
{
	cp "$ram" want
	while [ $# != 0 ]; do
		dd if=/dev/zero of=want bs=4k seek="$1" count="$2" conv=notrunc status=none
		shift 2
	done
	cmp want image
}

# Pages sent as data, in all rounds.
sent()
{
	jq -s 'map(select(.event == "round") | .written) | add / 4096' out
}

said()
{
	grep -qF -- "$1" err || {
		echo "'$1' was not said, but: $(cat err)"
		return 1
	}
}

case_left_out()
{
	new_slot && echo '5 100-199 2000+1000 4095 150-159' >free &&
		copy --free free --verify && zeroed 5 1 100 100 2000 1000 4095 1 &&
		said '1102 pages are free and left out; 0 were written meanwhile' &&
		is sent "$(sent)" $((4096 - 1102))
}

case_json()
{
	new_slot && echo '{"ranges": [{"first": 100, "pages": 4}]}' >free &&
		copy --free - <free && zeroed 100 4
}

case_binary()
{
	new_slot && printf '\1\0\1\0\0\0\0\0' >free &&
		copy --free free --free-format binary && zeroed 16 1
}

# Everything is free: nothing but zeros.
case_all()
{
	new_slot && echo 0+16M >free && copy --free free --verify && zeroed 0 4096 &&
		is sent "$(sent)" 0
}

# They have no memory, so nothing is to be left out.
case_holes()
{
	new_slot && fallocate -p -o 40960 -l 40960 "$ram" && echo 15-24 >free &&
		copy --free free --verify && zeroed 15 10 && is sent "$(sent)" $((4096 - 15))
}

# Said at some time after the copy began, when there is a log of what is written meanwhile.
case_written_meanwhile()
{
	new_slot && mkfifo free && start_copy --free free --verify &&
		until_true has_logs "$ram" 2 && write 105 && write 300 &&
		echo 100-199 >free && ends 0 &&
		said '99 pages are free and left out; 1 were written meanwhile' &&
		zeroed 100 5 106 94 && is sent "$(sent)" $((4096 - 99))
}

# In the first round: the pass before it is for what was written while it was being said.
case_written_later()
{
	new_slot && echo 100-199 >free && hold 1 && start_copy --free free --verify &&
		until_true held 2 && said '100 pages are free' && write 150 && go_on && ends 0 &&
		zeroed 100 50 151 49
}

# refused TEXT OPTION...: and there is no image.
refused()
{
	local text=$1 status=0

	shift
	copy "$@" || status=$?
	is "status of $*" "$status" 1 && said "$text" && is image "$(echo image*)" 'image*'
}

case_refused()
{
	new_slot && echo 4000-4096 >outside && echo five >bad &&
		refused 'it has 4096 pages, and a range ends with page 4096' --free outside &&
		refused "'five' is no range of pages" --free bad &&
		refused 'No such file' --free nonesuch &&
		refused 'it ends within range 1' --free bad --free-format binary &&
		! copy --free bad --free-format yaml && said 'none of text, json and binary'
}

case_interrupted()
{
	new_slot && mkfifo free && start_copy --free free &&
		until_true has_logs "$ram" 2 && kill -INT "$tool" && ends 130 &&
		is image "$(echo image*)" 'image*'
}

cases=(left_out json binary all holes written_meanwhile written_later refused interrupted)
[ $# = 0 ] || cases=("$@")

run_cases 4 out err
