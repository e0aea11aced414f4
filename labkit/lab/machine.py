"""Top floor: one QEMU process, the lab's machine.

Owns: its command line, its start, the wait until JupyterLab answers, and its end.
User-mode networking only: no bridge, no right, no trace on the host; every forwarded port
listens on 127.0.0.1, since JupyterLab in there is a root shell.

Read: qemu-system(1), systemd.system-credentials(7), Documentation/filesystems/9p.rst.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from labkit.errors import LabError
from labkit.lab import reach, state
from labkit.lab.accelerator import Accelerator
from labkit.lab.image_build import Image, Say
from labkit.lab.state import Machine

ESCAPES = re.compile(r"\x1b(\[[0-9;?!]*[a-zA-Z]|[c78])")  # what the console's programs send to a terminal
PUBLISHED = 10  # ports from 8080 on, for what learners publish
TIMEOUT = 600  # seconds for a machine to answer; under emulation about 70 are needed
ENDED = "the lab's machine ended while it started"
ONCE_MORE = "make lab, once more"

# What differs between architectures; everything else is the same words.
QEMU = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
BOARD = {"amd64": [], "arm64": ["-M", "virt"]}
CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


class Ended(LabError):
    """The machine ended by itself before anybody could use it."""


def command(image: Image, folder: Path, tree: Path, accelerator: Accelerator, *, arch: str, memory: int, cpus: int,
            forwards: dict[int, int]) -> list[str]:  # fmt: skip
    """The QEMU command line; forwards maps ports of the guest to ports of the host's 127.0.0.1.

    The token and the key go in as files: what stands on a command line, every user can read.
    """
    quoted = str(tree).replace(",", ",,")
    forward = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for guest, host in forwards.items())
    credential = "name=opt/io.systemd.credentials"
    tcg = accelerator.name == "tcg"
    # One thread for all processors under emulation, and no slower here: with one each, the kernel's patching of its
    # own code (static keys, which every nft hook and cpuset turns) now and then met a stale int3, and panicked.
    words = [QEMU[arch], *BOARD[arch], "-accel", "tcg,thread=single" if tcg else accelerator.name]
    words += ["-cpu", "max" if tcg else "host", "-smp", str(cpus), "-m", str(memory)]
    words += ["-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{folder}/console.log"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    # panic=-1, with -no-reboot above: a machine whose kernel has crashed ends instead of answering nothing for ever.
    words += ["-append", f"root=LABEL=root rw console={CONSOLE[arch]} net.ifnames=0 quiet panic=-1"]
    # unsafe: the disk is thrown away in the end, so nobody needs it to survive the host's crash.
    words += ["-drive", f"file={folder}/overlay.qcow2,if=virtio,cache=unsafe,discard=unmap"]
    words += ["-netdev", f"user,id=n0{forward}", "-device", "virtio-net-pci,netdev=n0,romfile="]
    words += ["-virtfs", f"local,path={quoted},mount_tag=lab,security_model=none,multidevs=remap"]
    # Without it the guest's first random numbers take seconds.
    words += ["-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0"]
    words += ["-fw_cfg", f"{credential}/lab.token,file={folder}/token"]
    words += ["-fw_cfg", f"{credential}/ssh.authorized_keys.root,file={folder}/key.pub"]
    return words


def start(image: Image, accelerator: Accelerator, *, arch: str, variant: str, memory: int, cpus: int, port: int,
          publish: int) -> Machine:  # fmt: skip
    """Start the machine on a throw-away disk above `image`; return its record, already saved."""
    folder = state.folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_hex(16)
    (folder / "token").write_text(token)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", folder / "key"], check=True)
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk)]
    subprocess.run([*overlay, str(folder / "overlay.qcow2")], check=True)
    ssh, port = free_port(port or 1), port or free_port()
    publish = publish or free_run(PUBLISHED)
    forwards = {22: ssh, 8888: port, **{8080 + i: publish + i for i in range(PUBLISHED)}}
    words = command(image, folder, state.TREE, accelerator, arch=arch, memory=memory, cpus=cpus, forwards=forwards)
    if os.geteuid() == 0:
        # What the ordinary user `learner` writes in the shared tree shall keep the owner of the
        # tree: without this capability the host's kernel refuses the change, and 9p goes on.
        words = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", *words]
    with (folder / "qemu.log").open("wb") as log:
        # A session of its own: Ctrl-C at `make lab` is not for the machine.
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    started = state.start_time(child.pid)
    if started is None:
        raise Ended(ENDED, why=(folder / "qemu.log").read_text().strip(), next=ONCE_MORE)
    machine = Machine(child.pid, started, ssh, port, publish, token, str(image.folder), variant, accelerator.name,
                      accelerator.why, memory, time.time())  # fmt: skip
    state.save(machine)
    state.in_use(image.folder).touch()
    reach.write_config(machine)
    return machine


def wait(machine: Machine, say: Say) -> None:
    """Wait until JupyterLab really answers with the token; raise LabError when the machine ends, or after TIMEOUT."""
    until = time.monotonic() + TIMEOUT
    booted = False
    while not answers(machine):
        if not state.alive(machine.pid, machine.started):
            raise Ended(ENDED, why=last_words(), next=ONCE_MORE)
        if time.monotonic() > until:
            raise LabError(f"JupyterLab has not answered for {TIMEOUT} s", why=last_words(), next="make lab FRESH=1")
        if not booted and greeted(machine.ssh):
            booted = True
            say("the machine's system is up; waiting for JupyterLab")
        time.sleep(0.5)


def answers(machine: Machine, seconds: float = 5) -> bool:
    """Whether JupyterLab answers, and knows the token (/api alone would answer anybody)."""
    url = f"http://127.0.0.1:{machine.port}/api/status"
    request = urllib.request.Request(url, headers={"Authorization": f"token {machine.token}"})
    # No proxy from the environment: this is the host's own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def greeted(port: int) -> bool:
    """Whether an sshd speaks on this port of 127.0.0.1; QEMU itself accepts long before."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def last_words() -> str:
    """What QEMU and the guest's console said in the end."""
    lines: list[str] = []
    for name in ("qemu.log", "console.log"):
        with contextlib.suppress(OSError):
            lines += ESCAPES.sub("", (state.folder() / name).read_text(errors="replace")).splitlines()[-12:]
    return "\n        ".join(line.rstrip() for line in lines) or "neither QEMU nor the console said anything"


def stop(machine: Machine) -> None:
    """End the machine: it needs no shutdown, its disk is thrown away and the shared tree is the host's own."""
    reach.close()
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        if not state.alive(machine.pid, machine.started):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine.pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and state.alive(machine.pid, machine.started):
            time.sleep(0.05)
    if state.alive(machine.pid, machine.started):
        raise LabError(f"the lab's machine, process {machine.pid}, does not end", next=f"kill -9 {machine.pid}")


def is_free(port: int) -> bool:
    """Whether a program may listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As QEMU does it: a connection that has just ended is no listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(but: int = 0) -> int:
    """A free port that the kernel chooses, other than `but`."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := int(probe.getsockname()[1])) != but:
                return port


def free_run(count: int) -> int:
    """The first of `count` free ports in a row, below those that the kernel hands out by itself."""
    for first in range(20000 + os.getpid() % 800 * count, 32000, count):
        if all(is_free(first + i) for i in range(count)):
            return first
    raise LabError(f"there are no {count} free ports in a row", next="choose them: PUBLISH_PORT=...")
