#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What is installed can be used from C and C++, exports what its header declares, and
# is removed without a trace.
set -eu

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0 bad=0
prefix=$tmp/root/opt/dt
# An O of its own would build everything again: the directory above OUT is O.
install=(make -s -f "$SRC/Makefile" O="${OUT%/*}" PREFIX=/opt/dt DESTDIR="$tmp/root")
case $OUT in
*-san)	install+=(SANITIZE=1)
	san=(-fsanitize=address -fsanitize=undefined) ;;
*)	san=() ;;
esac

check()
{
	local name=$1

	shift
	n=$((n + 1))
	if "$@" >"$tmp/log" 2>&1; then
		echo "ok $n $name"
	else
		sed 's/^/# /' "$tmp/log"
		echo "not ok $n $name"
		bad=$((bad + 1))
	fi
}

installs()
{
	"${install[@]}" install &&
		[ -x "$prefix/bin/dirtytrack" ] &&
		[ "$(readelf -d "$prefix/lib/libdirtytrack.so" |
		     sed -n 's/.*soname: \[\(.*\)\]/\1/p')" = libdirtytrack.so.0 ] &&
		[ -e "$prefix/lib/libdirtytrack.so.0" ] &&
		[ -e "$prefix/share/man/man1/dirtytrack.1" ] &&
		[ -e "$prefix/share/bash-completion/completions/dirtytrack" ]
}

flags()
{
	PKG_CONFIG_PATH=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/root \
		pkg-config "$@" libdirtytrack
}

# The example of the manual page, as it is printed there.
example()
{
	sed -n '/^\.SH EXAMPLES/,/^\.EE/p' \
		"$SRC/../Documentation/man/libdirtytrack.3" |
		sed -e '/^\./d' -e 's/\\-/-/g' -e 's/\\e/\\/g'
}

links_from_c()
{
	example >"$tmp/example.c"
	# shellcheck disable=SC2046
	$CC -Wall -Wextra -Werror -std=c99 -pedantic "${san[@]}" -o "$tmp/example" \
		"$tmp/example.c" $(flags --cflags --libs) &&
	# Without a module it says so, through the shared library.
	if [ -e /dev/dirtytrack ]; then
		LD_LIBRARY_PATH=$prefix/lib "$tmp/example"
	else
		! LD_LIBRARY_PATH=$prefix/lib "$tmp/example" 2>"$tmp/err" &&
			grep -q 'No such file' "$tmp/err"
	fi
}

links_from_cxx()
{
	cat >"$tmp/user.cc" <<-'EOF'
	#include <dirtytrack.h>
	int main()
	{
		uint64_t first, count, sum = 0;
		uint64_t bitmap[2] = { 0x8000000000000001, 1 };

		dtrack_for_each_run(first, count, bitmap, 128)
			sum += count;
		return sum == 3 && dtrack_bitmap_test(bitmap, 64) ? 0 : 1;
	}
	EOF
	# shellcheck disable=SC2046
	$CXX -Wall -Wextra -Werror -std=c++11 "${san[@]}" -o "$tmp/user" \
		"$tmp/user.cc" $(flags --cflags --libs) &&
		LD_LIBRARY_PATH=$prefix/lib "$tmp/user"
}

# Declared, in the map, exported with a version: three lists that are one.
symbols_agree()
{
	grep -v '^static' "$SRC/lib/dirtytrack.h" | grep -oE '\bdtrack_[a-z_]+\(' |
		tr -d '(' | grep -vE '_test$|_words$|_runs_of$|_runs_next$|for_each_run$' |
		sort -u >"$tmp/declared"
	grep -oE '^	dtrack_[a-z_]+' "$SRC/lib/libdirtytrack.map" | tr -d '\t' |
		sort >"$tmp/map"
	nm -D --defined-only "$prefix/lib/libdirtytrack.so" |
		awk '$2 == "T" { print $3 }' | grep dtrack |
		sed 's/@@LIBDIRTYTRACK_0$//' | sort >"$tmp/exported"
	diff -u "$tmp/declared" "$tmp/map" && diff -u "$tmp/map" "$tmp/exported"
}

# Every function has a manual page that names it.
functions_are_in_the_manual()
{
	local symbol

	[ "$(cat "$prefix/share/man/man3/dtrack_peek.3")" = ".so man3/dtrack_harvest.3" ] ||
		return 1
	while read -r symbol; do
		grep -hA1 '^\.SH NAME' "$SRC"/../Documentation/man/*.3 |
			grep -qw "$symbol" || {
			echo "$symbol is in no NAME section"
			return 1
		}
	done <"$tmp/map"
}

uninstalls()
{
	"${install[@]}" uninstall &&
		[ -z "$(find "$tmp/root" -type f -o -type l)" ]
}

echo "TAP version 13"
echo "1..6"
check "install" installs
check "the example of the manual page builds and runs" links_from_c
check "the header and library work from C++" links_from_cxx
check "header, map and library agree" symbols_agree
check "every function is in the manual" functions_are_in_the_manual
check "uninstall leaves nothing" uninstalls
echo "# Totals: pass:$((n - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
[ "$bad" = 0 ]
