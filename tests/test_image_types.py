"""Are all kinds of images pulled and unpacked, Docker's and OCI's, and the right platform chosen?"""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from image.making import archive, entry, lying_registry

from labkit import cli
from labkit.errors import BadInput, NotFound
from labkit.image import kit, model, tarball
from labkit.image.layers import layer_folders
from labkit.image.store import Store
from labkit.image.unpack import flatten

DOCKER = "application/vnd.docker"
OCI = "application/vnd.oci.image"
PLAIN = archive(entry("file", data=b"x" * 5000))


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


# media types of manifest, configuration and layer; how the layer is packed
KINDS = {
    "docker, gzip": (f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.container.image.v1+json",
                     f"{DOCKER}.image.rootfs.diff.tar.gzip", gzip.compress),
    "docker, plain": (f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.container.image.v1+json",
                      f"{DOCKER}.image.rootfs.diff.tar", bytes),
    "OCI, gzip": (f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip", gzip.compress),
    "OCI, zstd": (f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+zstd", _zstd),
    "OCI, plain": (f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar", bytes),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))


class Layout:
    """Documents and blobs for a registry to serve."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)

    def put(self, media_type: str, data: bytes | dict[str, Any]) -> dict[str, Any]:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        (self.folder / "blobs/sha256" / tarball.sha256(raw)[7:]).write_bytes(raw)
        return kit.describe(media_type, raw)

    def image(self, kind: str, layer_type: str = "", platform: str = "linux/amd64", **more: Any) -> dict[str, Any]:
        """A manifest of one layer; `more` goes into it."""
        manifest_type, config_type, usual, pack = KINDS[kind]
        system, architecture = platform.split("/")
        config = {"architecture": architecture, "os": system,
                  "rootfs": {"type": "layers", "diff_ids": [tarball.sha256(PLAIN)]}}  # fmt: skip
        document = {"schemaVersion": 2, "mediaType": manifest_type, "config": self.put(config_type, config),
                    "layers": [self.put(layer_type or usual, pack(PLAIN))], **more}  # fmt: skip
        return self.put(manifest_type, document)

    def latest(self, descriptor: dict[str, Any]) -> None:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_pulled_and_unpacked(layout: Layout, tmp_path: Path, kind: str) -> None:
    """Docker's types and OCI's, compressed or not: one tree; what the manifest says beyond stays in the store."""
    layout.latest(layout.image(kind, annotations={"org.example.note": "kept"}))
    with lying_registry(layout.folder, {}) as address:
        image = Store().pull(f"{address}/any", "linux/amd64")
    assert (layer_folders(image)[0] / "file").read_bytes() == b"x" * 5000
    (tmp_path / "flat").mkdir()
    flatten(image, tmp_path / "flat")
    assert (tmp_path / "flat/file").read_bytes() == b"x" * 5000
    assert Store().document(image.digest)["annotations"] == {"org.example.note": "kept"}


@pytest.mark.parametrize(
    ("layer_type", "said"),
    [
        (f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip", "foreign type"),
        (f"{OCI}.layer.nondistributable.v1.tar+gzip", "foreign type"),
        (f"{OCI}.layer.v1.tar+lz4", "unknown type"),
        (f"{OCI}.layer.v1.tar+gzip+encrypted", "unknown type"),
    ],
)
def test_a_layer_of_another_type_is_refused_by_its_name(layout: Layout, layer_type: str, said: str) -> None:
    """Foreign layers, and what nobody here can unpack; no byte of the layer is asked for."""
    layout.latest(layout.image("OCI, gzip", layer_type))
    with lying_registry(layout.folder, {}) as address, pytest.raises(BadInput, match=said) as caught:
        Store().pull(f"{address}/any")
    assert layer_type in caught.value.what and caught.value.next
    assert Store().names() == {} and len(list(Store().blobs.iterdir())) == 1


@pytest.mark.parametrize("index_type", model.INDEXES)
def test_the_platform_is_chosen_from_an_index(layout: Layout, index_type: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Docker's manifest list and OCI's index, an attestation among the images; the store then holds one image."""
    made = {name: layout.image("OCI, gzip", platform=name) for name in ("linux/amd64", "linux/arm64", "linux/s390x")}
    entries = [{**made[name], "platform": dict(zip(("os", "architecture"), name.split("/"), strict=True))}
               for name in made]  # fmt: skip
    attestation = {**layout.put(model.MANIFESTS[0], {"schemaVersion": 2}),
                   "platform": {"os": "unknown", "architecture": "unknown"}}  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": index_type, "manifests": [attestation, *entries]}
    layout.latest(layout.put(index_type, index))
    with lying_registry(layout.folder, {}) as address:
        name = f"{address}/any:latest"
        for platform in made:
            assert cli.main(["pull", "--platform", platform, name]) == 0
            assert Store().names() == {name: made[platform]["digest"]}
        assert cli.main(["pull", "--platform", "linux/riscv64", name]) == 125
        said = capsys.readouterr().err
        assert "it is for linux/amd64, linux/arm64, linux/s390x" in said


def test_one_image_for_another_machine(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an index: an error when a platform was asked for, else a word, as docker does."""
    layout.latest(layout.image("OCI, gzip", platform="linux/s390x"))
    with lying_registry(layout.folder, {}) as address:
        with pytest.raises(NotFound, match=r"not made for linux/amd64[\s\S]*for linux/s390x"):
            Store().pull(f"{address}/any", "linux/amd64")
        assert Store().names() == {}
        Store().pull(f"{address}/any")
    assert "is made for linux/s390x, this machine is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("offered", "asked", "chosen"),
    [
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/arm64"], "linux/arm64/v8", 0),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", 0),
        (["linux/arm/v6"], "linux/arm", 0),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["windows/amd64"], "linux/amd64", None),
        ([], "linux/amd64", None),
    ],
)
def test_variants_are_understood(offered: list[str], asked: str, chosen: int | None) -> None:
    """The exact platform first, then the variant that is meant when none is named, then any."""
    entries = []
    for number, platform in enumerate(offered):
        parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        entries.append({"mediaType": "x", "digest": f"sha256:{number:064}", "size": 1, "platform": parts})
    if chosen is None:
        with pytest.raises(NotFound, match="not made for"):
            model.choose({"manifests": entries}, asked)
    else:
        assert model.choose({"manifests": entries}, asked).digest == f"sha256:{chosen:064}"
