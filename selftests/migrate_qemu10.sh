#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# As migrate.sh, between QEMUs of version 10, which tools/vm/setup gets from Debian's
# backports. Only make check-full has it.

here=$(cd "$(dirname "$0")" && pwd)
qemu=${QEMU10:-$(realpath "$here/../build/vm")/qemu10}
[ -x "$qemu/qemu-system-x86_64" ] || { echo "Bail out! no $qemu: run tools/vm/setup qemu10"; exit 1; }
PATH=$qemu:$PATH exec "$here/migrate.sh"
