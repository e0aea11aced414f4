"""Does the store take in only whole, true blobs, from real registries, and leave nothing behind?"""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.making import archive, entry, lying_registry, small_layout, stored

from labkit.errors import BadInput, LabError, Mismatch, NotFound
from labkit.image import crane, kit
from labkit.image.drafts import PREFIX
from labkit.image.layers import layer_folders
from labkit.image.registry import serve
from labkit.image.store import Store


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOLDER/small: a layout of two small layers."""
    folder = tmp_path_factory.mktemp("layouts")
    small_layout(folder / "small")
    return folder


@pytest.fixture(scope="module")
def registry(layout: Path) -> Iterator[str]:
    """A real registry that holds small."""
    with serve() as address:
        kit.push(layout, address)
        yield address


def _parts(layout: Path) -> tuple[str, list[str]]:
    """The digests of the manifest and of its layers."""
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())
    return digest, [layer["digest"] for layer in manifest["layers"]]


def _true(store: Store) -> list[str]:
    """All files of the store's blob folder; asserts that each one is what its name says."""
    names = sorted(path.name for path in store.blobs.glob("*")) if store.blobs.exists() else []
    assert not list(store.folder.rglob(f"{PREFIX}*"))
    for name in names:
        assert hashlib.sha256((store.blobs / name).read_bytes()).hexdigest() == name
    return names


def test_a_pull_brings_every_blob_once(layout: Path, registry: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Manifest, configuration and layers arrive; a second pull fetches none of them again."""
    image = Store().pull(f"{registry}/small")
    digest, layers = _parts(layout / "small")
    assert image.digest == digest and [layer.digest for layer in image.manifest.layers] == layers
    assert len(_true(Store())) == 4
    assert capfd.readouterr().err.count("MB") == 3
    Store().pull(f"{registry}/small:1.0")
    assert "MB" not in capfd.readouterr().err
    assert set(Store().names()) == {f"{registry}/small:latest", f"{registry}/small:1.0"}


def test_an_image_in_the_store_needs_no_registry(layout: Path) -> None:
    """What was pulled is obtained again with the registry gone (docker run's rule)."""
    with serve() as address:
        kit.push(layout, address)
        first = Store().obtain(f"{address}/small")
    assert Store().obtain(f"{address}/small").digest == first.digest
    with pytest.raises(LabError):
        Store().pull(f"{address}/small")


def test_the_stored_layout_is_read_by_others(registry: str) -> None:
    """crane, another program, accepts the store as an OCI layout."""
    image = Store().pull(f"{registry}/small")
    done = subprocess.run(["crane", "push", str(Store().folder), f"{registry}/again"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert crane.run("digest", f"{registry}/again", what="digest").decode().strip() == image.digest


@pytest.mark.parametrize("name", ["nothing", "small:nothing", "small@sha256:" + "0" * 64])
def test_an_image_that_does_not_exist(registry: str, name: str) -> None:
    """Repository, tag or digest unknown: NotFound, crane's own words, and an empty store."""
    with pytest.raises(NotFound) as caught:
        Store().pull(f"{registry}/{name}")
    assert "crane says" in caught.value.why and caught.value.next
    assert _true(Store()) == []


def test_a_registry_that_is_down() -> None:
    """Nothing listens: the message says so and what to start."""
    with serve() as address:
        pass
    with pytest.raises(LabError, match=r"nothing listens there[\s\S]*labkit registry") as caught:
        Store().pull(f"{address}/small")
    assert not isinstance(caught.value, NotFound)
    assert _true(Store()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("registry.invalid/x", "two characters or more"),  # crane's rule, not the registry's
        ("registry.invalid/name", "without a network, use localhost:5000"),
    ],
)
def test_a_registry_that_cannot_be_asked(name: str, words: str) -> None:
    """What crane refuses by itself, and a name that leads nowhere, have a next step too."""
    with pytest.raises(LabError) as caught:
        Store().pull(name)
    assert "crane says" in caught.value.why and words in caught.value.next


def test_words_of_crane_that_nobody_expected() -> None:
    """They are shown as they are, and there is something to try."""
    error = crane.failure("cannot fetch it", "Error: the moon is in the wrong house")
    assert error.why == "crane says: the moon is in the wrong house" and "labkit images" in error.next


def test_without_crane_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program missing is named, with the script that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match=r"crane is not installed[\s\S]*install-crane.sh"):
        Store().pull("localhost:1/x")


def test_a_blob_with_wrong_bytes(layout: Path) -> None:
    """Both digests are named; the false blob is not kept, and the image has no name."""
    _, layers = _parts(layout / "small")
    both = r"promised sha256:[0-9a-f]{64}, but its bytes hash to sha256:[0-9a-f]{64}"
    change = {layers[1]: lambda data: b"!" + data[1:]}
    with lying_registry(layout / "small", change) as address, pytest.raises(Mismatch, match=both):
        Store().pull(f"{address}/small")
    assert layers[1].removeprefix("sha256:") not in _true(Store())
    assert Store().names() == {}


@pytest.mark.parametrize("change", [lambda data: data[:-5], lambda data: data + b"more"], ids=["short", "long"])
def test_a_blob_of_the_wrong_length(layout: Path, change: object) -> None:
    """A blob shorter or longer than its descriptor says is not kept either."""
    _, layers = _parts(layout / "small")
    with lying_registry(layout / "small", {layers[0]: change}) as address, pytest.raises(LabError):
        Store().pull(f"{address}/small")
    assert layers[0].removeprefix("sha256:") not in _true(Store())
    assert Store().names() == {}


def test_a_manifest_asked_by_digest_must_have_it(layout: Path) -> None:
    """A registry cannot answer a digest with another manifest."""
    digest, _ = _parts(layout / "small")
    with lying_registry(layout / "small", {digest: lambda data: data + b" "}) as address, pytest.raises(LabError):
        Store().pull(f"{address}/small@{digest}")
    assert _true(Store()) == []


def test_a_manifest_that_is_no_json(layout: Path) -> None:
    """Garbage for a manifest is a LabError, and nothing is stored."""
    with lying_registry(layout / "small", {"latest": lambda data: b"<html>"}) as address, pytest.raises(LabError):
        Store().pull(f"{address}/small")
    assert _true(Store()) == []


def test_a_registry_that_stalls_is_given_up(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob of which nothing comes is an error after the time limit, with the limit in it."""
    _, layers = _parts(layout / "small")
    go_on = threading.Event()

    def stall(data: bytes) -> bytes:
        go_on.wait(20)
        return data

    monkeypatch.setattr(crane.blob.__wrapped__, "__defaults__", (1.0,))  # type: ignore[attr-defined]
    with lying_registry(layout / "small", {layers[0]: stall}) as address:
        started = time.monotonic()
        try:
            with pytest.raises(LabError, match=r"cannot fetch blob[\s\S]*nothing came for 1 s"):
                Store().pull(f"{address}/small")
        finally:
            go_on.set()
    assert time.monotonic() - started < 10
    assert Store().names() == {}


def test_a_slow_registry_is_waited_for(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on silence: a blob that takes longer than it, and comes in pieces, is taken in."""
    _, layers = _parts(layout / "small")

    def drip(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if not handler.path.endswith(layers[0]):
            return False
        data = (layout / "small/blobs/sha256" / layers[0].removeprefix("sha256:")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for place in range(0, len(data), len(data) // 6):
            handler.wfile.write(data[place : place + len(data) // 6])
            handler.wfile.flush()
            time.sleep(0.4)
        return True

    monkeypatch.setattr(crane.blob.__wrapped__, "__defaults__", (1.5,))  # type: ignore[attr-defined]
    with lying_registry(layout / "small", {}, first=drip) as address:
        started = time.monotonic()
        Store().pull(f"{address}/small")
    assert time.monotonic() - started > 1.5
    assert len(_true(Store())) == 4


def test_an_endless_blob_is_cut_off(layout: Path) -> None:
    """A blob that is longer than promised, by more than a pipe holds, is refused at once, and crane is ended."""
    _, layers = _parts(layout / "small")
    more = {layers[0]: lambda data: data + bytes(20 << 20)}
    started = time.monotonic()
    with lying_registry(layout / "small", more) as address, pytest.raises(Mismatch, match="too long"):
        Store().pull(f"{address}/small")
    assert time.monotonic() - started < 10


def test_many_pulls_at_once_agree(registry: str) -> None:
    """Threads and processes that pull the same image at the same time all get it whole."""
    code = f"from labkit.image.store import Store; Store().pull({registry + '/small'!r})"
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) for _ in range(4)]
    threads = [threading.Thread(target=lambda: Store().pull(f"{registry}/small")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait() for child in children] == [0] * 4
    assert len(_true(Store())) == 4


def test_what_a_killed_pull_left_is_swept() -> None:
    """A draft whose maker is dead goes with the next; one whose maker lives stays."""
    from labkit.image.drafts import draft

    folder = Store().blobs
    folder.mkdir(parents=True)
    (folder / f"{PREFIX}dead").write_bytes(b"half")
    with draft(folder) as living:
        assert not (folder / f"{PREFIX}dead").exists()
        with draft(folder):
            assert living.exists()
    assert list(folder.iterdir()) == []


def test_a_damaged_store_is_noticed_and_healed(layout: Path, registry: str) -> None:
    """A layer whose bytes rotted on the disk is named and removed; the next pull mends it."""
    image = Store().pull(f"{registry}/small")
    blob = Store().path(image.manifest.layers[0].digest)
    blob.write_bytes(b"rot" + blob.read_bytes()[3:])
    with pytest.raises(Mismatch, match=r"was damaged[\s\S]*pull the image again"):
        layer_folders(image)
    assert not blob.exists()
    layer_folders(Store().obtain(f"{registry}/small"))


@pytest.mark.root
def test_layers_get_a_folder_each_once(tmp_path: Path) -> None:
    """Bottom first; equal stacks share their folders; a second call makes nothing."""
    one, two = archive(entry("a", data=b"1")), archive(entry("b", data=b"2"))
    first = layer_folders(stored(Store(), "localhost:1/x:1", one))
    both = layer_folders(stored(Store(), "localhost:1/x:2", one, two))
    assert both[0] == first[0] and (both[1] / "b").read_bytes() == b"2"
    seen = both[1].stat().st_ino
    assert layer_folders(stored(Store(), "localhost:1/x:2", one, two))[1].stat().st_ino == seen
    assert sorted(path.name for path in both[0].parent.iterdir()) == sorted(path.name for path in both)


@pytest.mark.root
def test_a_layer_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    """Half-unpacked layers have no name and are gone."""
    bad = stored(Store(), "localhost:1/x:1", archive(entry("a", data=b"1"), entry("..", data=b"")))
    with pytest.raises(BadInput):
        layer_folders(bad)
    assert list((tmp_path / "data/layers").iterdir()) == []


def test_a_registry_lives_longer_than_its_pipe(registry: str) -> None:
    """It logs a line for each request; nobody reads them, and 3000 requests are answered all the same."""
    for _ in range(3000):
        with urllib.request.urlopen(f"http://{registry}/v2/", timeout=5) as answer:
            assert answer.status == 200
