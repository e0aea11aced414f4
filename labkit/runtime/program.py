"""Floor 3: the file that engines are given as `labkit-runtime`.

Owns: its text, and which interpreter it names.  An engine calls a runtime by its path, four times a container; so the
interpreter is named outright (no shim, no environment's site-packages to look through), and all else is
`labkit.runtime.entry`'s, which is read by its path: for an import, Python would look for it in five folders.

    python -m labkit.runtime.program /usr/local/bin/labkit-runtime [TREE]

Read: execve(2) on interpreter scripts; python(1) on -I, -S and -X no_debug_ranges.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

OPTIONS = "-ISXno_debug_ranges"
PATHS = """\
import sys
sys.path += [{tree!r}, {packages!r}]
sys.pycache_prefix = {cache!r}
"""
ENTRY = """\
from _frozen_importlib_external import SourceFileLoader
entry = type(sys)("labkit.runtime.entry")
entry.__file__ = {tree!r} + "/labkit/runtime/entry.py"
SourceFileLoader(entry.__name__, entry.__file__).exec_module(entry)
entry.main()
"""
# The distribution's is one file without libraries of its own, built with a profile: it is there in four fifths of the
# time of one that was compiled on the spot (`make bench` shows what the bare interpreter takes).
DISTRIBUTIONS = "/usr/bin/python3"
FIT = "import sys, _ctypes, _json; sys.exit(sys.version_info < (3, 11))"


def interpreter() -> str:
    """The distribution's Python where it can run the kit, else the one that runs this."""
    try:
        fit = not subprocess.run([DISTRIBUTIONS, "-IS", "-c", FIT], capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        fit = False
    return os.path.realpath(DISTRIBUTIONS if fit else sys.executable)


def code(then: str = ENTRY, tree: str = "") -> str:
    """Python that knows the kit in `tree` ("": where it is now) and this environment's packages, and goes on so."""
    tree = tree or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    packages = sysconfig.get_paths()["purelib"]
    return (PATHS + then).format(tree=tree, packages=packages, cache=sys.pycache_prefix)


def write(path: str, tree: str = "") -> None:
    """Write the program there, for the fastest interpreter and the kit in `tree`. Raises OSError.

    tree -- where the kit will be; "": where it is now
    """
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        file.write(f"#!{interpreter()} {OPTIONS}\n{code(tree=tree)}")
    os.chmod(draft, 0o755)
    os.rename(draft, path)


if __name__ == "__main__":
    write(*sys.argv[1:3])
