#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The examples of the administrator's guide that use tracepoints show what the guide
# says: each is run as it stands there, while a slot is written and harvested.

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=selftests/ktap.sh
. "$here/ktap.sh"

guide=$here/../Documentation/admin-guide.rst
writer=${TOOL_WRITER:-$here/../build/selftests/tool_writer}
tracing=/sys/kernel/tracing
work=$(mktemp -d)
slot=
pids=()

end()
{
	[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
	wait "${pids[@]}" 2>/dev/null
	pids=()
}
trap 'end; rm -rf "$work"' EXIT

# example PATTERN: the lines of the guide's examples that match.
example()
{
	grep '^    ' "$guide" | grep -- "$1" | sed 's/^    //'
}

# A slot that is written through a mapping and harvested, until the script ends.
workload()
{
	dirtytrack run --slot observed=1M -- \
		"$writer" '{observed}' 256 1000 "$work/ready" 2>"$work/run" &
	pids+=($!)
	wait_for test -e "$work/ready" || { note "$(cat "$work/run")"; return 1; }
	slot=$(dirtytrack info -J observed | sed -n 's/.*"id": *\([0-9]*\).*/\1/p')
	dirtytrack rate --interval 0.2 observed >/dev/null 2>&1 &
	pids+=($!)
	[ -n "$slot" ]
}

# bpf EXAMPLE WANTED: what it prints when it is interrupted; after a longer time if those
# whom it watches have done nothing in a short one.
bpf()
{
	bpf_for "$1" "$2" 3 || bpf_for "$1" "$2" 10 || bpf_for "$1" "$2" 30
}

# bpf_for EXAMPLE WANTED SECONDS
bpf_for()
{
	local command status=0 tracer

	command=$(example "$1")
	[ "$(wc -l <<<"$command")" = 1 ] && [ -n "$command" ] || return
	# "exec", so that the signal reaches the tool.
	bash -c "exec $command" >"$work/bpf" 2>&1 &
	tracer=$!
	pids+=("$tracer")
	wait_for grep -q '^Attaching' "$work/bpf" && sleep "$3"
	kill -INT $tracer
	within tail --pid=$tracer -f /dev/null
	grep -q -- "$2" "$work/bpf" || status=1
	[ "$status" = 0 ] || note "$(cat "$work/bpf")"
	return $status
}

histogram()
{
	bpf 'bpftrace.*_harvest' "^@us\[$slot, 1\]:" && grep -q '^\[.*) .*|@' "$work/bpf"
}

traced()
{
	grep -q "dirtytrack_harvest: slot=$slot log=1 first=0 npages=256 next=256 dirty=[1-9]" \
		"$work/pipe"
}

by_tracefs()
{
	local status=0

	eval "$(example 'echo 1 .*_harvest/enable')" || return
	# It reads until it is ended.
	bash -c "exec $(example 'cat .*trace_pipe')" >"$work/pipe" &
	pids+=($!)
	wait_for traced || status=1
	kill $! 2>/dev/null
	wait $! 2>/dev/null
	echo 0 >$tracing/events/dirtytrack/enable
	[ "$status" = 0 ] || note "$(head -n 20 "$work/pipe")"
	return $status
}

[ -d $tracing/events/dirtytrack ] || skip_all "this kernel has no trace events"
plan 4
check "a slot at work" workload
check "tracefs" by_tracefs
if [ ! -e /proc/sys/kernel/unprivileged_bpf_disabled ] ||
   ! command -v bpftrace >/dev/null; then
	echo "ok 3 bpftrace_harvest # SKIP no bpftrace, or no BPF in this kernel"
	echo "ok 4 bpftrace_grant # SKIP no bpftrace, or no BPF in this kernel"
	ktap_number=4
else
	check "bpftrace_harvest" histogram
	check "bpftrace_grant" bpf 'bpftrace.*_grant' "^@\[tool_writer, $slot\]: [1-9]"
fi
finish
