#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The commands that README.md shows for a machine with the module do what it says.

readme=$(dirname "$0")/../README.md
out=$(mktemp)
trap 'rm -f "$out" /tmp/ram.img' EXIT

echo "KTAP version 1"
echo "1..1"
# A person would see that it takes longer than a second, on a machine that is busy.
sed -n '/^```sh$/,/^```$/{/^```/d;p}' "$readme" |
	sed 's/^sleep 1$/until dirtytrack info ram; do sleep 1; done/' > "$out.sh"
if grep -q '^dirtytrack copy' "$out.sh" && sh -e "$out.sh" > "$out" 2>&1 &&
   grep -q ' ram ' "$out" && grep -q 'identical: [1-9][0-9]* pages' "$out"; then
	echo "ok 1 commands"
else
	sed 's/^/# /' "$out"
	echo "not ok 1 commands"
fi
rm -f "$out.sh"
