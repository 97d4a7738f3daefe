#!/bin/bash
# Prints the path of an sshd that runs here; the tests of SSH use a real one.
#
# It takes the system's if there is one. Otherwise it unpacks the system's own
# packages into .cache/openssh, without installing anything, as any user. What
# it prints is a small script there, which finds the libraries that were
# unpacked beside sshd. Programs of openssh-client that are missing come along,
# in .cache/openssh/usr/bin.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$here/.cache/openssh
wrapper=$cache/bin/sshd
say() { echo "fetch-sshd: $*" >&2; }

give_up() {
	say "$*"
	say "To run the tests of SSH install OpenSSH, for example:"
	say "    Debian, Ubuntu:  apt-get install openssh-server openssh-client"
	say "    Fedora, RHEL:    dnf install openssh-server openssh-clients"
	say "    Arch:            pacman -S openssh"
	say "and run this again, or set ROLEKEY_SSHD to the path of an sshd."
	exit 1
}

# works SSHD: does it start? Without a host key `sshd -t` fails, but not before
# it has been loaded; all versions say "sshd" or "no hostkeys" then.
works() {
	[ -x "$1" ] || return 1
	local text
	text=$("$1" -t -f /dev/null -h /nonexistent 2>&1 || true)
	! grep -q 'loading shared libraries\|not found\|No such file or directory: .*sshd-session' <<<"$text"
}

# sonames that are missing for a program, given the unpacked libraries.
missing() {
	LD_LIBRARY_PATH=$(libs) ldd "$1" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u
}

libs() {
	local dirs=() d
	for d in "$cache"/usr/lib/*-linux-gnu* "$cache"/lib/*-linux-gnu*; do
		if [ -d "$d" ]; then dirs+=("$d"); fi
	done
	(IFS=:; echo "${dirs[*]-}")
}

# The system's package lists may be missing or old; these are our own.
apt_own=(-o "Dir::State=$here/.cache/apt/state" -o "Dir::State::lists=$here/.cache/apt/state/lists" -o "Dir::Cache=$here/.cache/apt/cache" -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=)
own_lists() {
	[ -e "$here/.cache/apt/updated" ] && return
	mkdir -p "$here"/.cache/apt/state/lists/partial "$here"/.cache/apt/cache/archives/partial
	say "reading package lists"
	apt-get -qq "${apt_own[@]}" update >&2 || give_up "apt-get update failed"
	touch "$here/.cache/apt/updated"
}

# unpack PACKAGE: download it and unpack it into the cache.
unpack() {
	local tmp
	tmp=$(mktemp -d "$here/.cache/unpack.XXXXXX")
	if ! (cd "$tmp" && { apt-get -qq -o APT::Sandbox::User= download "$1" || { own_lists && apt-get -qq "${apt_own[@]}" download "$1"; }; }) >"$tmp/log" 2>&1; then
		cat "$tmp/log" >&2
		rm -rf "$tmp"
		return 1
	fi
	dpkg -x "$tmp"/*.deb "$cache"
	rm -rf "$tmp"
	say "unpacked $1 into $cache"
}

# package_of SONAME: the packages that may hold it, by Debian's naming:
# libwrap.so.0 is in libwrap0, libkrb5.so.3 in libkrb5-3.
package_of() {
	local base=${1%%.so.*} version=${1##*.so.} name
	base=${base//_/-}
	case $base in *[0-9]) name=$base-$version ;; *) name=$base$version ;; esac
	echo "$name" "${name}t64" "${name}g"
}

unpack_missing_libraries() {
	local lib package
	for _ in 1 2 3; do
		[ -n "$(missing "$1")" ] || return 0
		for lib in $(missing "$1"); do
			for package in $(package_of "$lib"); do
				if unpack "$package"; then break; fi
			done
		done
	done
	[ -z "$(missing "$1")" ] || give_up "cannot find the libraries $(missing "$1" | tr '\n' ' ')that sshd needs"
}

write_wrapper() {
	mkdir -p "$cache/bin"
	cat >"$wrapper.new" <<WRAPPER
#!/bin/sh
# Made by fetch-sshd.sh. sshd must be executed by its absolute path.
LD_LIBRARY_PATH="$(libs)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$cache/usr/sbin/sshd" "\$@"
WRAPPER
	chmod 755 "$wrapper.new"
	mv "$wrapper.new" "$wrapper"
}

fetch() {
	if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
		give_up "there is no sshd, and this system has no apt to fetch one"
	fi
	mkdir -p "$cache"
	if [ ! -x "$cache/usr/sbin/sshd" ]; then
		unpack openssh-server || give_up "cannot download openssh-server"
	fi
	if [ -x "$cache/usr/lib/openssh/sshd-session" ]; then
		# Since OpenSSH 9.8 sshd runs helpers from fixed paths.
		[ -x /usr/lib/openssh/sshd-session ] || give_up "this version of sshd does not run without being installed"
	fi
	unpack_missing_libraries "$cache/usr/sbin/sshd"
	write_wrapper
	works "$wrapper" || give_up "the unpacked sshd does not start: $("$wrapper" -t 2>&1 | head -n 1)"
}

if ! command -v ssh >/dev/null || ! command -v ssh-keygen >/dev/null; then
	if [ ! -x "$cache/usr/bin/ssh" ]; then
		mkdir -p "$cache"
		unpack openssh-client || give_up "there is no ssh, and openssh-client cannot be downloaded"
	fi
fi

if [ -n "${ROLEKEY_SSHD-}" ]; then
	works "$ROLEKEY_SSHD" || give_up "ROLEKEY_SSHD=$ROLEKEY_SSHD does not start"
	echo "$ROLEKEY_SSHD"
elif works /usr/sbin/sshd; then
	echo /usr/sbin/sshd
else
	works "$wrapper" || fetch
	echo "$wrapper"
fi
