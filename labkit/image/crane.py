"""Floor 2: the registry, asked through the `crane` program.

Owns: running crane (no shell, with a time limit), one typed function for each thing asked of
it, and turning its errors into ours with its own words kept.  Whoever needs a password is
known to crane by the usual file, ~/.docker/config.json (or $DOCKER_CONFIG/config.json).

Read: crane's documentation; the OCI distribution specification for what it asks.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.image import model, reference
from labkit.image.reference import Reference

TIMEOUT = 600  # seconds: a whole image, pushed, pulled or copied by crane alone
SHORT = 120  # seconds: a document
STALL = 120  # seconds without a byte of a blob; how long all of it takes is the line's affair
SAID = 400  # characters of crane's words that a message keeps

_PRIVATE = "the registry does not show it to you: it is private, or does not exist"
_LOGIN = "crane auth login REGISTRY (it writes ~/.docker/config.json)"
# a piece of crane's words: what kind of error, what it means, what to try.  The words hold names and digests too,
# in small letters and digits: a piece must be more than those.
CAUSES: tuple[tuple[str, type[LabError], str, str], ...] = (
    ("MANIFEST_UNKNOWN", NotFound, "the repository has no such tag or digest", "crane ls lists the tags"),
    ("NAME_UNKNOWN", NotFound, "the registry has no such repository",
     "check the spelling; crane catalog localhost:5000 lists the lab's own"),
    ("TOOMANYREQUESTS", LabError, "the registry has had too many requests from here", "wait, or log in: " + _LOGIN),
    ("429 Too Many", LabError, "the registry has had too many requests from here", "wait, or log in: " + _LOGIN),
    ("UNAUTHORIZED", Refused, _PRIVATE, _LOGIN),
    ("401 Unauthorized", Refused, _PRIVATE, _LOGIN),
    ("DENIED", Refused, _PRIVATE, _LOGIN),
    ("403 Forbidden", Refused, _PRIVATE, _LOGIN),
    ("connection refused", LabError, "nothing listens there: the registry is down", "start it (labkit registry)"),
    ("connection reset", LabError, "the connection broke: the registry, or a proxy, hung up", "try again"),
    ("no such host", LabError, "the registry's name is unknown here: no network, or misspelt",
     "without a network, use localhost:5000"),
    ("network is unreachable", LabError, "there is no network here", "without a network, use localhost:5000"),
    ("i/o timeout", LabError, "the registry does not answer", "check the network, or use localhost:5000"),
    (": x509: ", LabError, "its certificate is not trusted here",
     "behind an inspecting proxy, give make lab your certificates"),
    ("server gave HTTP response", LabError, "the registry speaks plain HTTP, crane expected HTTPS",
     "crane takes plain HTTP from localhost and 127.0.0.1 only"),
    ("unexpected status code 5", LabError, "the registry has a fault of its own", "try again, or ask who runs it"),
    ("no child with platform", NotFound, "the image is not made for that platform", "crane manifest lists them"),
    ("could not parse reference", BadInput, "crane does not take that name",
     "a repository's name has two characters or more"),
    ("404 Not Found", NotFound, "the registry knows nothing by that name", "check the spelling"),
    ("EOF", LabError, "the answer ended too early: the registry, or a proxy, hung up", "try again"),
)  # fmt: skip


# --- looking -----------------------------------------------------------------------------


def manifest(name: str | Reference, platform: str = "") -> bytes:
    """The bytes of a manifest or index, as the registry holds them: their hash is their name.

    platform -- such as linux/arm64; where there is an index, the manifest that it names for this.
    """
    full = _full(name)
    return run(*_for(platform), "manifest", full, what=f"cannot fetch the manifest of {full}", timeout=SHORT)


def index(name: str | Reference) -> dict[str, Any]:
    """The index, one line for each platform. Raises BadInput where the name means a single image."""
    full = _full(name)
    document = model.parse(manifest(name), f"the index of {full}")
    if model.kind(document) != "index":
        raise BadInput(f"{full} has no index", why="it is an image for one platform: its manifest", next="manifest()")
    return document


def config(name: str | Reference, platform: str = "") -> dict[str, Any]:
    """The configuration of an image."""
    full = _full(name)
    data = run(*_for(platform), "config", full, what=f"cannot fetch the configuration of {full}", timeout=SHORT)
    return model.parse(data, f"the configuration of {full}")


def digest(name: str | Reference, platform: str = "") -> str:
    """What the name means now: the digest of its index or manifest."""
    full = _full(name)
    return _word(run(*_for(platform), "digest", full, what=f"cannot resolve {full}", timeout=SHORT))


def ls(repository: str) -> list[str]:
    """The tags of a repository."""
    named = reference.parse(repository)
    place = f"{named.registry}/{named.repository}"
    return run("ls", place, what=f"cannot list the tags of {place}", timeout=SHORT).decode().split()


@contextmanager
def blob(where: Reference, digest: str, stall: float = STALL) -> Iterator[tuple[IO[bytes], Callable[[], str]]]:
    """The stream of a blob's bytes, and a function that ends crane and tells what it complained of.

    Reading raises LabError when nothing has come for `stall` seconds.
    """
    child = start("blob", where.at(digest))
    assert child.stdout is not None and child.stderr is not None
    words = child.stderr
    stream = _Watched(child.stdout.fileno(), f"cannot fetch blob {digest[:19]} of {where}", stall)

    def failure() -> str:
        if not stream.ended:
            child.kill()  # it waits for somebody to read the rest
        said = words.read().decode(errors="replace")
        return said if child.wait() > 0 else ""

    try:
        yield stream, failure  # type: ignore[misc]  # whoever takes a blob only reads
    finally:
        child.kill()
        child.communicate()


class _Watched:
    """The reading end of a pipe that must not fall silent."""

    def __init__(self, pipe: int, what: str, stall: float) -> None:
        self.pipe = pipe
        self.silence = select.poll()  # select() would refuse a descriptor above 1023
        self.silence.register(pipe, select.POLLIN)
        self.what = what
        self.stall = stall
        self.ended = False

    def read(self, size: int) -> bytes:
        """The bytes that have come, `size` at most; b"" at the end. Raises LabError."""
        if not self.silence.poll(self.stall * 1000):
            why = f"nothing came for {self.stall:g} s: the registry, or the line to it, has stalled"
            raise LabError(self.what, why=why, next="check the network and try again; what came whole is kept")
        data = os.read(self.pipe, size)
        self.ended = not data
        return data


# --- fetching and changing ---------------------------------------------------------------


def pull(name: str | Reference, layout: Path, platform: str = "") -> None:
    """Fetch into an OCI image layout, which may hold others already; its index.json then names the image."""
    full = _full(name)
    words = ["pull", "--format=oci", "--annotate-ref", full, str(layout.absolute())]
    run(*_for(platform), *words, what=f"cannot pull {full}")


def push(layout: Path, name: str | Reference, *, collection: bool = False) -> str:
    """Push an OCI image layout under `name`; its name with the digest.

    collection -- the layout holds several images: an index of all of them is pushed.
    """
    words = ["push", *(["--index"] if collection else []), str(layout.absolute()), _full(name)]
    return _word(run(*words, what=f"cannot push {layout.name} to {_full(name)}"))


def copy(source: str | Reference, target: str | Reference, platform: str = "") -> None:
    """Copy from registry to registry, digest for digest; every platform unless one is named."""
    run(*_for(platform), "copy", _full(source), _full(target), what=f"cannot copy {_full(source)} to {_full(target)}")


def mutate(
    name: str | Reference,
    target: str | Reference,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] | None = None,
    cmd: Sequence[str] | None = None,
    user: str | None = None,
    workdir: str | None = None,
    layers: Sequence[Path] = (),
) -> str:
    """An image like `name` with another configuration, and `layers` (tar archives) on top, as `target`.

    Returns its name with the digest.  The layers below are not touched.
    """
    words = ["mutate", _full(name), f"--tag={_full(target)}"]
    for option, pairs, write in (("label", labels, _csv), ("annotation", annotations, _csv), ("env", env, str)):
        words += [f"--{option}={write(f'{key}={value}')}" for key, value in (pairs or {}).items()]
    for option, each in (("entrypoint", entrypoint), ("cmd", cmd), ("append", [str(p.absolute()) for p in layers])):
        words += [f"--{option}={_csv(word)}" for word in each or ()]
    words += [f"--{option}={value}" for option, value in (("user", user), ("workdir", workdir)) if value is not None]
    return _word(run(*words, what=f"cannot make {_full(target)} of {_full(name)}"))


def login(registry: str, user: str, password: str) -> None:
    """Write a name and a password for `registry` into the usual file; the password goes by a pipe, not by `ps`."""
    words = ("auth", "login", registry, f"--username={user}", "--password-stdin")
    run(*words, what=f"cannot log in to {registry}", timeout=SHORT, given=password.encode())


# --- the program -------------------------------------------------------------------------


def start(*arguments: str, given: bool = False) -> subprocess.Popen[bytes]:
    """crane with its output on a pipe. Raises NotFound when the program is missing."""
    try:
        return subprocess.Popen(
            ["crane", *arguments],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise NotFound(
            "the program crane is not installed",
            why="images are fetched through it",
            next="sh vagrant/install-crane.sh",
        ) from error


def run(*arguments: str, what: str, timeout: float = TIMEOUT, given: bytes | None = None) -> bytes:
    """crane's output. Raises LabError: `what` could not be done, crane's words, what to try."""
    child = start(*arguments, given=given is not None)
    try:
        output, words = child.communicate(given, timeout=timeout)
    except BaseException as error:
        child.kill()
        child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise LabError(what, why=f"crane did not finish in {timeout:g} s", next="check the network") from error
    if child.returncode:
        raise failure(what, words.decode(errors="replace"))
    return output


def failure(what: str, words: str) -> LabError:
    """Our error for crane's words."""
    lines = [line.removeprefix("Error: ") for line in words.strip().splitlines() if "Usage" not in line]
    said = (lines[-1] if lines else "nothing")[-SAID:]
    for piece, kind, why, next_ in CAUSES:
        if piece in words:
            return kind(what, why=f"{why}. crane says: {said}", next=next_)
    return LabError(what, why=f"crane says: {said}", next="labkit images lists what needs no registry; or try later")


def _full(name: str | Reference) -> str:
    """The whole name; what is no name never reaches crane, where it might be an option."""
    return str(reference.parse(name) if isinstance(name, str) else name)


def _for(platform: str) -> list[str]:
    return [f"--platform={platform}"] if platform else []


def _csv(word: str) -> str:
    """crane reads these options as lines of comma-separated values."""
    return '"' + word.replace('"', '""') + '"' if set(word) & set(',"\n\r') else word


def _word(output: bytes) -> str:
    return output.decode().strip()
