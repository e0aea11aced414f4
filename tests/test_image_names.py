"""Do names and documents mean what Docker and the OCI specification say, and is the rest refused?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from image.making import small_layout

from labkit.errors import BadInput, NotFound
from labkit.image import model, reference

DIGEST = "sha256:" + "a" * 64
SCHEMAS = Path(__file__).parent / "schemas" / "image"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("nginx", "index.docker.io/library/nginx:latest"),
        ("nginx:1.27", "index.docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "index.docker.io/library/nginx:latest"),
        ("org/app", "index.docker.io/org/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
        ("Registry/app", "Registry/app:latest"),
        (f"nginx@{DIGEST}", f"index.docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"index.docker.io/library/nginx@{DIGEST}"),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, whole: str) -> None:
    """Short forms get Docker's registry, library/ and :latest."""
    assert str(reference.parse(text)) == whole


@pytest.mark.parametrize(
    "text",
    ["", "UPPER", "nginx:", "nginx@", "nginx@sha256:12", "a//b", "a b", "nginx:a b", "../x", "-v", "x:5000/", "a/../b"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """A broken name is BadInput and is said to be none."""
    with pytest.raises(BadInput, match="is not the name of an image"):
        reference.parse(text)


@pytest.mark.parametrize("text", ["--insecure.=/foo", "-v.x/foo", "--platform=a:1/foo"])
def test_a_name_never_becomes_an_option_of_crane(text: str) -> None:
    """A registry that starts with a dash would be read as a flag."""
    with pytest.raises(BadInput, match="no registry"):
        reference.parse(text)


# --- any name ----------------------------------------------------------------------------

REGISTRIES = some.sampled_from(["", "docker.io/", "localhost/", "localhost:5000/", "a.b-c.de/", "X/", "[::1]:80/"])
WORDS = some.text("az09", min_size=1, max_size=6)
PARTS = some.builds("{}{}{}".format, WORDS, some.sampled_from([".", "_", "__", "-", "---", ""]), WORDS)
TAGS = some.one_of(
    some.just(""), some.builds(":{}{}".format, some.sampled_from("aZ0_"), some.text("aZ0_.-", max_size=9))
)
DIGESTS = some.one_of(some.just(""), some.text("0af", min_size=64, max_size=64).map("@sha256:{}".format))


@given(REGISTRIES, some.lists(PARTS, min_size=1, max_size=3), TAGS, DIGESTS)
@settings(deadline=None)
def test_a_name_is_made_of_what_was_put_together(registry: str, parts: list[str], tag: str, digest: str) -> None:
    """Every part is found again, and the whole name, read once more, means the same."""
    assume(registry or len(parts) == 1 or "." not in parts[0])  # else the first part is a registry itself
    read = reference.parse(registry + "/".join(parts) + tag + digest)
    assert read.repository.removeprefix("library/").split("/")[-len(parts) :] == parts or parts[0] == "library"
    assert read.registry == ({"": reference.HUB, "docker.io/": reference.HUB}.get(registry) or registry[:-1])
    assert (read.tag, read.digest) == (("", digest[1:]) if digest else (tag[1:] or "latest", ""))
    assert reference.parse(str(read)) == read


@given(some.one_of(some.text(), some.text("abAB019.:/@-_[]sh")))
@settings(deadline=None)
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    """Whatever is typed: a whole name that is read again as itself and looks like no option, or BadInput."""
    try:
        read = reference.parse(text)
    except BadInput:
        return
    assert reference.parse(str(read)) == read
    assert re.fullmatch(r"[A-Za-z0-9\[][ -~]*", str(read)) and " " not in str(read)


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command, the oracle, is not installed")
@pytest.mark.parametrize(
    "text",
    ["a", "a/b", "A", "A/b", "a.b/C", "a__b", "a___b", "a..b", "a--b", "-a", "a-", "a/", "/a", "a:b:c", "a:5000/b",
     "a:x/b", "a@b", "a:.b", "a:-b", "a:" + "b" * 128, "a:" + "b" * 129, "a" * 247, "a" * 260, "f" * 64, "f" * 63,
     "a/" + "f" * 64, "[::1]/a", "[::1]:5/a", "127.0.0.1:5/a", "a@" + DIGEST, "a:b@" + DIGEST, "a@" + DIGEST[:-1]],
)  # fmt: skip
def test_docker_accepts_and_refuses_the_same_names(text: str) -> None:
    """The docker command reads a name before it looks for its daemon, which is not there."""
    words = ["docker", "-H", "unix:///nonexistent/docker.sock", "pull", "--", text]
    said = subprocess.run(words, capture_output=True, text=True).stderr
    try:
        reference.parse(text)
        refused = ""
    except BadInput as error:
        refused = error.why
    assert bool(refused) == ("Cannot connect" not in said), (said, refused)


# --- documents ---------------------------------------------------------------------------


def test_the_platform_is_chosen_from_an_index() -> None:
    """The machine's platform and variant decide; one that is missing names those that there are."""
    entries: list[dict[str, Any]] = [
        {"mediaType": model.MANIFESTS[0], "digest": "sha256:" + digit * 64, "size": 1, "platform": platform}
        for digit, platform in (
            ("1", {"os": "linux", "architecture": "amd64"}),
            ("2", {"os": "linux", "architecture": "arm", "variant": "v6"}),
            ("3", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        )
    ]
    index = {"manifests": entries}
    assert model.choose(index, "linux/amd64").digest[7] == "1"
    assert model.choose(index, "linux/arm/v7").digest[7] == "3"
    with pytest.raises(NotFound, match=r"linux/riscv64[\s\S]*linux/amd64, linux/arm"):
        model.choose(index, "linux/riscv64")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"layers": []},
        {"config": 3, "layers": []},
        {"config": {"mediaType": "application/vnd.x", "digest": DIGEST, "size": 1}, "layers": []},
        {"config": {"mediaType": model.CONFIGS[0], "digest": "sha256:../../etc", "size": 1}, "layers": []},
        {
            "config": {"mediaType": model.CONFIGS[0], "digest": DIGEST, "size": 1},
            "layers": [{"mediaType": "application/vnd.unknown", "digest": DIGEST, "size": 1}],
        },
    ],
)
def test_a_manifest_that_is_none_is_refused(document: dict[str, Any]) -> None:
    """Missing parts, unknown types and digests that are paths are BadInput, never a KeyError."""
    with pytest.raises(BadInput):
        model.Manifest.read(document)


@pytest.mark.parametrize("diff_id", ["/etc", "sha256:../../../etc", "sha256:" + "A" * 64, ""])
def test_a_diff_id_that_is_a_path_is_refused(diff_id: str) -> None:
    """A diff_id names a folder, so an image could otherwise name the machine's /etc as its layer."""
    with pytest.raises(BadInput, match="no sha256 digest"):
        model.Config.read({"rootfs": {"diff_ids": [diff_id]}})


def test_a_document_of_an_unknown_kind_is_refused_by_name() -> None:
    """Schema 1, gone since Docker 20, is named in the error."""
    with pytest.raises(BadInput, match="prettyjws"):
        model.kind({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"})


def _validator(name: str) -> jsonschema.protocols.Validator:
    """A schema of the specification, its neighbours found by their file names."""
    loaded = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    resources = [
        (uri, referencing.Resource.from_contents(text, default_specification=referencing.jsonschema.DRAFT4))
        for file, text in loaded.items()
        for uri in (
            file,
            f"https://opencontainers.org/schema/image/{file}",
            f"https://opencontainers.org/schema/{file}",
        )
    ]
    return jsonschema.Draft4Validator(loaded[name], registry=referencing.Registry().with_resources(resources))


def validate_layout(folder: Path) -> None:
    """Every document of the layout passes its schema; raises ValidationError."""
    index = json.loads((folder / "index.json").read_text())
    _validator("image-index-schema.json").validate(index)
    _validator("image-layout-schema.json").validate(json.loads((folder / "oci-layout").read_text()))

    def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
        text = (folder / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_text()
        document: dict[str, Any] = json.loads(text)
        return document

    for entry in index["manifests"]:
        _validator("content-descriptor.json").validate(entry)
        manifest = blob(entry)
        _validator("image-manifest-schema.json").validate(manifest)
        _validator("config-schema.json").validate(blob(manifest["config"]))


def test_what_is_written_passes_the_specification(tmp_path: Path) -> None:
    """index, layout, manifest and configuration validate, and a broken one does not."""
    small_layout(tmp_path)
    validate_layout(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    index["manifests"][0]["digest"] = "not a digest"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(jsonschema.ValidationError):
        validate_layout(tmp_path)
