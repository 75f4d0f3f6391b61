#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# As migrate.sh, the guest being emulated: its QEMU writes its memory as any process does.
# Emulation in an emulated machine takes its time, so only make check-full has it.

DIRTYTRACK_FULL='' DIRTYTRACK_SLOW=4 ACCEL=tcg HOPS=1 exec "$(dirname "$0")/migrate.sh"
