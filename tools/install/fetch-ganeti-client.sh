#!/bin/bash
# Prints a PYTHONPATH in which Ganeti's own RAPI client can be imported.
#
# It unpacks Debian's packages into .cache/ganeti, without installing anything:
# the client is the real one, and never part of this source. Where there is no
# apt, or no matching python3, it says so and exits with 1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$here/.cache/ganeti
python=/usr/bin/python3
say() { echo "fetch-ganeti-client: $*" >&2; }

path() {
	local dirs=() d
	for d in "$cache"/usr/share/ganeti/*/ "$cache"/usr/lib/python3/dist-packages; do
		[ -d "$d" ] && dirs+=("${d%/}")
	done
	(IFS=:; echo "${dirs[*]-}")
}

works() { PYTHONPATH=$(path) "$python" -c 'import ganeti.rapi.client, ganeti.rapi.client_utils, pycurl' 2>/dev/null; }

if [ -x "$python" ] && [ -d "$cache" ] && works; then
	path
	exit
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null || [ ! -x "$python" ]; then
	say "this system has no apt, dpkg and /usr/bin/python3 to get Ganeti's client with"
	exit 1
fi
mkdir -p "$cache"
tmp=$(mktemp -d "$here/.cache/unpack.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
own=(-o "Dir::State=$here/.cache/apt/state" -o "Dir::State::lists=$here/.cache/apt/state/lists" -o "Dir::Cache=$here/.cache/apt/cache" -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=)
packages=(ganeti-3.0 python3-pycurl python3-simplejson python3-bitarray python3-openssl python3-pyparsing)
get() { (cd "$tmp" && apt-get -qq "$@" download "${packages[@]}") >"$tmp/log" 2>&1; }
if ! get -o APT::Sandbox::User=; then
	mkdir -p "$here"/.cache/apt/state/lists/partial "$here"/.cache/apt/cache/archives/partial
	if ! { apt-get -qq "${own[@]}" update >>"$tmp/log" 2>&1 && get "${own[@]}"; }; then
		cat "$tmp/log" >&2
		say "Ganeti's packages cannot be downloaded"
		exit 1
	fi
fi
for p in "$tmp"/*.deb; do dpkg -x "$p" "$cache"; done
if ! works; then
	PYTHONPATH=$(path) "$python" -c 'import ganeti.rapi.client, ganeti.rapi.client_utils, pycurl' >&2 || true
	say "Ganeti's client does not start with this python3"
	exit 1
fi
path
