#!/bin/bash
# Installs the man pages SRC/NAME.SECTION.rst: as troff below MANDIR where
# docutils is installed, else as they are into DOCDIR, and says so.
set -euo pipefail

src=${1:?usage: manpages.sh SRC MANDIR DOCDIR} mandir=${2:?} docdir=${3:?}

rst2man=
for name in rst2man rst2man.py; do
	if command -v "$name" >/dev/null; then
		rst2man=$name
		break
	fi
done

pages=("$src"/*.[0-9].rst)
[ -e "${pages[0]}" ] || { echo "manpages: no pages in $src" >&2; exit 1; }
for page in "${pages[@]}"; do
	name=$(basename "$page" .rst)
	if [ -n "$rst2man" ]; then
		dir=$mandir/man${name##*.}
		install -d "$dir"
		"$rst2man" --halt=warning "$page" "$dir/$name"
		chmod 644 "$dir/$name"
	else
		install -d "$docdir"
		install -m 644 "$page" "$docdir/"
	fi
done
if [ -z "$rst2man" ]; then
	echo "manpages: rst2man (python3-docutils) is missing: the pages are in $docdir as plain text" >&2
fi
