"""Does labkit build make of a Dockerfile what podman (buildah) makes of it: the same tree, the same settings?"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_ground import BASE, Content, Ground, timeless
from image.making import tree
from runtime_ground import IMAGE, image_layout, in_a_machine

from labkit.image import model
from labkit.image.store import Image, Store
from labkit.image.unpack import flatten

pytest_plugins = ["runtime_machine", "build_machine"]
pytestmark = in_a_machine

# Without CAP_SYS_RESOURCE podman could not raise its own defaults.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
CONFIG = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal")

FILES: dict[str, Content] = {
    "one": "1\n",
    "two": ("2\n", 0o600),
    "run": ("#!/bin/sh\n", 0o755),
    "d/x": "x\n",
    "d/deep/y": "y\n",
    "d/link": ("-> x", 0),
    "top": ("-> one", 0),
    "notes.md": "n\n",
    "keep.md": "k\n",
    "e/a.tmp": "t\n",
    "e/b": "b\n",
    ".dockerignore": "*.md\n!keep.md\n**/*.tmp\n",
}
CASES: dict[str, str] = {
    "a file to a name": "COPY one /here",
    "a file to a folder": "COPY one /new/",
    "a file into what is a folder": "COPY one /tmp",
    "several files": "COPY one two run /many/",
    "a folder's content": "COPY d /into",
    "a folder's content into a folder": "RUN mkdir -m 700 /into && echo old > /into/x\nCOPY d /into",
    "a pattern": "COPY t* /pattern/",
    "a link at the top is followed": "COPY top /followed",
    "a link in the image is followed": "RUN mkdir /real && ln -s /real /way\nCOPY one /way/one",
    "a file in the place of a file": "RUN echo old > /one\nCOPY one /one",
    "what is ignored": "COPY . /all/\nRUN rm /all/Dockerfile",
    "owners": "COPY --chown=33:44 d /owned\nCOPY --chown=www-data one /owned/w\nCOPY --chown=nobody:tty two /owned/n",
    "a mode": "COPY --chmod=751 one /moded",
    "names relative to the folder of work": "WORKDIR /w/d\nWORKDIR e\nCOPY one two ./\nCOPY one up",
    "variables": 'ENV A=one B="b c"\nCOPY $A /${B:-x}/${D:-d}/\nRUN echo "$A $B ${C:-d}" > /said',
    "arguments": "ARG X=1\nARG Y\nENV Z=$X-$Y\nRUN echo $X $Y $Z > /args",
    "what RUN changes": "RUN mkdir -p /a/b && echo x > /a/b/f && ln /a/b/f /a/g && ln -s /a /l && chmod 4711 /a/b/f",
    "what RUN removes": "RUN rm /etc/group && rm -r /var/log\nRUN mkdir /var/log",
    "a user": "RUN mkdir -m 777 /u\nUSER www-data\nRUN id -u > /u/id\nUSER 12:13\nRUN id -g > /u/gid",
    "the settings": 'ENV A=1\nENV A=2 B=3\nEXPOSE 80 53/udp\nVOLUME /v\nSTOPSIGNAL SIGQUIT\nENTRYPOINT ["/bin/sh"]\n'
    'CMD ["-c", "true"]\nUSER nobody\nWORKDIR /tmp',
    # buildah puts /bin/sh before a CMD whatever SHELL says; docker's own build is asked about that in the guest.
    "shells": 'SHELL ["/bin/busybox", "sh", "-c"]\nRUN echo $0 > /x',
    "stages": f"RUN echo made > /made && chown 5:6 /made && mkdir /t && echo t > /t/u\n{BASE}"
    "COPY --from=0 /made /t /from/",
    "lines that go on": "RUN echo a \\\n  # a comment\n  b > /ab && \\\n  echo c >> /ab",
}
LEFT_BEHIND = "etc/hostname"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A podman with a storage of its own, which holds the base image."""
    base = tmp_path_factory.mktemp("podman")
    words = ["podman", "--runtime", "runc", "--root", f"{base}/root", "--runroot", f"{base}/run",
             "--tmpdir", f"{base}/tmp",
             "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay",
             "--log-level", "error"]  # fmt: skip
    layout = image_layout(tmp_path_factory.getbasetemp())
    subprocess.run([*words, "pull", "--quiet", f"oci:{layout}:{IMAGE}:latest"], check=True, capture_output=True)
    pulled = subprocess.run([*words, "images", "--quiet"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run([*words, "tag", pulled[0], f"{IMAGE}:latest"], check=True, capture_output=True)
    yield words
    subprocess.run([*words, "rmi", "--all", "--force"], check=True, capture_output=True)
    subprocess.run(["umount", f"{base}/root/overlay"], capture_output=True)


def _of_podman(podman: list[str], ground: Ground, place: Path, *options: str) -> Image:
    """Build the ground's context with podman; its image in a store at `place`."""
    words = [*podman, "build", "--network", "none", *LIMITS, "--no-cache", "--tag", "localhost/app:1", *options]
    done = subprocess.run([*words, str(ground.folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = [*podman, "push", "--quiet", "localhost/app:1", f"oci:{place}:localhost/app:1"]
    subprocess.run(words, check=True, capture_output=True)
    store = Store(place)
    (digest,) = store.names().values()
    manifest = model.Manifest.read(store.document(digest))
    return Image("app", digest, manifest, model.Config.read(store.document(manifest.config.digest)), store)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in CONFIG if config.get(key)}


@pytest.mark.parametrize("name", CASES)
def test_podman_makes_the_same(name: str, ground: Ground, podman: list[str], tmp_path: Path) -> None:
    """The same tree (mode, owner, attributes, links, contents) and the same settings, but for times and ids."""
    options = ["--build-arg", "Y=2"] if name == "arguments" else []
    # An OCI configuration has no SHELL, and buildah then does without it.
    form = ["--format", "docker"] if name == "shells" else []
    ground.built(BASE + CASES[name] + "\n", FILES, *options)
    mine = ground.files(tmp_path / "mine")
    image = _of_podman(podman, ground, tmp_path / "store", *options, *form)
    (tmp_path / "theirs").mkdir()
    flatten(image, tmp_path / "theirs")
    theirs = timeless(tree(tmp_path / "theirs"))
    # What buildah 1.28 mounts on, it leaves behind in the layer of a RUN; labkit, like BuildKit, does not.
    assert (tmp_path / "theirs" / LEFT_BEHIND).exists() == (theirs.pop(LEFT_BEHIND, None) is not None)
    assert mine == theirs
    assert _settings(ground.config()) == _settings(dict(image.config.config))


def test_podman_runs_what_labkit_built(ground: Ground, podman: list[str], tmp_path: Path) -> None:
    """Pulled out of labkit's store as it is, the image runs, with the settings that the Dockerfile gave it."""
    ground.built(BASE + 'ENV A=b\nWORKDIR /w\nRUN echo made > f\nCMD ["sh", "-c", "echo $A $(pwd) $(cat f)"]\n', {})
    name = next(iter(ground.store.names()))
    assert name.endswith("/app:latest")
    words = [*podman, "pull", "--quiet", f"oci:{ground.store.folder}:{name}"]
    pulled = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    words = [*podman, "run", "--rm", "--network", "none", *LIMITS, "--pids-limit", "0", pulled]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "b /w made\n"), done.stderr
    assert json.loads((ground.store.folder / "oci-layout").read_text()) and os.path.exists(ground.store.blobs)
