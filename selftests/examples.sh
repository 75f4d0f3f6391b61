#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The programs of Documentation/userspace-api print what it says that they print, and use
# every ioctl and flag that there is. They were compiled with the selftests.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

doc=$here/../Documentation/userspace-api/dirtytrack.rst
uapi=$here/../uapi/linux/dirtytrack.h
built=${EXAMPLES:-$here/../build/selftests/examples}

[ -c /dev/dirtytrack ] || bail_out "there is no /dev/dirtytrack: is the module loaded?"
[ -d "$built" ] || bail_out "there is no $built: build the selftests"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$here/extract-examples" "$doc" "$dir" >"$dir/list" || bail_out "$doc: cannot be taken apart"
mapfile -t programs <"$dir/list"

# From the sources that are in the text now.
prints_what_it_says()
{
	local status=0

	if ! cmp -s "$dir/$1.c" "$built/$1.c" || ! cmp -s "$dir/example.h" "$built/example.h"; then
		note "$built/$1 was not made from the text: build the selftests"
		return 1
	fi
	within "$built/$1" >"$dir/printed" 2>&1 </dev/null || status=$?
	[ "$status" = 0 ] || note "status $status"
	diff -u "$dir/$1.out" "$dir/printed" >"$dir/diff" || {
		note "$(cat "$dir/diff")"
		return 1
	}
	return "$status"
}

# By name, in a program: the constants that are no limits.
uses_all()
{
	local name missing=0

	while read -r name; do
		grep -qw "$name" "$dir"/*.c || {
			note "no program uses $name"
			missing=1
		}
	done < <(sed -nE 's/^#define (DIRTYTRACK_[A-Z_]+)[[:space:]]+(_IO|\(1U).*/\1/p' "$uapi")
	return "$missing"
}

plan $((${#programs[@]} + 1))
for program in "${programs[@]}"; do
	check "$program" prints_what_it_says "$program"
done
check "every ioctl and flag is in an example" uses_all
finish
