"""Top floor: probes of the programs that the kit runs: each is started and says its version.

Owns: the table of programs and the words that make each say its version.

Read: each program's --help.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

from labkit.lab.doctor_probes import Probe, Seen, why

VERSION_WORDS = {
    "crane": ["version"],
    "runc": ["--version"],
    "docker": ["--version"],
    "nft": ["--version"],
    "nsenter": ["--version"],
    "strace": ["--version"],
}


def tool(name: str) -> Callable[[], dict[str, Seen]]:
    """The probe of one program."""

    def probe() -> dict[str, Seen]:
        path = shutil.which(name)
        if path is None:
            return {f"tool.{name}": Seen("missing", "not in the PATH")}
        try:
            done = subprocess.run([path, *VERSION_WORDS[name]], capture_output=True, text=True)
        except OSError as error:
            return {f"tool.{name}": Seen("missing", f"{path} does not start: {why(error)}")}
        said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[0][:80]
        if done.returncode:
            return {f"tool.{name}": Seen("missing", f"{path} ended with status {done.returncode}: {said}")}
        version = re.search(r"\d+(\.\d+)+\S*", said)
        # Debian's crane is built without the information and says so, with status 0.
        known = f"version {version[0].rstrip(',')}" if version else "runs, and does not know its version"
        return {f"tool.{name}": Seen("ok", f"{path}, {known}")}

    return probe


PROBES = {f"tool.{name}": Probe((f"tool.{name}",), tool(name)) for name in VERSION_WORDS}
