# SPDX-License-Identifier: GPL-2.0-only
#
# Names and small functions that the commands of the test host share. Sourced,
# not run: the sourcing script has set -eu.

VM_TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VM_TOP=$(cd "$VM_TOOLS/../.." && pwd)
# Another tree's, if it is a link: kernels remember where they were unpacked.
VM_BUILD=$(readlink -m "$VM_TOP/build/vm")

# The emulator of the test host: a newer one than the machine's, if it has been unpacked.
# QEMU 7.2 more often gives a guest in the guest a triple fault.
VM_QEMU=$VM_BUILD/qemu10/qemu-system-x86_64
[ -s "$VM_BUILD/qemu10/release" ] || VM_QEMU=qemu-system-x86_64

# Exit status of tools/vm/run for everything that is not the command's own.
VM_FAILED=125

die()
{
	echo "${0##*/}: $*" >&2
	exit "$VM_FAILED"
}

say()
{
	echo "${0##*/}: $*" >&2
}

# need_kernel KERNEL: stop unless setup has finished for it. The file "release"
# is the last thing that setup writes.
need_kernel()
{
	[ -s "$VM_BUILD/$1/release" ] ||
		die "kernel $1 is not set up: run tools/vm/setup $1"
}

kernel_release()
{
	cat "$VM_BUILD/$1/release"
}

# install_missing PACKAGE...: the host's own packages. The package lists are
# fetched only if the ones at hand do not do.
install_missing()
{
	local missing=() p

	for p; do
		dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null |
			grep -q '^install ok installed$' || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	install_now "${missing[@]}" ||
		{ apt-get update -qq && install_now "${missing[@]}"; } ||
		die "apt-get could not install ${missing[*]} (see build/vm/apt-install.log)"
}

install_now()
{
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends "$@" >"$VM_BUILD/apt-install.log" 2>&1
}
