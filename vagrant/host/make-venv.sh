#!/bin/sh
# Make .venv with a Python that is new enough; root installs what Debian splits off.
#
#   make-venv.sh [PYTHON]
set -eu
python=${1:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "labkit needs Python 3.11 or later" >&2
    echo "  why:  $python is $("$python" --version 2>&1 || echo 'not there')" >&2
    echo "  next: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
# Debian's python3 lacks ensurepip until python3-venv is there.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get -q -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -q install -y python3-venv >/dev/null
    else
        echo "cannot make the Python environment" >&2
        echo "  why:  $python has no venv module with pip" >&2
        echo "  next: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
# A version manager's shim costs 90 ms at every start: the environment points to what it stands for.
"$("$python" -c 'import sys; print(sys.executable)')" -m venv .venv
