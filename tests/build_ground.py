"""Ground for the tests of `labkit build`: contexts written from a table, builds in the machine, images read back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from image.making import tree
from runtime_ground import IMAGE, Machine

from labkit.image.store import Image, Store
from labkit.image.unpack import flatten

BASE = f"FROM {IMAGE}\n"
Content = str | bytes | None | tuple[str, int]


def context(folder: Path, files: Mapping[str, Content]) -> Path:
    """Write files: text or bytes; None is a folder; ("-> target", 0) a symlink; (text, mode) a file with a mode."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o644
        if isinstance(content, tuple):
            content, mode = content
            if content.startswith("-> "):
                path.symlink_to(content.removeprefix("-> "))
                continue
        if content is None:
            path.mkdir(exist_ok=True)
            continue
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
    return folder


class Ground:
    """A machine, and a folder for contexts."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.store = Store(machine.data / "images")

    def build(self, dockerfile: str, files: Mapping[str, Content] | None = None, *options: str,
              **extra: Any) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """labkit build, without a network; the context is made anew when `files` are given."""
        if files is not None or not self.folder.exists():
            subprocess.run(["rm", "-rf", str(self.folder)], check=True)
            context(self.folder, files or {})
        (self.folder / "Dockerfile").write_text(dockerfile)
        words = ["build", "--network", "none", "--progress", "plain", *options, str(self.folder)]
        return self.machine.labkit(*words, **extra)

    def built(self, dockerfile: str, files: Mapping[str, Content] | None = None, *options: str,
              **extra: Any) -> dict[str, Any]:  # fmt: skip
        """The same, which must succeed and is called app; what came of it."""
        metadata = self.folder.parent / "metadata.json"
        metadata.unlink(missing_ok=True)
        done = self.build(dockerfile, files, "-t", "app", "--metadata-file", str(metadata), *options, **extra)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(metadata.read_text())
        return {**found, "said": done.stderr}

    def image(self, name: str = "app") -> Image:
        """The image in the machine's store."""
        return self.store.get(name)

    def config(self, name: str = "app") -> dict[str, Any]:
        """The object `config` of its configuration."""
        return dict(self.image(name).config.config)

    def files(self, place: Path, name: str = "app") -> dict[str, tuple[Any, ...]]:
        """Everything in its root, but for times: (mode, uid, gid, content, first name, attributes)."""
        place.mkdir()
        flatten(self.image(name), place)
        return timeless(tree(place))

    def cat(self, path: str, place: Path, name: str = "app") -> str:
        """A file of its."""
        if not place.exists():
            place.mkdir()
            flatten(self.image(name), place)
        return (place / path.lstrip("/")).read_text()


def timeless(found: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """What image.making.tree found, without the times and without the root itself."""
    return {name: (*looks[:3], *looks[4:]) for name, looks in found.items() if name != "."}


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """The names that only one has, or that differ."""
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def without_python_settings() -> dict[str, str]:
    """An environment in which Python compiles once, as people have it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
