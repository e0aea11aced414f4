"""`labkit run` of images that lie: of a registry that sends other bytes, of layers that reach outside their root."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
from image.making import archive, entry, folder, hardlink, small_layout, stored, symlink
from runtime_ground import Machine, in_a_machine
from test_runtime_bad_input import complaint

from labkit.image.store import Store

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine

# The registry has to stand on the machine's own loopback, so that it runs inside.
LIES = """
import json, subprocess, sys
from pathlib import Path
from image.making import lying_registry
layout = Path(sys.argv[1])
named = lambda digest: json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())
layer = named(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])["layers"][1]["digest"]
with lying_registry(layout, {layer: lambda data: b"!" + data[1:]}) as address:
    words = [sys.executable, "-m", "labkit", "run", "--rm", "--network", "none", address + "/small", "true"]
    sys.exit(subprocess.run(words, stdin=subprocess.DEVNULL).returncode)
"""
TESTS = Path(__file__).parent


def test_a_blob_whose_bytes_do_not_match_its_digest(machine: Machine, tmp_path: Path) -> None:
    """Both digests are in the message, no container is made, and the false blob is not kept."""
    small_layout(tmp_path / "small")
    environment = {**machine.environment, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    before = kept(machine)
    done = machine.sh(sys.executable, "-c", LIES, str(tmp_path / "small"), env=environment)
    done.stderr = re.sub(r"^[0-9a-f]{12}: .* MB\n", "", done.stderr, flags=re.MULTILINE)  # the progress
    said = complaint(done)
    assert "promised sha256:" in said and "hash to sha256:" in said and "next:" in said
    assert "/small" not in machine.labkit("images").stdout
    assert not [path for path in kept(machine) - before if not true(machine.data / "images/blobs/sha256" / path)]


def kept(machine: Machine) -> set[str]:
    return {path.name for path in (machine.data / "images/blobs/sha256").iterdir()}


def true(blob: Path) -> bool:
    """Whether a blob's name is the hash of its bytes."""
    return hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


HOSTILE = {
    "hard-link": [hardlink("stolen", "{outside}/secret")],
    "hard-link-up": [hardlink("stolen", "../../../../../../../../../../..{outside}/secret")],
    "symlink": [symlink("door", "{outside}"), entry("door/secret", data=b"mine")],
    "symlink-up": [symlink("door", "../../../../../../../../../../..{outside}"), folder("door/sub")],
    "whiteout": [symlink("door", "{outside}"), entry("door/.wh.secret")],
    "dots": [entry("../../../../../../../../../../..{outside}/new", data=b"mine")],
    "itself": [entry("..", data=b"")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_layer_that_points_outside_its_root(
    machine: Machine, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied inside the root, or refused with the entry's name and status 125; outside nothing is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    layer = []
    for header, data in HOSTILE[kind]:
        for field in ("name", "linkname"):
            setattr(header, field, getattr(header, field).format(outside=outside))
        layer.append((header, data))
    monkeypatch.setenv("LABKIT_DATA", str(machine.data))
    stored(Store(), f"localhost:5000/hostile-{kind}:latest", archive(*layer))
    unpacked = set(os.listdir(machine.data / "layers")) if (machine.data / "layers").exists() else set()
    # The image holds no program: a layer that was applied inside ends with 127, as docker's would.
    done = machine.run(f"localhost:5000/hostile-{kind}", "/nothing")
    assert done.returncode in (125, 127) and done.stderr.startswith("labkit run: "), done.stderr
    assert "Traceback" not in done.stderr and "why:" in done.stderr and "next:" in done.stderr
    if done.returncode == 125:
        assert HOSTILE[kind][-1][0].name.split("/")[0] in done.stderr, done.stderr
        left = set(os.listdir(machine.data / "layers")) if (machine.data / "layers").exists() else set()
        assert left == unpacked
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_text() == "secret" and (outside / "secret").stat().st_nlink == 1
