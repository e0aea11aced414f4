#!/bin/sh
# Can `make lab` work on this host at all?  Silence and 0 when it can; otherwise what to
# do instead, and 1.  Asked before anything else, so it needs nothing but a shell.
#
#   can-lab.sh [SYSTEM [OS-RELEASE]]     (default: uname -s, /etc/os-release)
#
# Read: os-release(5) on ID and ID_LIKE.
set -eu
system=${1:-$(uname -s)}
release=${2:-/etc/os-release}

instead() {
    echo "make lab: not on this host" >&2
    echo "  why:  $1" >&2
    echo "  next: vagrant up      (README.md says which provider suits which host)" >&2
    exit 1
}

case $system in
Linux) ;;
Darwin) instead "it builds its machine with the packages of Debian or Ubuntu, and this is macOS" ;;
MINGW* | MSYS* | CYGWIN*) instead "it builds its machine with the packages of Debian or Ubuntu, and this is Windows" ;;
*) instead "it builds its machine with the packages of Debian or Ubuntu, and this is $system" ;;
esac
[ -r "$release" ] || instead "there is no $release to say that this is Debian or Ubuntu"
names=$(sed -n 's/^ID=//p; s/^ID_LIKE=//p' "$release" | tr -d "\"'" | tr '\n' ' ')
case " $names" in
*" debian "* | *" ubuntu "*) ;;
*) instead "it builds its machine with the packages of Debian or Ubuntu, and this is $(sed -n 's/^PRETTY_NAME=//p' "$release" | tr -d '"')" ;;
esac
