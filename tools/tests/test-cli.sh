#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The command without a module: what it says of itself agrees with its manual pages,
# its completion and its exit statuses.
set -eu

cmd=$OUT/dirtytrack
man=$SRC/../Documentation/man
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0 bad=0
commands=$("$cmd" help --words | grep -v '^help$')

check()
{
	local name=$1

	shift
	n=$((n + 1))
	if "$@"; then
		echo "ok $n $name"
	else
		echo "not ok $n $name"
		bad=$((bad + 1))
	fi
}

# exits STATUS TEXT COMMAND...: with that text on standard error.
exits()
{
	local want=$1 text=$2 got=0

	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
	[ "$got" = "$want" ] && grep -qF -- "$text" "$tmp/err" && return
	echo "# $*: status $got, not $want, or '$text' missing in: $(cat "$tmp/err")"
	return 1
}

help_and_version()
{
	[ "$("$cmd" --version)" = "$("$cmd" -V)" ] &&
		"$cmd" --version | grep -qE '^dirtytrack [0-9]+\.[0-9]+\.[0-9]+$' &&
		"$cmd" --help | grep -q '^Usage: dirtytrack' &&
		[ "$("$cmd" help)" = "$("$cmd" -h)" ]
}

each_command_has_help()
{
	local c

	for c in $commands; do
		"$cmd" help | grep -qE "^  $c +[A-Z]" || return 1
		[ "$("$cmd" "$c" --help)" = "$("$cmd" help "$c")" ] || return 1
		[ "$("$cmd" "$c" -h)" = "$("$cmd" help "$c")" ] || return 1
	done
}

usage_errors()
{
	exits 2 "Usage:" "$cmd" &&
	exits 2 "there is no command 'nonesuch'" "$cmd" nonesuch &&
	exits 2 "there is no command 'nonesuch'" "$cmd" help nonesuch &&
	exits 2 "dirtytrack: list: unrecognized option '--nonesuch'" "$cmd" list --nonesuch &&
	exits 2 "Try 'dirtytrack list --help'" "$cmd" list --nonesuch &&
	exits 2 "'x' is one argument too many" "$cmd" list x &&
	exits 2 "there is no column 'NONESUCH'" "$cmd" list -o ID,NONESUCH &&
	exits 2 "there is no column ''" "$cmd" list -o ID, &&
	exits 2 "'y' is one argument too many" "$cmd" info x y &&
	exits 2 "which slot?" "$cmd" log &&
	exits 2 "'x' is not a number of seconds" "$cmd" log vm -i x &&
	exits 2 "'0' is not a count" "$cmd" log vm -c 0 &&
	exits 2 "--follow and --bitmap do not go together" "$cmd" log vm -f --bitmap &&
	exits 2 "--follow and --peek do not go together" "$cmd" log vm --peek -f &&
	exits 2 "--ring is for --follow" "$cmd" log vm --ring 64 &&
	exits 2 "'0' is not a number of pages from 1 to 10000000" "$cmd" log vm --limit 0 &&
	exits 2 "'10000001' is not a number of pages" "$cmd" rate vm --limit 10000001 &&
	exits 2 "'x' is one argument too many" "$cmd" rate vm x &&
	exits 2 "which slot?" "$cmd" rate &&
	exits 2 "less than a millisecond" "$cmd" rate vm -i 0 &&
	exits 2 "which slot?" "$cmd" release &&
	exits 2 "which pages?" "$cmd" release vm &&
	exits 2 "'x' is no range of pages" "$cmd" release vm 5 x &&
	exits 2 "a slot and a target are wanted" "$cmd" copy vm &&
	exits 2 "how is the guest paused?" "$cmd" copy vm file &&
	exits 2 "only one of" "$cmd" copy vm file --qmp q --pid 1 &&
	exits 2 "no use without the other" "$cmd" copy vm file --resume-cmd true &&
	exits 2 "'0' is not a process id" "$cmd" copy vm file --pid 0 &&
	exits 2 "not a number of milliseconds" "$cmd" copy vm file --no-pause --downtime 1s &&
	exits 2 "a slot and a target are wanted" "$cmd" backup vm &&
	exits 2 "how is the guest paused?" "$cmd" backup vm dir &&
	exits 2 "null: keeps no versions" "$cmd" backup vm null: --no-pause &&
	exits 2 "with --incremental only" "$cmd" backup vm dir --no-pause -i 5 &&
	exits 2 "less than a millisecond" "$cmd" backup vm dir -i 0 &&
	exits 2 "'0' is not a count" "$cmd" backup vm dir --full-every 0 &&
	exits 2 "a target is wanted" "$cmd" migrate &&
	exits 2 "which QEMU?" "$cmd" migrate image &&
	exits 2 "which QEMU waits for it there?" "$cmd" migrate --qmp q slot:x &&
	exits 2 "for slots as targets only" "$cmd" migrate --qmp q --to-qmp r image &&
	exits 2 "cannot be compared" "$cmd" migrate --qmp q --verify null: &&
	exits 2 "can be read once" "$cmd" migrate --qmp q --free a=- --free b=- null: &&
	exits 2 "which QEMU?" "$cmd" migrate nbd://host &&
	exits 2 "65 are more than 64" "$cmd" migrate -c 65 nbd://host &&
	exits 2 "neither cancel nor pause" "$cmd" migrate --on-timeout x null: &&
	exits 2 "neither auto, off, nor a number" "$cmd" migrate --throttle 0 null: &&
	exits 2 "'x' is not a number of bytes" "$cmd" migrate --max-bandwidth x null: &&
	exits 2 "a target is wanted" "$cmd" replicate &&
	exits 2 "is not an NBD URI" "$cmd" replicate --qmp q image &&
	exits 2 "which QEMU?" "$cmd" replicate nbd://host &&
	exits 2 "neither stretch nor throttle" "$cmd" replicate --on-slow x &&
	exits 2 "less than 0.5 seconds" "$cmd" replicate --lease 0.1 &&
	exits 2 "less than 0.001 seconds" "$cmd" replicate --interval 0 &&
	exits 2 "4096 at least" "$cmd" replicate --buffer 100 &&
	exits 2 "one target is wanted" "$cmd" failover &&
	exits 2 "one target is wanted" "$cmd" failover image &&
	exits 2 "one target is wanted" "$cmd" failover nbd://a nbd://b &&
	exits 125 "which slots?" "$cmd" secondary &&
	exits 125 "a tenth of a second" "$cmd" secondary --auto 0 &&
	exits 125 "which QEMU?" "$cmd" secondary -s a=4K -l 1 &&
	exits 125 "which slots?" "$cmd" receive &&
	exits 125 "where is the guest to come in?" "$cmd" receive -s a=4K &&
	exits 125 "only one of" "$cmd" receive -s a=4K -l 1 --tls-psk x --tls-certificates y q &&
	exits 125 "of no use without" "$cmd" receive -s a=4K -l 1 --tls-verify-peer q &&
	exits 125 "which QEMU?" "$cmd" receive -s a=4K -l 1 &&
	exits 125 "comes in nowhere" "$cmd" receive -s a=4K -l 1 --from x q &&
	exits 125 "for --from only" "$cmd" receive -s a=4K -l 1 --paused q &&
	exits 125 "no guest is there" "$cmd" receive -s a=4K --from "$tmp/x" q &&
	exits 125 "which command?" "$cmd" run &&
	exits 125 "NAME=SIZE is wanted" "$cmd" run --slot =4K true &&
	exits 125 "the name is longer than 31" "$cmd" run --slot "$(printf %032d 0)=4K" true &&
	exits 125 "is too large" "$cmd" run --slot a=99999999999E true &&
	exits 125 "given twice" "$cmd" run --slot a=4K --slot a=4K true &&
	exits 125 "0 bytes are not a whole number of pages" "$cmd" run --slot a=0 true
}

without_module()
{
	local hint="/dev/dirtytrack: No such file or directory (is the dirtytrack module loaded?)"

	if [ -e /dev/dirtytrack ]; then
		# Where there is one, its messages are tested with it.
		"$cmd" list >/dev/null
		return
	fi
	exits 1 "dirtytrack: $hint" "$cmd" list &&
	exits 1 "$hint" "$cmd" info vm &&
	exits 1 "$hint" "$cmd" info &&
	exits 1 "$hint" "$cmd" log vm &&
	exits 1 "$hint" "$cmd" rate vm &&
	exits 1 "$hint" "$cmd" release vm 0-9 &&
	exits 1 "$hint" "$cmd" release vm --zero &&
	exits 1 "$hint" "$cmd" copy vm "$tmp/image" --no-pause &&
	exits 1 "$hint" "$cmd" backup vm "$tmp/image.qcow2" --no-pause &&
	[ -z "$(ls "$tmp"/image* 2>/dev/null)" ] &&
	exits 125 "$hint" "$cmd" run --slot a=4K -- true &&
	exits 125 "$hint" "$cmd" receive --slot a=4K --listen unix:x -- true
}

not_a_slot()
{
	exits 1 "/dev/null: it is not a slot of dirtytrack" "$cmd" info /dev/null &&
	exits 1 "/nonexistent/x: No such file or directory" "$cmd" info /nonexistent/x
}

# The options of a command and the bold options of its page are the same.
options_are_in_the_manual()
{
	local c page

	for c in $commands; do
		page=$man/dirtytrack-$c.1
		"$cmd" help --words "$c" | tr -d = | sort >"$tmp/options"
		sed -e '/^\.SH SYNOPSIS/,/^\.SH DESCRIPTION/d' -e '/^\.SH EXAMPLES/,$d' \
			-e 's/\\-/-/g' "$page" |
			sed -n '/^\.SH OPTIONS/,/^\.SH/p' |
			grep -A1 -E '^\.T[PQ]' |
			grep -oE -- '--[a-z-]+' | sort -u >"$tmp/manual"
		diff -u "$tmp/options" "$tmp/manual" | sed 's/^/# /' >"$tmp/diff"
		[ ! -s "$tmp/diff" ] || {
			cat "$tmp/diff"
			return 1
		}
	done
}

# The same for columns: each is a heading in the page of its command.
columns_are_in_the_manual()
{
	local c column page

	for c in list log rate release copy backup migrate replicate; do
		# The rounds of both are those of one engine.
		page=${c/migrate/copy}
		for column in $("$cmd" "$c" --help |
				sed '1,/^Output columns/d' | sed '/^$/,$d' |
				awk '{print $1}'); do
			grep -qE "^\.B \"?$column\"?\$" "$man/dirtytrack-$page.1" || {
				echo "# $c: column $column is not in the manual"
				return 1
			}
		done
	done
}

# bash, with what a user would type.
completes()
{
	# shellcheck disable=SC1091,SC2030,SC2034
	(
		PATH=$OUT:$PATH
		compopt() { :; }
		. "$SRC/completion/dirtytrack"
		COMP_WORDS=(dirtytrack co) COMP_CWORD=1
		_dirtytrack
		[ "${COMPREPLY[*]}" = copy ] || exit 1
		COMP_WORDS=(dirtytrack copy --ver) COMP_CWORD=2
		_dirtytrack
		[ "${COMPREPLY[*]}" = --verify ] || exit 1
		COMP_WORDS=(dirtytrack help r) COMP_CWORD=2
		_dirtytrack
		[ "${COMPREPLY[*]}" = "run rate release receive replicate" ] || exit 1
		for c in $commands; do
			COMP_WORDS=(dirtytrack "$c" --) COMP_CWORD=2
			_dirtytrack
			[ "$(printf '%s\n' "${COMPREPLY[@]}")" = \
			  "$(dirtytrack help --words "$c" | tr -d =)" ] || exit 1
		done
	)
}

manual_pages_are_well_formed()
{
	local page

	command -v groff >/dev/null || {
		echo "# groff is not installed"
		return 1
	}
	for page in "$man"/*.[13]; do
		groff -t -man -Tutf8 -ww "$page" 2>"$tmp/err" >/dev/null
		[ ! -s "$tmp/err" ] || {
			sed 's/^/# /' "$tmp/err"
			return 1
		}
	done
}

echo "TAP version 13"
echo "1..9"
check "help and version" help_and_version
check "each command has help" each_command_has_help
check "usage errors" usage_errors
check "messages without the module" without_module
check "messages about what is no slot" not_a_slot
check "options are those of the manual pages" options_are_in_the_manual
check "columns are in the manual pages" columns_are_in_the_manual
check "completion knows commands and options" completes
check "manual pages are well formed" manual_pages_are_well_formed
echo "# Totals: pass:$((n - bad)) fail:$bad xfail:0 xpass:0 skip:0 error:0"
[ "$bad" = 0 ]
