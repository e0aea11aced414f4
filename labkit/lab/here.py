"""Top floor: `make lab WHERE=here`, JupyterLab directly on this Linux.

Owns: the decision (the doctor's), and a JupyterLab in the foreground that Ctrl-C ends.
For a throw-away cloud machine or a CI runner: the notebooks do with it as root what they
like, and no other machine is the fence.

Read: labkit/lab/doctor_command.py for what the doctor wants.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from labkit.errors import InUse, Refused
from labkit.lab import preflight, state


def check(port: int) -> int:
    """Say whether the lab can run here, before anything is installed for it.  Raises Refused where it cannot."""
    doctor = subprocess.run([sys.executable, "-P", "-m", "labkit", "doctor"], capture_output=True, text=True)
    if doctor.returncode:
        print(doctor.stdout, end="")
        print(doctor.stderr, end="", file=sys.stderr)
        raise Refused("the lab cannot run directly on this Linux", why="the doctor found things missing; see above",
                      next="make lab, which brings a machine of its own")  # fmt: skip
    if problems := preflight.ports(port, 0):
        raise InUse("the lab cannot start", why=problems[0].why, next=f"{problems[0].next} WHERE=here")
    return 0


def main(port: int) -> int:
    """Run JupyterLab on 127.0.0.1:`port` until it is ended.  Raises Refused where the doctor does."""
    check(port)
    program = Path(sys.executable).with_name("jupyter-lab")
    if not program.exists():
        raise Refused("JupyterLab is not in this environment", why=f"there is no {program}",
                      next="make lab WHERE=here, which installs it")  # fmt: skip
    token = secrets.token_hex(16)
    first = next(iter(sorted((state.TREE / "notebooks").glob("00*.ipynb"))), None)
    place = f"/tree/notebooks/{first.name}" if first else ""
    print(f"\nThe lab is here:  http://127.0.0.1:{port}/lab{place}?token={token}\nCtrl-C ends it.\n", flush=True)
    config = state.TREE / "vagrant" / "jupyter_server_config.py"
    words = [str(program), f"--config={config}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
             f"--ServerApp.root_dir={state.TREE}", f"--ServerApp.preferred_dir={state.TREE / 'notebooks'}",
             "--ServerApp.log_level=WARN"]  # fmt: skip
    os.chdir(state.TREE)
    os.execve(program, words, {**os.environ, "JUPYTER_TOKEN": token})
