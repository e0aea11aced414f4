#!/bin/sh
# Install the one program `crane` from a newer suite of the distribution.
#
#   install-crane.sh                 as a package, as root
#   install-crane.sh --into FOLDER   only the program, as anybody
#
# Debian carries crane from forky on; it needs no more than the libc of Debian 12.  The
# archive's address and key come from this machine's own apt sources, and the new suite
# is known to this script's private apt folders alone: nothing else can be upgraded from
# it, and nothing of it stays.  Read: apt.conf(5) on Dir, apt-get(8) on indextargets.
set -eu

suite=${CRANE_SUITE:-forky}
into=
[ "${1:-}" = --into ] && into=$2

if [ -z "$into" ] && command -v crane >/dev/null; then
    echo "crane is installed"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

# The archive whose release is signed as Debian's; security and updates live elsewhere.
# shellcheck disable=SC1091
. /etc/os-release
# shellcheck disable=SC2016 # apt fills these in, not the shell
sources=$(apt-get indextargets --format '$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)' |
    sed -n "s/^Packages|//p" | awk -F'|' -v code="$VERSION_CODENAME" '$2 == code && $3 == "main"' | head -n 1)
if [ -z "$sources" ]; then
    echo "install-crane: no apt source of this machine offers $VERSION_CODENAME main" >&2
    echo "  next: look at apt-get indextargets" >&2
    exit 1
fi
uri=${sources%%|*}
key=${sources##*|}
# indextargets prints the finished path of a key ring only in newer versions of apt.
[ -r "$key" ] || key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $uri $suite main" > "$work/sources.list"

# A mirror may lag behind the date in its release file; what it serves is signed all the same.
private() {
    apt-get -q -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "$@"
}
private update
(cd "$work" && private download crane)
if [ -n "$into" ]; then
    dpkg-deb -x "$work"/crane_*.deb "$work/tree"
    mkdir -p "$into"
    install -m 755 "$work/tree/usr/bin/crane" "$into/crane"
    echo "crane in $into"
else
    dpkg -i "$work"/crane_*.deb >/dev/null
    echo "crane installed"
fi
