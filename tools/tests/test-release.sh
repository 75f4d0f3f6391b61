#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dirtytrack release, on a stand-in for the module: which pages lose their memory, which
# keep it, and what is no range of pages.
# shellcheck disable=SC2317 # cases are called by their names
set -eu

# shellcheck source=tools/tests/cases.sh
. "$SRC/tests/cases.sh"
# shellcheck source=tools/tests/slots.sh
. "$SRC/tests/slots.sh"

cmd=$OUT/tests/dirtytrack-standin
top=$(mktemp -d /dev/shm/test-release.XXXXXX)
trap 'rm -rf "$top"' EXIT

# Of a slot's data, what "zero" makes zero keeps its memory.
# zero FIRST COUNT
zero()
{
	dd if=/dev/zero of="$ram" bs=4k seek="$1" count="$2" conv=notrunc status=none
}

# holes: as "FIRST+COUNT" one after the other, read without touching them.
holes()
{
	qemu-img map --output=json -f raw "$ram" |
		jq -r '[.[] | select(.data | not) | "\(.start / 4096)+\(.length / 4096)"] | join(" ")'
}

# release ARGUMENT...: its JSON in "out".
release()
{
	"$cmd" release ram --json "$@" >out 2>err
}

# start ARGUMENT...: the same, while the test goes on.
start()
{
	start_tool release ram --json "$@"
}

# figures KEY...
figures()
{
	local key filter=

	for key; do
		filter+=${filter:+,}.$key
	done
	jq -c "[$filter]" out
}

# refused TEXT ARGUMENT...: with that text; and nothing was released.
refused()
{
	local text=$1 status=0

	shift
	"$cmd" release ram "$@" >out 2>err </dev/null || status=$?
	if [ "$status" = 0 ] || [ "$status" -ge 128 ] || ! grep -qF -- "$text" err; then
		echo "$*: status $status, or '$text' missing in: $(cat err)"
		return 1
	fi
	is "holes after $*" "$(holes)" ""
}

# ---- ranges ----

case_arguments()
{
	new_slot &&
	release 5 10-19 100+50 4M-5M 8M+8K 3000-3000 16380K-16M &&
	is holes "$(holes)" "5+1 10+10 100+50 1024+256 2048+2 3000+1 4095+1" &&
	is figures "$(figures asked before released after)" \
		"[$((321 * 4096)),16777216,$((321 * 4096)),$((16777216 - 321 * 4096))]"
}

# In any order, one over the other, one beside the other: each page counts once.
case_overlapping()
{
	new_slot &&
	release 20-29 10+10 15-25 15-25 28 4000-4095 &&
	is holes "$(holes)" "10+20 4000+96" &&
	is figures "$(figures asked released)" "[$((116 * 4096)),$((116 * 4096))]" &&
	# They have none any more.
	release 0-99 &&
	is figures "$(figures asked released)" "[$((100 * 4096)),$((80 * 4096))]"
}

# Calls of the stand-in end after 1000 pages, wherever that is.
case_all()
{
	new_slot &&
	release 0+16M --progress &&
	is holes "$(holes)" "0+4096" &&
	is figures "$(figures released after)" "[16777216,0]"
}

case_text_file()
{
	new_slot &&
	printf '# free\n 5,7-8\t100+1K\n\n9 # one more\n1M+4K' >list 2>&1 &&
	! release --file list &&
	grep -qF "list, line 2: '100+1K' is no range" err &&
	is holes "$(holes)" "" &&
	printf '# free\n 5,7-8\t100+8K\n\n9 # one more\n1M+4K' >list &&
	release --file list 50 &&
	is holes "$(holes)" "5+1 7+3 50+1 100+2 256+1" &&
	release --file - --format text <<<"60-62" &&
	is holes "$(holes)" "5+1 7+3 50+1 60+3 100+2 256+1"
}

# As other commands of dirtytrack print them, and as people write them.
case_json_file()
{
	new_slot &&
	cat >list <<-'END' &&
		{"report": 1, "ranges": [{"first": 4, "pages": 2, "state": "data"}]}
		[{"first": 10, "npages": 3}, [20, 5]]
		{"first": 4095, "pages": 1}
	END
	release --file list &&
	is holes "$(holes)" "4+2 10+3 20+5 4095+1" &&
	"$cmd" log ram --all-set --json >all &&
	release --file all &&
	is holes "$(holes)" "0+4096"
}

# Page 16, and 4096 from page 1024 on, which is too much; 1024 are not.
case_binary_file()
{
	new_slot &&
	printf '\1\0\1\0\0\0\0\0\0\0\100\0\0\0\0\0\0\20\0\0\0\0\0\0' >list &&
	! release --file list --format binary &&
	grep -qF 'it has 4096 pages, and a range ends with page 5119' err &&
	printf '\1\0\1\0\0\0\0\0\0\0\100\0\0\0\0\0\0\4\0\0\0\0\0\0' >list &&
	release --file list --format binary &&
	is holes "$(holes)" "16+1 1024+1024"
}

case_many()
{
	new_slot &&
	# A million, of 2048 pages, and each of them often.
	seq 0 999999 | awk '{ print 2 * ($1 * 7919 % 2048) }' >list &&
	release --file list &&
	is figures "$(figures asked released)" "[8388608,8388608]" &&
	is "number of holes" "$(holes | wc -w)" 2048
}

case_bad_ranges()
{
	new_slot &&
	for range in x 5- -5 +5 5+ 5+0 9-8 5-x 1K 1.5 5+4097B 0x10 5+5+5 1M-1M 7:9 \
			"$(printf '%070d' 1)"; do
		refused "is no range of pages" -- "$range" || return 1
	done &&
	refused "is no range of pages" 7 8 9 ten &&
	refused "too large" 18446744073709551616 &&
	refused "too large" 0-18446744073709551615 &&
	refused "too large" 1+18446744073709551615 &&
	refused "too large" 0+99999999999E &&
	refused "it has 4096 pages, and a range ends with page 4096" 0-4096 &&
	refused "it has 4096 pages, and a range ends with page 4096" 5 4096 &&
	refused "it has 4096 pages" 5 18446744073709551614
}

case_bad_files()
{
	new_slot &&
	refused "No such file" --file nonesuch &&
	refused "Is a directory" --file . &&
	for json in '[' '[5]' '{"first": 1}' '[[1]]' '[[1,2,3]]' '[{"first": -1, "pages": 1}]' \
			'[{"first": 1.5, "pages": 1}]' '[{"first": "1", "pages": 1}]' \
			'[[1,0]]' '{"ranges": 5}' '5' '[[1,2]] x' '[[1,18446744073709551615]]'; do
		printf '%s' "$json" >list
		refused "no JSON with ranges of pages" --file list --format json || return 1
	done &&
	printf '\1\0\0\0\0\0\0' >list &&
	refused "it ends within range 1" --file list --format binary &&
	printf '\1\0\0\0\0\0\0\0\0\20\0\0\0\0\0\0' >list &&
	refused "it ends within range 2" --file list --format binary &&
	head -c 16 /dev/zero >list &&
	refused "range 1 has no pages" --file list --format binary &&
	head -c 16 /dev/zero | tr '\0' '\377' >list &&
	refused "range 1 is too large" --file list --format binary &&
	refused "is no range of pages" --file list &&
	: >list &&
	release --file list &&
	is figures "$(figures asked released)" "[0,0]"
}

case_usage()
{
	new_slot &&
	refused "which pages?" &&
	refused "only one of" --zero --populate &&
	refused "not of ranges" --zero 5 &&
	refused "not of ranges" --cold 1 --file x &&
	echo 5 >list &&
	refused "'list' would be the second one" --file list --file list &&
	refused "'list' would be the second one" --file - --file list &&
	refused "--format is for --file" --format json 5 &&
	refused "none of text, json and binary" --file x --format yaml &&
	refused "--node is for --populate" 5 --node 0 &&
	refused "'x' is not the number of a node" 5 --populate --node x &&
	refused "--watch is for --zero" 5 --watch 1 &&
	refused "--count is for --watch" --zero --count 1 &&
	refused "--interval is for --cold" --zero --interval 1 &&
	refused "less than a millisecond" --zero --watch 0 &&
	refused "releases nothing anyway" --cold 1 --dry-run
}

case_dry_run()
{
	new_slot &&
	release 10-19 &&
	release --dry-run 5-14 &&
	is holes "$(holes)" "10+10" &&
	is figures "$(figures asked before released after)" \
		"[40960,$((4086 * 4096)),20480,$((4081 * 4096))]" &&
	release --dry-run --populate 5-14 &&
	is holes "$(holes)" "10+10" &&
	is figures "$(figures populated after)" "[20480,$((4091 * 4096))]" &&
	zero 100 10 &&
	release --dry-run --zero &&
	is holes "$(holes)" "10+10" &&
	is figures "$(figures zero released)" "[40960,40960]"
}

case_populate()
{
	new_slot &&
	release 1000-3999 &&
	release --populate 0+12M --node 0 &&
	is holes "$(holes)" "3072+928" &&
	is figures "$(figures asked before populated after)" \
		"[12582912,$((1096 * 4096)),$((2072 * 4096)),$((3168 * 4096))]" &&
	! release --populate 5 --node 9 &&
	grep -qF "there is no node 9 with memory" err
}

# stopped KEY ARGUMENT...: of 9000 pages, which are three steps of 4096 ranges at most, and
# calls of 1000 pages: it is interrupted in the first call of the second step. What it is told to
# do again, it does for the rest.
stopped()
{
	local key=$1
	shift

	rm -f hold.*
	hold 5 && start --file list --progress "$@" && until_true held 6 &&
	kill -INT "$tool" &&
	# Progress is shown after 0.2 seconds.
	sleep 0.3 && go_on && ends 130 &&
	is "$key" "$(figures asked "$key")" "[$((9000 * 4096)),$((8192 * 4096))]" &&
	is progress "$(tr '\r' '\n' <err | sed 's/^.\[K//' | grep . | tail -n 1)" \
		"8192 of 9000 pages, 91%" &&
	release --file list "$@" &&
	is "rest: $key" "$(figures asked "$key")" "[$((9000 * 4096)),$((808 * 4096))]"
}

case_interrupted()
{
	new_slot &&
	truncate -s 0 "$ram" &&
	truncate -s $((18000 * 4096)) "$ram" &&
	truncate -s 4096 "$ram.dirty" &&
	seq 0 2 17998 >list &&
	stopped populated --populate &&
	is resident "$(stat -c %b "$ram")" $((9000 * 8)) &&
	stopped released &&
	is resident "$(stat -c %b "$ram")" 0
}

# ---- zero pages ----

case_zero()
{
	new_slot &&
	zero 0 1 &&
	zero 100 300 &&
	zero 511 2 &&
	zero 4000 96 &&
	cp "$ram" before &&
	release --zero &&
	is holes "$(holes)" "0+1 100+300 511+2 4000+96" &&
	is figures "$(figures looked zero released skipped)" \
		"[16777216,$((399 * 4096)),$((399 * 4096)),0]" &&
	cmp before "$ram" &&
	# Holes are not looked at.
	release --zero &&
	is figures "$(figures looked zero released)" "[$((3697 * 4096)),0,0]"
}

# Written and declared after it was looked at, and before it is released: the pass before
# that is the harvest.
case_written_meanwhile()
{
	new_slot &&
	zero 100 10 &&
	hold 1 && start --zero && until_true held 2 &&
	printf new | dd of="$ram" bs=4k seek=105 conv=notrunc status=none &&
	dirty 1 0000020000000000 &&
	go_on && ends 0 &&
	is holes "$(holes)" "100+5 106+4" &&
	is figures "$(figures zero released skipped)" "[40960,36864,4096]" &&
	is content "$(dd if="$ram" bs=4k skip=105 count=1 status=none | head -c 3)" new
}

# Each look is at what was written since the one before.
case_watch()
{
	new_slot &&
	zero 100 10 &&
	start --zero --watch 0.3 &&
	until_true lines 2 &&
	is "first look" "$(jq -cs '.[0] | [.looked, .released]' out)" '[16777216,40960]' &&
	# What it released is in the log, too, as holes.
	is "second look" "$(jq -cs '.[1] | [.looked, .released]' out)" '[0,0]' &&
	zero 200 3 &&
	dirty 3 0000000000001f00 &&
	until_true grep -q '"looked": 20480' out &&
	kill -INT "$tool" &&
	ends 130 &&
	is holes "$(holes)" "100+10 200+3" &&
	is looks "$(jq -cs 'map(select(.looked > 0)) | map([.looked, .zero, .released])' out)" \
		'[[16777216,40960,40960],[20480,12288,12288]]' &&
	"$cmd" release ram --zero --watch 0.01 --count 3 -n >out &&
	is lines "$(wc -l <out)" 3
}

# Its neighbours are looked at, and it is left as it is; that is said once.
case_broken()
{
	new_slot &&
	zero 100 10 &&
	export DIRTYTRACK_STANDIN_BROKEN=105 &&
	release --zero --watch 0.01 --count 3 -o LOOKED,ZERO,RELEASED,BROKEN &&
	is holes "$(holes)" "100+5 106+4" &&
	is looks "$(jq -cs 'map([.looked, .zero, .released, .broken])' out)" \
		"[[$((4095 * 4096)),36864,36864,4096],[0,0,0,0],[0,0,0,0]]" &&
	dirty 1 0000020000000000 &&
	start --zero --watch 0.01 -o LOOKED,ZERO,RELEASED,BROKEN && until_true lines 2 &&
	dirty 1 0000020000000000 && until_true broken_again &&
	kill -INT "$tool" && ends 130 &&
	is messages "$(cat err)" \
		"dirtytrack: slot ram: page 105 cannot be read: Input/output error; such pages are left as they are"
}

broken_again()
{
	[ "$(jq -s 'map(.broken) | add' out)" = 8192 ]
}

# ---- cold pages ----

case_cold()
{
	new_slot &&
	release 1000-1999 &&
	hold 0 && start --cold 4 --interval 0.5 && until_true held 1 &&
	# Page 0, 100 pages from 64 on, and the last one.
	dirty 0 0000000000000001 &&
	dirty 1 ffffffffffffffff &&
	dirty 2 0000000fffffffff &&
	hold 3 && until_true held 4 &&
	dirty 63 8000000000000000 &&
	go_on && ends 0 &&
	is ranges "$(jq -cs 'map([.first, .pages, .size])' out)" \
		"[[1,63,258048],[164,836,$((836 * 4096))],[2000,2095,$((2095 * 4096))]]" &&
	# Nothing was released.
	is holes "$(holes)" "1000+1000"
}

# A page is released when it was found to have memory: the list does not end there.
case_cold_released_meanwhile()
{
	new_slot &&
	release 1000-1999 &&
	DIRTYTRACK_STANDIN_RELEASED=2000 release --cold 1 --interval 0.1 &&
	is ranges "$(jq -cs 'map([.first, .pages])' out)" "[[0,1000],[2001,2095]]"
}

cases=(arguments overlapping all text_file json_file binary_file many bad_ranges bad_files
	usage dry_run populate interrupted zero written_meanwhile watch broken cold
	cold_released_meanwhile)
[ $# = 0 ] || cases=("$@")

run_cases 4 out err
