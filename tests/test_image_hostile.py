"""Is the table of hostile layers true: what is applied, what refused, and that nothing outside is touched?"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from image.hostile import APPLIED, NOT_ASKED, REFUSES, SAME, TABLE, Row
from image.making import stored, tree

from labkit.errors import LabError
from labkit.image import collect, kit, model, tarball
from labkit.image.layers import layer_folders
from labkit.image.store import Store
from labkit.image.unpack import apply
from labkit.kernel.removal import remove

pytestmark = pytest.mark.root  # owners, devices and trusted.* attributes
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def _outside(here: Path) -> Path:
    there = here / "outside"
    (there / "sub").mkdir(parents=True)
    (there / "secret").write_text("secret")
    return there


def _looks(there: Path) -> list[tuple[Any, ...]]:
    seen = [(str(path), path.lstat()) for path in sorted([there, *there.rglob("*")])]
    return [(p, s.st_ino, s.st_mode, s.st_uid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in seen]


def _facts(root: Path) -> dict[str, tuple[Any, ...]]:
    """The tree, times left out where nothing says them: those of folders."""
    return {
        path: looks[:3] + looks[4:] if looks[0].startswith("0o4") else looks
        for path, looks in tree(root).items()
        if path != "."
    }


def _umoci(here: Path, plain: bytes, packed: bytes) -> dict[str, tuple[Any, ...]] | str:
    """What umoci makes of the layer: a tree, or its words."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [tarball.sha256(plain)]}}
    ).encode()
    layers = [kit.describe(GZIP, packed)]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": model.MANIFESTS[0], "layers": layers,
         "config": kit.describe(model.CONFIGS[0], config)}
    ).encode()  # fmt: skip
    blobs = here / "layout/blobs/sha256"
    blobs.mkdir(parents=True)
    for blob in (config, manifest, packed):
        (blobs / tarball.sha256(blob)[7:]).write_bytes(blob)
    entry = {**kit.describe(model.MANIFESTS[0], manifest), "annotations": {"org.opencontainers.image.ref.name": "x"}}
    (here / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (here / "layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    words = ["umoci", "raw", "unpack", "--image", f"{here}/layout:x", str(here / "theirs")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, errors="replace")
    return done.stderr.strip() if done.returncode else _facts(here / "theirs")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_hostile_layer_is_applied_or_refused_as_the_table_says(row: Row, tmp_path: Path) -> None:
    """Nothing outside moves; what is applied is what umoci applies, and where we differ the table says how."""
    here = tmp_path / "w"
    outside, root = _outside(here), here / "root"
    root.mkdir()
    plain = row.layer(str(outside))
    packed = row.packed(plain)
    (here / "blob").write_bytes(packed)
    before = _looks(outside)
    said = ""
    try:
        apply(here / "blob", "gzip", tarball.sha256(plain), root, overlay=False, digest=tarball.sha256(packed))
    except LabError as error:
        said = str(error)
        assert error.why and error.next
    assert _looks(outside) == before and sorted(os.listdir(here)) == ["blob", "outside", "root"]
    assert (not said) if row.verdict == APPLIED else (row.verdict in said), said
    if row.umoci != NOT_ASKED:
        _compare(row, said, _facts(root), _umoci(here, plain, packed))
    remove(here)  # pytest could not, where folders are a thousand deep


def _compare(row: Row, said: str, ours: dict[str, tuple[Any, ...]], theirs: dict[str, tuple[Any, ...]] | str) -> None:
    expected = row.umoci or (REFUSES if said else SAME)
    if expected == REFUSES:
        assert isinstance(theirs, str)
    elif expected == SAME:
        assert theirs == ours
    else:
        assert isinstance(theirs, dict) and (said or theirs != ours), "umoci does what labkit does: say so in the table"


def test_the_table_is_long_enough() -> None:
    """At least forty, no two of one name, both verdicts among them."""
    assert len({row.name for row in TABLE}) == len(TABLE) >= 40
    assert 20 < len([row for row in TABLE if row.verdict == APPLIED]) < len(TABLE) - 20


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_store_stays_sound(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a container's layers, too: a folder with a name is whole, and of what is refused nothing is left."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))
    outside = _outside(tmp_path)
    before = _looks(outside)
    image = stored(Store(), "localhost:1/hostile:1", row.layer(str(outside)))
    try:
        folders = layer_folders(image)
    except LabError:
        folders = []
    assert {path.name for path in (tmp_path / "data/layers").iterdir()} == {folder.name for folder in folders}
    assert list(collect.verify(Store())) == [] and _looks(outside) == before
    for path in folders:
        remove(path)
