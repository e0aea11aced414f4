"""Top floor: the way into the lab's machine, however it was started.

Owns: the ssh configuration (of `make lab`'s machine, else of Vagrant's), one shared
connection for all commands, and running one command in there as if it ran here.

Read: ssh_config(5) on ControlMaster, RFC 4254 section 6.10 on how a command's end is told.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from labkit.errors import LabError, NotFound
from labkit.lab import state
from labkit.lab.state import Machine

# A path of a Unix socket has 108 bytes (unix(7)), and ssh appends 17 while it makes one.
SOCKET_LIMIT = 90
MARKS = "/run/labkit-exec"  # in the guest: one file a running command, holding its process group

# The command's shell outlives it and tells how it ended, as shells do: 128 and the signal's
# number.  sshd alone would say only "by a signal", which ssh turns into 255.
WRAPPER = """\
mkdir -p {marks} && echo $$ > {marks}/{mark}
export PATH=/opt/labkit/venv/bin:$PATH PYTHONPYCACHEPREFIX=/var/cache/labkit/pycache HOME=/root LANG=C.UTF-8
trap : INT TERM HUP
cd {folder} && {command}
status=$?
rm -f {marks}/{mark}
exit $status
"""

CONFIG = """\
Host lab
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile "{folder}/key"
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ServerAliveInterval 20
  ServerAliveCountMax 6
"""


class Way(NamedTuple):
    """How to get in: an ssh configuration, the host's name in it, and what makes one root there."""

    config: Path
    host: str
    sudo: tuple[str, ...]


def write_config(machine: Machine) -> None:
    """The ssh configuration of `make lab`'s machine."""
    (state.folder() / "ssh_config").write_text(CONFIG.format(port=machine.ssh, folder=state.folder()))


def find() -> Way:
    """The way into the machine that runs; raises NotFound when none does."""
    if state.running() is not None:
        return Way(state.folder() / "ssh_config", "lab", ())
    if os.environ.get("LAB_NAME", "lab") == "lab" and (ids := sorted(state.TREE.glob(".vagrant/machines/*/*/id"))):
        return _vagrant(ids[0])
    if state.load() is not None:
        raise NotFound("the lab is not up", next="make lab, which keeps what was written in it",
                       why="its machine has ended by itself; see labkit guest log --console")  # fmt: skip
    raise NotFound("the lab is not up", why="no machine of this checkout runs, of `make lab` or of vagrant",
                   next="make lab")  # fmt: skip


def _vagrant(identity: Path) -> Way:
    """Ask vagrant once for each machine: every call of it takes seconds."""
    name = identity.parents[1].name
    config = identity.parent / "labkit_ssh_config"
    if not config.exists() or config.stat().st_mtime < identity.stat().st_mtime:
        done = subprocess.run(["vagrant", "ssh-config", name], cwd=state.TREE, capture_output=True, text=True)
        if done.returncode:
            raise NotFound("the lab is not up", why=f"vagrant says: {done.stderr.strip()}", next="vagrant up")
        config.write_text(done.stdout)
    return Way(config, name, ("sudo",))


def ssh(way: Way, *options: str) -> list[str]:
    """The ssh command up to its options; the first one opens the connection that all share."""
    words = ["ssh", "-F", str(way.config), "-o", "ConnectTimeout=60"]
    socket = way.config.parent / "ssh"
    if len(os.fsencode(socket)) < SOCKET_LIMIT:
        words += ["-o", "ControlMaster=auto", "-o", f"ControlPath={socket}", "-o", "ControlPersist=600"]
    return [*words, *options, way.host]


def close() -> None:
    """End the shared connection to `make lab`'s machine, if there is one."""
    way = Way(state.folder() / "ssh_config", "lab", ())
    if (way.config.parent / "ssh").exists():
        subprocess.run([*ssh(way, "-O", "exit")], capture_output=True)


def here() -> str:
    """The folder in the machine that corresponds to the present one; /lab when that lies outside the checkout."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path("/lab") / Path.cwd().resolve().relative_to(state.TREE))
    return "/lab"


def execute(words: Sequence[str], *, tty: bool | None = None, folder: str | None = None,
            stdin: int | IO[bytes] | None = None, stdout: int | IO[bytes] | None = None) -> int:  # fmt: skip
    """Run a command as root in the machine, in `folder` (else here()); return its exit status.

    stdin, stdout and stderr are this process's own unless given, and stay apart.  A signal
    that ends this process reaches the command.  tty -- give it a terminal; None: when this
    process has one on both ends.
    """
    way = find()
    if tty is None:
        tty = stdin is None and stdout is None and sys.stdin.isatty() and sys.stdout.isatty()
    mark = secrets.token_hex(6)
    script = WRAPPER.format(marks=MARKS, mark=mark, folder=shlex.quote(folder or here()), command=shlex.join(words))
    _open(way)
    # The outer sh, since the login shell's own -c would keep the command's name out of `ps`.
    remote = shlex.join([*way.sudo, "sh", "-c", script])
    # Without a terminal of its own, ssh is kept out of the reach of Ctrl-C and timeout(1), which signal
    # the whole group: it would end at once, and the command would go on without anybody.
    child = subprocess.Popen([*ssh(way, "-tt" if tty else "-T"), remote], stdin=stdin, stdout=stdout,
                             start_new_session=not tty)  # fmt: skip

    def forward(number: int, frame: FrameType | None) -> None:
        # ssh has no way to pass a signal on, and would leave the command running.
        kill = f"kill -s {number} -- -$(cat {MARKS}/{mark})"  # dash takes no -15 before a --
        subprocess.run([*ssh(way, "-n"), shlex.join([*way.sudo, "sh", "-c", kill])], capture_output=True,
                       start_new_session=True)  # fmt: skip

    # With a terminal, Ctrl-C goes through it as a character.
    numbers = (signal.SIGTERM, signal.SIGHUP) if tty else (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def capture(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root in the machine, quietly; for the kit's own questions."""
    way = find()
    return subprocess.run([*ssh(way, "-n", "-T"), shlex.join([*way.sudo, "sh", "-c", script])],
                          capture_output=True, text=True)  # fmt: skip


def _open(way: Way) -> None:
    """Open the shared connection in the background, so that the command's own end is seen at once."""
    if subprocess.run(ssh(way, "-O", "check"), capture_output=True).returncode == 0:
        return
    # No pipes: the connection stays in the background and would keep them open.
    with (way.config.parent / "ssh.log").open("w+b") as log:
        # A session of its own: Ctrl-C at one command must not end it for the others.
        done = subprocess.run([*ssh(way, "-n", "-T"), "true"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                              start_new_session=True)  # fmt: skip
        log.seek(0)
        if done.returncode:
            raise LabError("cannot reach the lab's machine", why=log.read().decode(errors="replace").strip(),
                           next="labkit guest log --console, or a new machine: make lab FRESH=1")  # fmt: skip
