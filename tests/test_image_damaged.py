"""A document that rotted on the disk: is it named, healed by what the message says, and in nobody else's way?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image.making import archive, entry, small_layout, stored

from labkit import cli
from labkit.errors import Mismatch
from labkit.image import collect, kit, layers, tarball
from labkit.image.build.export import export
from labkit.image.build.stage import Making
from labkit.image.registry import serve
from labkit.image.store import Image, Store

SHARED, ONE, TWO = (archive(entry(name, data=name.encode())) for name in ("shared", "one", "two"))
A, B, C = "localhost:1/a:1", "localhost:1/b:1", "localhost:1/c:1"
PARTS = ["configuration", "manifest"]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))


@pytest.fixture
def store() -> Store:
    """Two images that share their lower layer; the places of their unpacked layers are there."""
    for image in (stored(Store(), A, SHARED, ONE), stored(Store(), B, SHARED, TWO)):
        for chain in layers.chain_ids(image.config.diff_ids):
            (layers.folder() / chain.removeprefix("sha256:")).mkdir(parents=True, exist_ok=True)
    return Store()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry that holds small."""
    folder = tmp_path_factory.mktemp("layouts")
    small_layout(folder / "small")
    with serve() as address:
        kit.push(folder, address)
        yield address


def rot(image: Image, part: str) -> None:
    """Change a byte of the image's configuration or manifest where it lies."""
    path = image.store.path(image.digest if part == "manifest" else image.manifest.config.digest)
    path.write_bytes(b"\0" + path.read_bytes()[1:])


@pytest.mark.parametrize("part", PARTS)
def test_a_pull_heals_it(registry: str, part: str) -> None:
    """Its reader is told to pull again, and that fetches it again, though a blob of that name is there."""
    store = Store()
    image = store.pull(f"{registry}/small")
    rot(image, part)
    with pytest.raises(Mismatch) as caught:
        store.get(f"{registry}/small")
    assert "labkit pull the image again" in caught.value.next and "nothing of it was kept" not in str(caught.value)
    assert store.pull(f"{registry}/small") == store.get(f"{registry}/small") == image
    assert list(collect.verify(store)) == []


@pytest.mark.parametrize("part", PARTS)
def test_another_build_heals_it(store: Store, part: str) -> None:
    """An image of one's own, which no registry has, is whole again when it is built again."""
    base = Making.of_image(store.get(A), {}, {}, "\\", None)
    digest, _ = export(store, base, [C])
    rot(store.get(C), part)
    assert export(store, base, [C])[0] == digest == store.get(C).digest


@pytest.mark.parametrize("part", PARTS)
def test_the_other_images_are_listed(store: Store, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """labkit images shows every name, and at the damaged one what is the matter."""
    rot(store.get(B), part)
    assert cli.main(["images"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [A, B]
    assert ["damaged" in line for line in lines] == [False, True]


@pytest.mark.parametrize("part", PARTS)
def test_another_image_can_be_removed(store: Store, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It loses its name, and what the damaged image may need is kept, and said."""
    rot(store.get(B), part)
    assert cli.main(["rmi", A]) == 0 and cli.main(["prune"]) == 0
    said = capsys.readouterr()
    assert set(store.names()) == {B} and said.err.count(f"{B} is damaged") == 2
    assert "labkit pull the image again" in said.err
    assert all(store.path(tarball.sha256(layer)).exists() for layer in (SHARED, TWO))
    assert len(list(layers.folder().iterdir())) == 3
    assert store.path(tarball.sha256(ONE)).exists() == (part == "manifest")  # a manifest tells the blobs


@pytest.mark.parametrize("part", PARTS)
def test_another_image_can_be_taken_in(store: Store, registry: str, part: str) -> None:
    """A pull writes the names, and reads no other image's documents for that."""
    rot(store.get(B), part)
    store.pull(f"{registry}/small")
    assert set(store.names()) == {A, B, f"{registry}/small:latest"}


@pytest.mark.parametrize("part", PARTS)
def test_the_damaged_image_can_be_removed(store: Store, part: str) -> None:
    """It loses its name like any other; what it alone needed goes then, or with labkit prune."""
    rot(store.get(A), part)
    collect.drop(store, A)
    collect.prune(store)
    assert set(store.names()) == {B} and not store.path(tarball.sha256(ONE)).exists()
    assert list(collect.verify(store)) == [] and len(list(layers.folder().iterdir())) == 2
