"""Floor 2: the registry, asked through the `crane` program.

Owns: running crane (no shell, with a time limit), and turning its errors into ours with
its own words kept.

Read: crane's documentation; the OCI distribution specification for what it asks.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labkit.errors import LabError, NotFound
from labkit.image.reference import Reference

TIMEOUT = 600  # seconds: a layer of a gigabyte on a slow line

# a piece of crane's words: what it means, what to try
CAUSES = (
    ("MANIFEST_UNKNOWN", "the repository has no such tag or digest", "crane ls lists the tags"),
    ("NAME_UNKNOWN", "the registry has no such repository", "check the spelling"),
    ("UNAUTHORIZED", "the registry does not show it to you: it is private, or does not exist", "crane auth login"),
    ("DENIED", "the registry does not show it to you: it is private, or does not exist", "crane auth login"),
    ("connection refused", "nothing listens there: the registry is down", "start it (labkit registry), or try again"),
    (
        "no such host",
        "the registry's name is unknown here: no network, or misspelt",
        "without a network, use localhost:5000",
    ),
    ("i/o timeout", "the registry does not answer", "check the network, or use localhost:5000"),
    ("x509", "its certificate is not trusted here", "behind an inspecting proxy, give make lab your certificates"),
    ("404", "the registry knows nothing by that name", "check the spelling"),
)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """crane with its output on a pipe. Raises NotFound when the program is missing."""
    try:
        return subprocess.Popen(["crane", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise NotFound(
            "the program crane is not installed",
            why="images are fetched through it",
            next="sh vagrant/install-crane.sh",
        ) from error


def run(*arguments: str, what: str, timeout: float = TIMEOUT) -> bytes:
    """crane's output. Raises LabError: `what` could not be done, crane's words, what to try."""
    child = start(*arguments)
    try:
        output, words = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        child.kill()
        child.communicate()
        raise LabError(what, why=f"crane did not finish in {timeout:g} s", next="check the network") from error
    if child.returncode:
        raise failure(what, words.decode(errors="replace"))
    return output


def failure(what: str, words: str) -> LabError:
    """Our error for crane's words."""
    lines = [line.removeprefix("Error: ") for line in words.strip().splitlines() if "Usage" not in line]
    said = (lines[-1] if lines else "nothing")[-400:]
    for piece, why, next_ in CAUSES:
        if piece in words:
            kind = NotFound if piece in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "404") else LabError
            return kind(what, why=f"{why}. crane says: {said}", next=next_)
    return LabError(what, why=f"crane says: {said}")


def manifest(name: str) -> bytes:
    """The bytes of a manifest or index, as the registry holds them: their hash is their name."""
    return run("manifest", name, what=f"cannot fetch the manifest of {name}", timeout=120)


@contextmanager
def blob(reference: Reference, digest: str, timeout: float = TIMEOUT) -> Iterator[tuple[IO[bytes], Callable[[], str]]]:
    """The stream of a blob's bytes, and a function that ends crane and tells what it complained of.

    A registry that stalls is given up after `timeout` seconds: the stream ends short.
    """
    child = start("blob", reference.at(digest))
    assert child.stdout is not None and child.stderr is not None
    words = child.stderr
    late = threading.Timer(timeout, child.kill)
    late.start()

    def failure() -> str:
        said = words.read().decode(errors="replace")
        if child.wait() < 0:
            return f"it did not finish in {timeout:g} s"
        return said

    try:
        yield child.stdout, failure
    finally:
        late.cancel()
        child.kill()
        child.communicate()


def push(layout: Path, name: str) -> None:
    """Push an OCI image layout under `name`."""
    run("push", str(layout), name, what=f"cannot push {layout.name} to {name}")


def listing(arguments: Sequence[str]) -> list[str]:
    """The lines of crane ls and the like."""
    return run(*arguments, what=f"crane {' '.join(arguments)} failed").decode().split()
