"""A build that is killed at any moment: the next one completes, the store verifies, nothing is leaked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from build_ground import BASE, Ground, context
from image.making import tree
from runtime_ground import child, in_a_machine

from labkit.image import collect
from labkit.image.drafts import PREFIX

pytest_plugins = ["runtime_machine", "build_machine"]
pytestmark = in_a_machine
TEXT = (
    BASE + "WORKDIR /w\nCOPY many many\nRUN for n in 1 2 3 4 5 6; do dd if=/dev/zero of=f$n bs=100k count=5; done\n"
    "RUN rm -r many/a && ln f1 g\n" + BASE + "COPY --from=0 /w /w\nRUN cp /w/f2 /x\n"
)


def _killed(ground: Ground, seed: int, kills: int) -> None:
    chance, machine = random.Random(seed), ground.machine
    files = {f"many/{name}/{number}": chance.randbytes(3000) for name in "ab" for number in range(60)}
    context(ground.folder, files)
    began = time.monotonic()
    whole = ground.built(TEXT)["digest"]
    seconds = time.monotonic() - began
    expected = {path.name: _inside(path) for path in (machine.data / "layers").iterdir()}
    words = [sys.executable, "-m", "labkit", "build", "--network", "none", "-t", "app", str(ground.folder)]
    killed = 0
    for _ in range(kills):
        # From the beginning, or from where the killed ones came to.
        if chance.random() < 0.7:
            machine.labkit("rmi", "app")
            assert machine.labkit("prune").returncode == 0
        running = subprocess.Popen(machine.words(*words), env=machine.environment, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.1, seconds))
        try:
            os.kill(child(running), signal.SIGKILL)  # type: ignore[arg-type]
            killed += 1
        except (AssertionError, FileNotFoundError, IndexError, ProcessLookupError):
            pass  # it had ended
        running.wait(60)
        assert list(collect.verify(ground.store)) == []
        for path in (machine.data / "layers").glob("[!.]*"):
            assert _inside(path) == expected[path.name], path  # a folder with a name is a whole one
    assert killed >= kills // 2
    assert ground.built(TEXT)["digest"] == whole
    assert list(collect.verify(ground.store)) == []
    assert {path.name: _inside(path) for path in (machine.data / "layers").iterdir()} == expected
    assert not list(machine.data.rglob(f"{PREFIX}*"))
    assert not list((machine.folder / "run/ledger").glob("*")) and not list(machine.data.glob("containers/[!.]*"))


def _inside(folder: Path) -> dict[str, object]:
    """A layer's folder, without overlayfs's own attributes, and without the folder itself."""
    return {name: (*looks[:6], [each for each in looks[6] if not each[0].startswith("trusted.overlay.")])
            for name, looks in tree(folder).items() if name != "."}  # fmt: skip


def test_killed_at_six_moments(ground: Ground) -> None:
    """SIGKILL at six random moments of a build with RUN, COPY and two stages."""
    _killed(ground, 5, 6)


@pytest.mark.long
def test_killed_at_twenty_moments(ground: Ground) -> None:
    """The same at twenty other moments."""
    _killed(ground, 20, 20)
