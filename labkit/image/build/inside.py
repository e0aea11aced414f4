"""Floor 2: work on a stack of layers as one tree, in a process of its own.

Owns: a fork whose mount namespace shows the stack (and, to read from, other stacks) below a folder; what
the work returns or raises comes back over a pipe.  No mount outlives the fork, and none is ever seen
outside of it.

Read: mount_namespaces(7); overlayfs.rst; fork(2).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from labkit import errors
from labkit.errors import LabError
from labkit.kernel import mounts, namespaces, process
from labkit.kernel.overlay import mount_overlay


class Stack(NamedTuple):
    """Layers (bottom first), and the folders in which a mount of them finds place."""

    lower: Sequence[Path]
    place: Path  # an empty folder of this stack's own, on the file system of `upper`

    @property
    def upper(self) -> Path:
        """What is written."""
        return self.place / "upper"

    @property
    def work(self) -> Path:
        """overlayfs's own."""
        return self.place / "work"

    @property
    def root(self) -> Path:
        """Where the one tree is seen, inside."""
        return self.place / "root"

    def make(self) -> list[Path]:
        """Make the folders; what to mount as lower layers (an overlay needs one, so an empty one for scratch)."""
        for folder in (self.upper, self.work, self.root, self.place / "empty"):
            folder.mkdir(exist_ok=True)
        self.upper.chmod(0o755)  # it is the mode of / inside
        return list(self.lower) or [self.place / "empty"]


def within(stacks: Sequence[Stack], work: Callable[[], object]) -> object:
    """Call `work` where each stack is seen at its root; its answer, which must be JSON's.

    Raises the LabError that it raised; any other exception as a LabError. Needs root.
    """
    lowers = [stack.make() for stack in stacks]
    inward, outward = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(inward)
            os.umask(0)
            answer = _work(stacks, lowers, work)
            with os.fdopen(outward, "wb") as pipe:
                pipe.write(json.dumps(answer).encode())
        finally:
            os._exit(0)  # never back into the caller's code, nor its exit handlers
    os.close(outward)
    try:
        with os.fdopen(inward, "rb") as pipe:
            said = pipe.read()
    except BaseException:  # a signal that ends the build
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.waitpid(pid, 0)
    if not said:
        raise LabError("the process that writes a layer was killed", next="the build again: nothing of it was kept")
    answer = json.loads(said)
    if "error" in answer:
        raise getattr(errors, answer["kind"])(**answer["error"])
    return answer["result"]


def _work(stacks: Sequence[Stack], lowers: list[list[Path]], work: Callable[[], object]) -> dict[str, object]:
    try:
        process.die_with_parent()
        namespaces.leave(["mnt"])
        mounts.propagate("/", "rprivate")
        for stack, lower in zip(stacks, lowers, strict=True):
            mount_overlay(stack.root, lower, stack.upper, stack.work)
        return {"result": work()}
    except LabError as error:
        words = {"what": error.what, "why": error.why, "next": error.next, "status": error.status}
        return {"error": words, "kind": type(error).__name__}
    except BaseException as error:
        words = {"what": f"a layer could not be written: {error}", "why": type(error).__name__}
        return {"error": words, "kind": "LabError"}
