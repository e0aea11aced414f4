"""What a build says when the machine fails it: the line, what was being done, why; and no step stays open."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.image import collect
from labkit.image.build import builder, progress
from labkit.image.build.result import Built, Command, Request
from labkit.image.store import Store


class Writes:
    """In the place of who runs containers: each RUN writes a file that does not shrink, or fails as it is told."""

    stubs: Sequence[str] = ()

    def __init__(self, size: int = 1000, failing: OSError | None = None) -> None:
        self.size = size
        self.failing = failing

    def run(self, command: Command, lower: list[Path], upper: Path, work: Path,
            output: Callable[[bytes], None]) -> int:  # fmt: skip
        if self.failing:
            raise self.failing
        for number in range(4):
            (upper / str(number)).write_bytes(os.urandom(self.size // 4))
        return 0


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nRUN x\n")


def build(here: Path, runner: Writes) -> tuple[Built | LabError, list[dict[str, Any]]]:
    """What came of it, and the ends that were told; all that began has ended."""
    stream = io.StringIO()
    result: Built | LabError
    try:
        result = builder.build(Store(), Request(here / "context", tags=("app",)), runner, progress.RawJson(stream))
    except LabError as error:
        result = error
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    ends = [each for each in events if "end" in each]
    assert [each["end"] for each in ends] == [each["begin"] for each in events if "begin" in each]
    return result, ends


def test_a_runner_writes_a_layer(tmp_path: Path) -> None:
    """The ground of this file: without a fault the image is built."""
    result, ends = build(tmp_path, Writes())
    assert isinstance(result, Built) and not any(each["failed"] for each in ends)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "df -h"), (errno.EDQUOT, "df -h"), (errno.EMFILE, "again")]
)
def test_an_error_of_the_system_points_at_the_line(tmp_path: Path, number: int, advice: str) -> None:
    """It is told with the line, in the kernel's words, and with something to try; the step has ended."""
    result, ends = build(tmp_path, Writes(failing=OSError(number, os.strerror(number), "/some/file")))
    assert isinstance(result, LabError) and result.what.startswith("Dockerfile:2: RUN cannot be done")
    assert os.strerror(number) in result.why and "/some/file" in result.why and advice in result.next
    assert (result.status, ends[-1]["failed"]) == (1, "RUN cannot be done")


def test_a_layer_that_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    """A layer's file that grows over what this process may write (RLIMIT_FSIZE): told, and no half blob is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        result, ends = build(tmp_path, Writes(size=200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(result, LabError) and result.what.startswith("Dockerfile:2: cannot keep a new layer")
    assert "File too large" in result.why and ends[-1]["failed"]
    assert list(collect.verify(Store())) == [] and not list(Store().blobs.iterdir())
    assert isinstance(build(tmp_path, Writes(size=200_000))[0], Built)


def test_a_step_that_cannot_be_noted_is_told(tmp_path: Path) -> None:
    """The cache's folder is none: the line, and not a traceback."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/build").write_text("in the way")
    result, ends = build(tmp_path, Writes())
    assert isinstance(result, LabError) and result.what.startswith("Dockerfile:2: ")
    assert "data/build" in result.why and ends[-1]["failed"]


def test_an_image_that_cannot_be_named_is_told(tmp_path: Path) -> None:
    """The last step, exporting, ends too when it fails."""
    (tmp_path / "data/images/.index.json").mkdir(parents=True)  # where the names are written first
    result, ends = build(tmp_path, Writes())
    assert isinstance(result, LabError) and "the image cannot be written" in result.what
    assert (result.status, ends[-1]["failed"]) == (1, "the image cannot be written")
