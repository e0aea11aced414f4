"""Floor 3: the file that engines are given as `labkit-runtime`.

Owns: its text.  An engine calls a runtime by its path, four times a container; so the interpreter is named outright
(no shim, no environment's site-packages to look through), and all else is `labkit.runtime.entry`'s.

    python -m labkit.runtime.program /usr/local/bin/labkit-runtime [TREE]

Read: execve(2) on interpreter scripts; python(1) on -I and -S.
"""

from __future__ import annotations

import os
import sys
import sysconfig

TEXT = """\
#!{interpreter} -IS
import sys
sys.path += [{tree!r}, {packages!r}]
sys.pycache_prefix = {cache!r}
from labkit.runtime.entry import main
main()
"""


def write(path: str, tree: str = "") -> None:
    """Write the program there, for this interpreter, this environment, and the kit in `tree`. Raises OSError.

    tree -- where the kit will be; "": where it is now
    """
    tree = tree or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    text = TEXT.format(interpreter=os.path.realpath(sys.executable), tree=tree, cache=sys.pycache_prefix,
                       packages=sysconfig.get_paths()["purelib"])  # fmt: skip
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        file.write(text)
    os.chmod(draft, 0o755)
    os.rename(draft, path)


if __name__ == "__main__":
    write(*sys.argv[1:3])
