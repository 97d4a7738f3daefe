#!/bin/bash
# Runs every fuzz target of the module, one after the other, for the given
# time each. Ends with a line: N passed, N failed.
set -euo pipefail

fuzztime=${1:?usage: fuzz.sh FUZZTIME}
passed=0 failed=0

# Packages whose tests contain a target; compiling all others would be waste.
dirs=$(grep -rlE --include='*_test.go' --exclude-dir=.cache '^func Fuzz[A-Z]' . | xargs -r -d '\n' -n 1 dirname | sort -u)
while read -r dir; do
	[ -n "$dir" ] || continue
	targets=$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$dir"/*_test.go | sort)
	for target in $targets; do
		echo "== $dir $target"
		if go test -buildvcs=false -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$dir"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	done
done <<<"$dirs"

if [ $((passed + failed)) = 0 ]; then
	echo "no fuzz target found"
	failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
