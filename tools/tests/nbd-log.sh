# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What a server was asked for, by what nbdkit's log filter says. Sourced by tests.

# pages ACTION [EXPORT] <LOG: the number of each page of each request of that kind.
pages()
{
	local action=$1 export=${2-'""'} connection what rest
	local -A of_export=()

	while read -r _ _ connection what rest; do
		case $what in
		Connect)
			of_export[$connection]=
			[[ $rest != *"export=$export "* ]] || of_export[$connection]=y ;;
		"$action")
			[ -n "${of_export[$connection]}" ] &&
				[[ $rest =~ offset=0x([0-9a-f]+)\ count=0x([0-9a-f]+) ]] || continue
			seq $((0x${BASH_REMATCH[1]} / 4096)) \
				$(((0x${BASH_REMATCH[1]} + 0x${BASH_REMATCH[2]} - 1) / 4096)) ;;
		esac
	done
}

# Of the servers that wrote one log, one after the other, what the last was asked for.
last_server()
{
	tac | sed '/ Ready /q' | tac
}

# repeated <PAGES: those that are there more than once.
repeated()
{
	sort | uniq -d
}

# nonzero_pages FILE: the numbers of those that are not zero.
nonzero_pages()
{
	python3 - "$1" <<-'END'
	import sys
	f = open(sys.argv[1], "rb")
	for n, page in enumerate(iter(lambda: f.read(4096), b"")):
	    if page.count(0) != len(page):
	        print(n)
	END
}
