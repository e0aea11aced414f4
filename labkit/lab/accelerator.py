"""Top floor: which accelerator the lab's machine gets, decided by proof.

Owns: one tiny boot of the guest's own kernel under KVM, with a time limit.  A /dev/kvm
that opens proves nothing: there are machines on which it opens, and every stock kernel
then hangs for ever.  The kernel gets no disk, so a working one runs its way to the panic
"unable to mount root fs" in about a second, and panic=-1 ends the machine.

Read: Documentation/virt/kvm/api.rst, qemu-system(1) on -accel, kernel-parameters.txt.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

LIMIT = 12.0  # seconds; KVM needs about one
DEVICE = Path("/dev/kvm")
# Printed when everything that a kernel does before its first program has been done.
PROOF = b"Unable to mount root fs"


class Accelerator(NamedTuple):
    """name -- kvm or tcg (software emulation); why -- the reason, for a person."""

    name: str
    why: str


def choose(kernel: Path, memory: Path, *, qemu: str = "qemu-system-x86_64", limit: float = LIMIT) -> Accelerator:
    """The accelerator for guests with this kernel; at most `limit` seconds, then remembered in `memory`.

    kernel -- the guest's vmlinuz
    memory -- a file that keeps the answer until this host boots again or changes
    """
    if not DEVICE.exists():
        return Accelerator("tcg", "there is no /dev/kvm (no hardware virtualisation, or it is off in the firmware)")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Accelerator("tcg", "this user may not open /dev/kvm; to be ten times faster: sudo adduser $USER kvm")
    key = _key(kernel, qemu, limit)
    try:
        known = json.loads(memory.read_text())
        if known["key"] == key:
            return Accelerator(known["name"], known["why"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never asked, or a file that says nothing
    answer = prove(kernel, qemu=qemu, limit=limit)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps({"key": key, **answer._asdict()}))
    return answer


def doubted(chosen: Accelerator, memory: Path) -> Accelerator:
    """What to take after a machine ended by itself under `chosen`: tcg, and kept for the next start.

    memory -- the file that `choose` keeps its answer in
    """
    if chosen.name == "tcg":
        return chosen
    answer = Accelerator("tcg", f"a machine ended by itself under {chosen.name}")
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps({**known, **answer._asdict()}))
    return answer


def prove(kernel: Path, *, qemu: str = "qemu-system-x86_64", limit: float = LIMIT, accel: str = "kvm") -> Accelerator:
    """Boot `kernel` under `accel` until it asks for its disk; tcg with the reason when it does not get there."""
    command = [qemu, "-accel", accel, "-cpu", "max" if accel == "tcg" else "host", "-m", "256", "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    command += ["-append", "console=ttyS0 panic=-1 loglevel=7"]
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    said = b""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while (left := began + limit - time.monotonic()) > 0 and selector.select(left):
                chunk = os.read(child.stdout.fileno(), 65536)
                said += chunk
                if PROOF in said or not chunk:
                    break
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    if PROOF in said:
        return Accelerator(accel, f"the guest's kernel ran under it in {time.monotonic() - began:.1f} s")
    if time.monotonic() - began >= limit:
        # The first line is QEMU's own ("KVM internal error ..."), or the kernel's first word.
        first = said.strip().splitlines()[0].decode(errors="replace")[:80] if said.strip() else "nothing at all"
        return Accelerator("tcg", f"/dev/kvm opens, but the kernel did not come up in {limit:.0f} s ({first})")
    return Accelerator("tcg", f"QEMU refused /dev/kvm: {said.decode(errors='replace').strip()[-200:]}")


def _key(kernel: Path, qemu: str, limit: float) -> str:
    """Changes with each boot of this host, and with its QEMU, its processor and the guest's kernel."""
    digest = hashlib.sha256(f"{qemu} {limit}".encode())
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/version"):
        digest.update(Path(path).read_bytes())
    digest.update(hashlib.sha256(kernel.read_bytes()).digest())
    digest.update(subprocess.run([qemu, "--version"], capture_output=True).stdout)
    return digest.hexdigest()[:16]
