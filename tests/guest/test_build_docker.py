"""Does labkit build make of a Dockerfile what docker build makes of it; and does docker run what labkit built?

A dockerd with a containerd of its own, in namespaces and folders that go with it, builds each case and saves
it.  docker build is here the builder within dockerd (the distribution's client comes without buildx): what
BuildKit does otherwise (owners of COPY --from, WORKDIR for USER, here-documents) is no case.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_ground import BASE, Content, Ground, context, timeless
from image.making import tree
from runtime_ground import IMAGE, Machine

from labkit.image import model
from labkit.image.store import Image, Store
from labkit.image.unpack import flatten

pytest_plugins = ["guest_ground"]
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        not shutil.which("dockerd") or not shutil.which("containerd"),
        reason="the peer is not here: install docker.io (the test image has it)",
    ),
]

SETTINGS = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal", "Labels",
            "Shell", "Healthcheck", "OnBuild")  # fmt: skip
FILES: dict[str, Content] = {
    "one": "1\n",
    "two": ("2\n", 0o600),
    "run": ("#!/bin/sh\n", 0o755),
    "d/x": "x\n",
    "d/deep/y": "y\n",
    "d/link": ("-> x", 0),
    "notes.md": "n\n",
    "keep.md": "k\n",
    "e/a.tmp": "t\n",
    "e/b": "b\n",
    ".dockerignore": "*.md\n!keep.md\n**/*.tmp\nDockerfile\n",
}
CASES = {
    "files": "COPY one /here\nCOPY one /new/\nCOPY one two run /many/\nCOPY d /into\nCOPY t* /pattern/\nCOPY . /all/\n"
    "RUN mkdir /real && ln -s /real /way\nCOPY one /way/one\nCOPY --chown=33:44 d /owned\n"
    "COPY --chown=www-data one /owned/w\n",
    "settings": 'ARG X=1\nARG Y\nENV A=1 B="b c"\nENV A=2 C=$X-${Y:-none}-${A:+set}\nLABEL l="a label" m=$A\n'
    "EXPOSE 80 53/udp\nVOLUME /v\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK --interval=5s --retries=2 CMD true\n"
    "ONBUILD RUN echo later\n"
    'SHELL ["/bin/busybox", "sh", "-c"]\nENTRYPOINT exec top\nCMD ["-b"]\nWORKDIR /w\nWORKDIR d\nUSER www-data\n',
    "commands": "RUN mkdir -p /a/b && echo x > /a/b/f && ln /a/b/f /a/g && ln -s /a /l && chmod 4711 /a/b/f\n"
    "RUN rm /usr/bin/tac && rm -r /var/log\nRUN mkdir /var/log && mkdir -m 777 /u\nUSER www-data\nRUN id -u > /u/id\n"
    f"USER root\nRUN cat /u/id > /made \\\n  # a comment\n  && true\n{BASE}COPY --from=0 /made /a /from/\n",
}
SCRIPT = r"""
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
cd $D
cat > containerd.toml <<END
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
END
containerd --config containerd.toml --root $D/c-root --state $D/c-state --address $D/c --log-level error 2>log &
until test -S c; do kill -0 $!; sleep 0.5; done
dockerd --data-root $D/root --exec-root $D/exec --pidfile $D/pid --host unix://$D/s --containerd $D/c \
    --bridge none --iptables=false --ip-forward=false --exec-opt native.cgroupdriver=cgroupfs 2>>log &
export DOCKER_HOST=unix://$D/s DOCKER_BUILDKIT=0 DOCKER_CONFIG=$D/config
n=0; until docker version >/dev/null 2>&1
do kill -0 $!; n=$((n+1)); test $n -lt 400 || { tail -n 30 log; exit 1; }; sleep 0.5; done
docker load --input base.tar
for case in cases/*; do
    docker build --network none --no-cache --tag case $case
    docker save --output $case.tar case
done
docker load --input mine.tar
echo SAID "$(docker run --rm --network none mine:latest)"
"""
# What dockerd and runc leave: their cgroup, and the controllers that they had handed on.
LEFT = """
set -e
cd /sys/fs/cgroup
for one in docker/* docker; do test ! -d $one || rmdir $one; done
for one in $(cat cgroup.subtree_control); do
    case " $HANDED " in *" $one "*) ;; *) echo -$one > cgroup.subtree_control ;; esac
done
"""


def archive(image: Image, name: str, output: Path) -> None:
    """The image as `docker load` takes it; the blobs as they are."""
    blobs = {digest: f"{digest.removeprefix('sha256:')}" for digest in
             (image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers))}  # fmt: skip
    layers = [blobs[layer.digest] for layer in image.manifest.layers]
    document = [{"Config": blobs[image.manifest.config.digest], "RepoTags": [name], "Layers": layers}]
    manifest = output.with_suffix(".json")
    manifest.write_text(json.dumps(document))
    with tarfile.open(output, "w") as tar:
        for digest, called in blobs.items():
            tar.add(image.store.path(digest), called)
        tar.add(manifest, "manifest.json")


@pytest.fixture(scope="module")
def theirs(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder in which dockerd saved the cases, and what labkit's image said when docker ran it."""
    folder = tmp_path_factory.mktemp("d")
    before = machine.census()
    handed = machine.sh("cat", "/sys/fs/cgroup/cgroup.subtree_control").stdout.strip()
    store = Store(machine.data / "images")
    archive(store.get(IMAGE), f"{IMAGE}:latest", folder / "base.tar")
    ground = Ground(machine, folder / "mine")
    lines = 'ENV A=b\nWORKDIR /w\nRUN echo made > f\nUSER 7\nCMD ["sh", "-c", "echo $A $(id -u) $(cat f)"]\n'
    ground.built(BASE + lines, {}, timeout=300)
    archive(ground.image(), "mine:latest", folder / "mine.tar")
    for name, lines in CASES.items():
        context(folder / "cases" / name, FILES)
        (folder / "cases" / name / "Dockerfile").write_text(BASE + lines)
    words = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT]
    done = machine.sh(*words, timeout=1500, env={**machine.environment, "D": str(folder)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    left = machine.sh("sh", "-c", LEFT, env={**machine.environment, "HANDED": handed})
    assert left.returncode == 0, left.stderr
    assert machine.labkit("rmi", "app", timeout=120).returncode == 0
    assert machine.census() == before
    yield folder, done.stdout


def saved(folder: Path, name: str, place: Path) -> Image:
    """A case as `docker save` wrote it: manifest.json names the configuration and the plain layers."""
    with tarfile.open(folder / "cases" / f"{name}.tar") as tar:
        tar.extractall(place, filter="fully_trusted")  # older dockers link equal layers
    (document,) = json.loads((place / "manifest.json").read_text())
    config = model.Config.read(json.loads((place / document["Config"]).read_text()))
    store = Store(place / "store")
    store.blobs.mkdir(parents=True)
    layers = []
    for file, diff_id in zip(document["Layers"], config.diff_ids, strict=True):
        shutil.copy(place / file, store.path(diff_id))
        layers.append(model.Descriptor("application/vnd.oci.image.layer.v1.tar", diff_id, 0, {}, {}))
    return Image(name, "", model.Manifest(layers[0], layers), config, store)


def settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in SETTINGS if config.get(key)}


@pytest.mark.parametrize("name", CASES)
def test_docker_makes_the_same(name: str, machine: Machine, theirs: tuple[Path, str], tmp_path: Path) -> None:
    """The same tree (mode, owner, attributes, links, contents) and the same settings, but for times and ids."""
    ground = Ground(machine, tmp_path / "context")
    ground.built(BASE + CASES[name], FILES, timeout=400)
    mine = ground.files(tmp_path / "mine")
    image = saved(theirs[0], name, tmp_path / "saved")
    (tmp_path / "theirs").mkdir()
    flatten(image, tmp_path / "theirs")
    assert mine == timeless(tree(tmp_path / "theirs"))
    assert settings(ground.config()) == settings(dict(image.config.config))
    assert machine.labkit("rmi", "app", timeout=120).returncode == 0


def test_docker_runs_what_labkit_built(theirs: tuple[Path, str]) -> None:
    """Loaded with its blobs as they are, the image does what its settings say."""
    assert "SAID b 7 made\n" in theirs[1]
