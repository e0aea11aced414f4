"""Top floor: run a command in which programs of another architecture simply run.

    python -m labkit.lab.foreign aarch64 COMMAND...

Owns: a user and a mount namespace with a binfmt_misc of their own, in which QEMU's
user-mode emulator answers for the other architecture's programs.  The host's own
binfmt_misc is neither needed nor touched: since Linux 6.7 each user namespace can
have one.  Building an arm64 image on an x86-64 machine is what this is for.

Read: user_namespaces(7), Documentation/admin-guide/binfmt-misc.rst, qemu-user(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel.mounts import mount, propagate
from labkit.kernel.syscalls import call

BINFMT = "/proc/sys/fs/binfmt_misc"
IDS = 65536  # how many user ids an image's tree may use


class Format(NamedTuple):
    """What tells a program of an architecture: the start of its ELF header, and which bits of it count."""

    magic: str
    mask: str


# ELF64, little endian, executable or shared object (the 16th byte, its lowest bit ignored), e_machine: elf(5).
FORMATS = {
    "aarch64": Format(
        magic=r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00",
        mask=r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff",
    )
}


def enter(architecture: str) -> None:
    """Move this process into the namespaces described above; it must have one thread.

    Raises LabError where the kernel is older than 6.7, or the emulator is missing.
    """
    emulator = shutil.which(f"qemu-{architecture}-static")
    if emulator is None:
        raise LabError(f"cannot run {architecture} programs", why="QEMU's user-mode emulator is missing",
                       next="apt-get install qemu-user-static")  # fmt: skip
    _user_namespace()
    propagate("/", "rprivate")
    try:
        mount("binfmt_misc", BINFMT, "binfmt_misc")
        form = FORMATS[architecture]
        with open(f"{BINFMT}/register", "w") as register:
            # F: the emulator is opened now, so that it need not exist inside the image's tree.
            register.write(f":lab-{architecture}:M::{form.magic}:{form.mask}:{emulator}:F")
    except (OSError, LabError) as error:
        raise LabError(f"cannot run {architecture} programs",
                       why=f"no binfmt_misc for this user namespace ({error}); this kernel is {os.uname().release}",
                       next="use Linux 6.7 or later") from error  # fmt: skip


def _user_namespace() -> None:
    """New user and mount namespaces with IDS ids: root keeps its ids, a user takes its subordinate ones."""
    inside_r, inside_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    target = os.getpid()
    if (helper := os.fork()) == 0:
        # The helper stays outside: only there does root's, or newuidmap's, right to map ids hold.
        os.close(inside_w)
        os.read(inside_r, 1)
        if os.geteuid() == 0:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{target}/{name}", "w") as table:
                    table.write(f"0 0 {IDS}")
        else:
            for program, own, file in (("newuidmap", os.getuid(), "subuid"), ("newgidmap", os.getgid(), "subgid")):
                start = _subordinate(file)
                words = [program, str(target), "0", str(own), "1", "1", str(start), str(IDS - 1)]
                subprocess.run(words, check=True)
        os.write(mapped_w, b"m")
        os._exit(0)
    os.close(mapped_w)
    call("unshare", C.CLONE_NEWUSER | C.CLONE_NEWNS)
    os.write(inside_w, b"i")
    done = os.read(mapped_r, 1)
    os.waitpid(helper, 0)
    for descriptor in (inside_r, inside_w, mapped_r):
        os.close(descriptor)
    if not done:
        raise LabError(
            "cannot map user ids",
            why="the helper that maps them failed; its message is above",
            next="apt-get install uidmap, and give yourself 65536 ids in /etc/subuid and /etc/subgid",
        )


def _subordinate(file: str) -> int:
    name = os.environ.get("USER") or str(os.getuid())
    with open(f"/etc/{file}") as lines:
        for line in lines:
            owner, start, _ = line.split(":")
            if owner in (name, str(os.getuid())):
                return int(start)
    raise LabError("cannot map user ids", why=f"{name} has no line in /etc/{file}",
                   next=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}")  # fmt: skip


def main(argv: list[str]) -> int:
    """`python -m labkit.lab.foreign ARCHITECTURE COMMAND...`."""
    if len(argv) < 2 or argv[0] not in FORMATS:
        print(f"usage: python -m labkit.lab.foreign {{{','.join(FORMATS)}}} COMMAND...", file=sys.stderr)
        return 2
    enter(argv[0])
    os.execvp(argv[1], argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
