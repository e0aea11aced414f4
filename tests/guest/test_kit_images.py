"""The lab's own base images at work: a Go program is compiled, and runs on what holds nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.image import crane, kit

pytestmark = pytest.mark.guest
SOURCES = Path(__file__).resolve().parents[2] / "notebooks/files/go-hello"
REGISTRY = "localhost:5000"

Labkit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def labkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labkit]:
    """labkit run without a network, with a store of its own that goes away."""
    data = tmp_path_factory.mktemp("data")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "labkit", "run", "--rm", "--network", "none", *words]
        state = {**os.environ, "LABKIT_DATA": str(data)}
        return subprocess.run(command, capture_output=True, text=True, env=state, stdin=subprocess.DEVNULL)

    yield run
    shutil.rmtree(data)


@pytest.fixture(scope="module")
def program(labkit: Labkit, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the program was compiled, as app, and what `go build -x` said of it."""
    folder = tmp_path_factory.mktemp("go") / "src"
    shutil.copytree(SOURCES, folder)
    build = ["go", "build", "-x", "-trimpath", "-o", "app", "./cmd/api"]
    done = labkit("-v", f"{folder}:/src", "-w", "/src", f"{REGISTRY}/golang", *build)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_only_the_program_itself_is_compiled(program: tuple[Path, str]) -> None:
    """Of more than a hundred packages in it, go build compiles one and assembles none: the rest is in the cache."""
    folder, said = program
    compiled = re.findall(r"/compile -o \S+ .*?-p (\S+)", said)
    assert compiled == ["main"] and "/asm " not in said and said.count("/link -o") == 1, said
    assert said.count("\npackagefile ") > 100
    assert (folder / "app").read_bytes()[:4] == b"\x7fELF"


def test_the_program_runs_where_there_is_nothing_else(labkit: Labkit, program: tuple[Path, str]) -> None:
    """In `static` it does its work, as root and as nonroot; a shell is not to be found there."""
    mount = ["-v", f"{program[0]}:/src:ro"]
    asked = labkit(*mount, f"{REGISTRY}/static", "/src/app", "http://127.0.0.1:1/")
    assert asked.returncode == 1 and "connection refused" in asked.stderr, asked
    asked = labkit(*mount, f"{REGISTRY}/static:nonroot", "/src/app", "http://127.0.0.1:1/")
    assert asked.returncode == 1 and "connection refused" in asked.stderr, asked
    shell = labkit(f"{REGISTRY}/static", "sh")
    assert shell.returncode == 127 and "sh" in shell.stderr, shell


def test_the_network_is_not_asked_for_a_module(labkit: Labkit, tmp_path: Path) -> None:
    """A module that is not there is refused by name, and at once."""
    (tmp_path / "go.mod").write_text("module m\n\ngo 1.22\n")
    (tmp_path / "m.go").write_text('package main\n\nimport _ "example.org/other"\n\nfunc main() {}\n')
    done = labkit("-v", f"{tmp_path}:/src", "-w", "/src", f"{REGISTRY}/golang", "go", "build", "./...")
    assert done.returncode == 1 and "example.org/other" in done.stderr and "GOPROXY" not in done.stdout, done


def test_debian_has_its_tools_and_knows_where_they_are_from(labkit: Labkit) -> None:
    """A user is added, a process listed, a file's package named, with a shell that is bash."""
    script = "useradd app && id -u app && ps -o comm= -p $$ && awk 'BEGIN {print 6 * 7}' && dpkg -S /usr/bin/ls"
    done = labkit(f"{REGISTRY}/debian", "bash", "-c", script)
    assert done.stdout.split("\n")[:3] == ["1000", "bash", "42"], done
    assert "coreutils: /usr/bin/ls" in done.stdout


def test_the_registry_serves_every_image_under_its_names() -> None:
    """Those of the kit's table: a version and latest, or the one tag."""
    for name in kit.IMAGES:
        found = crane.ls(f"{REGISTRY}/{name.partition(':')[0]}")
        assert {name.partition(":")[2] or "latest"} < set(found), (name, found)
