"""Does the wrapper around crane ask for what it says, and are a registry's faults turned into words that help?"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image.making import archive, entry, lying_registry, small_layout

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.image import crane, kit, tarball
from labkit.image.registry import serve
from labkit.image.store import Store

Handler = http.server.BaseHTTPRequestHandler
USER, PASSWORD = "learner", "a,b \"c'"


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts") / "small"
    small_layout(folder)
    return folder


@pytest.fixture
def registry(layout: Path) -> Iterator[str]:
    """A real registry that holds small:1.0 and small:latest."""
    with serve() as address:
        kit.push(layout.parent, address)
        yield address


def _digest(layout: Path) -> str:
    digest: str = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return digest


# --- asked -------------------------------------------------------------------------------


def test_an_image_is_looked_at_without_pulling(layout: Path, registry: str) -> None:
    """Tags, digest, manifest and configuration are those that were pushed."""
    name = f"{registry}/small:1.0"
    assert sorted(crane.ls(f"{registry}/small")) == ["1.0", "latest"]
    assert crane.digest(name) == _digest(layout) == tarball.sha256(crane.manifest(name))
    assert crane.config(name)["config"] == {"Cmd": ["true"]}
    with pytest.raises(BadInput, match="no index"):
        crane.index(name)


def test_a_copy_has_the_same_digest(layout: Path, registry: str) -> None:
    """From repository to repository, byte for byte."""
    crane.copy(f"{registry}/small:1.0", f"{registry}/other/place:x")
    assert crane.digest(f"{registry}/other/place:x") == _digest(layout)


def test_a_pulled_layout_can_be_pushed_again(layout: Path, registry: str, tmp_path: Path) -> None:
    """pull writes an OCI layout that names the image; push takes it and tells the digest."""
    crane.pull(f"{registry}/small:1.0", tmp_path / "layout")
    pulled = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert [entry["digest"] for entry in pulled] == [_digest(layout)]
    assert f"{registry}/small:1.0" in pulled[0]["annotations"].values()
    assert crane.push(tmp_path / "layout", f"{registry}/again:1").endswith(_digest(layout))


def test_what_is_mutated_is_read_back_as_it_was_given(registry: str, tmp_path: Path) -> None:
    """Commas, quotes, equal signs and dashes in values arrive whole, and a layer comes on top."""
    (tmp_path / "top.tar").write_bytes(archive(entry("new", data=b"x")))
    words = ["sh", "-c", 'echo "a,b" --flag=1, x']
    below = json.loads(crane.manifest(f"{registry}/small:1.0"))["layers"]
    made = crane.mutate(
        f"{registry}/small:1.0",
        f"{registry}/small:changed",
        labels={"org.label": 'a,"b"=c'},
        env={"WORDS": "1,2=3"},
        entrypoint=words,
        cmd=["--", "-v"],
        user="7:8",
        workdir="/srv",
        layers=[tmp_path / "top.tar"],
    )
    config = crane.config(made)["config"]
    assert made.endswith(crane.digest(f"{registry}/small:changed"))
    assert (config["Entrypoint"], config["Cmd"]) == (words, ["--", "-v"])
    assert (config["Labels"], config["User"], config["WorkingDir"]) == ({"org.label": 'a,"b"=c'}, "7:8", "/srv")
    assert "WORDS=1,2=3" in config["Env"]
    layers = json.loads(crane.manifest(made))["layers"]
    assert layers[:-1] == below and len(layers) == len(below) + 1


def test_an_index_is_shown_and_one_platform_chosen(registry: str, layout: Path) -> None:
    """A name with several platforms gives the index; with a platform chosen, its manifest."""
    name = f"{registry}/many:1"
    platform = crane.config(f"{registry}/small:1.0")["architecture"]
    crane.run("index", "append", "-m", f"{registry}/small:1.0", "-t", name, what="append")
    assert [entry["platform"]["architecture"] for entry in crane.index(name)["manifests"]] == [platform]
    assert tarball.sha256(crane.manifest(name, f"linux/{platform}")) == _digest(layout)
    assert crane.digest(name) != crane.digest(name, f"linux/{platform}") == _digest(layout)
    with pytest.raises(NotFound, match="not made for that platform"):
        crane.config(name, "linux/s390x")


@pytest.mark.parametrize("ask", [crane.manifest, crane.index, crane.config, crane.digest, crane.ls])
def test_no_name_becomes_an_option(ask: Callable[[str], object]) -> None:
    """What is no image's name is refused before crane sees it."""
    with pytest.raises(BadInput, match="not the name of an image"):
        ask("--insecure")


# --- with a password ---------------------------------------------------------------------


def _guarded(handler: Handler) -> bool:
    """A registry that wants the name and the password."""
    right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if handler.headers.get("Authorization") == right:
        return False
    return _answer(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="lab"'})(handler)


def test_the_usual_file_opens_a_private_registry(layout: Path) -> None:
    """Refused without a password, and with a wrong one; after a login the image comes."""
    with lying_registry(layout, {}, first=_guarded) as address:
        for login in (None, "wrong"):
            if login:
                crane.login(address, USER, login)
            with pytest.raises(Refused, match=r"private, or does not exist[\s\S]*crane says[\s\S]*crane auth login"):
                Store().pull(f"{address}/small")
        crane.login(address, USER, PASSWORD)
        assert Store().pull(f"{address}/small").digest == _digest(layout)


# --- faults ------------------------------------------------------------------------------


def _answer(status: int, code: str, headers: dict[str, str] | None = None) -> Callable[[Handler], bool]:
    """A registry that answers everything with one error, in the specification's form."""

    def answer(handler: Handler) -> bool:
        errors = [{"code": code, "message": "as the test wants it"}] if code else []
        body = json.dumps({"errors": errors}).encode()
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)
        return True

    return answer


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (401, "UNAUTHORIZED", Refused, "private, or does not exist"),
        (403, "DENIED", Refused, "private, or does not exist"),
        (404, "NAME_UNKNOWN", NotFound, "no such repository"),
        (404, "MANIFEST_UNKNOWN", NotFound, "no such tag"),
        (404, "", NotFound, "nothing by that name"),
        (429, "TOOMANYREQUESTS", LabError, "too many requests"),
        (500, "UNKNOWN", LabError, "fault of its own"),
    ],
)
def test_an_error_of_the_registry_names_its_remedy(
    layout: Path, status: int, code: str, kind: type[LabError], said: str
) -> None:
    """Each status is the right kind of error, with crane's words, the image's name and what to try."""

    def first(handler: Handler) -> bool:
        return handler.path != "/v2/" and _answer(status, code)(handler)

    with lying_registry(layout, {}, first=first) as address, pytest.raises(kind, match=said) as caught:
        Store().pull(f"{address}/small")
    assert f"{address}/small" in caught.value.what
    assert "crane says" in caught.value.why and caught.value.next
    assert not Store().names()


@pytest.mark.parametrize("name", ["404-pages/x509", "small@sha256:" + "404" * 21 + "4"])
def test_a_name_is_no_cause(layout: Path, name: str) -> None:
    """Figures in a name or a digest, which crane repeats, are not taken for the registry's answer."""

    def first(handler: Handler) -> bool:
        return handler.path != "/v2/" and _answer(418, "")(handler)

    with lying_registry(layout, {}, first=first) as address, pytest.raises(LabError, match="teapot") as caught:
        crane.manifest(f"{address}/{name}")
    assert type(caught.value) is LabError and caught.value.why.startswith("crane says")


def _reset(handler: Handler) -> bool:
    """Half an answer, and then the connection is torn down."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.wfile.flush()
    linger = struct.pack("ii", 1, 0)  # close(2) then sends RST, not FIN
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()
    return True


@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_a_registry_that_hangs_up_leaves_nothing_false(layout: Path, what: str) -> None:
    """A connection torn in the middle of a document or a layer: our error, and no half blob in the store."""
    with (
        lying_registry(layout, {}, first=lambda handler: what in handler.path and _reset(handler)) as address,
        pytest.raises(LabError) as caught,
    ):
        Store().pull(f"{address}/small")
    assert "crane says" in caught.value.why
    assert not Store().names()
    for path in Store().blobs.glob("*"):
        assert tarball.sha256(path.read_bytes()) == f"sha256:{path.name}"


def test_a_registry_that_never_answers_is_given_up() -> None:
    """The time limit is kept, and said."""
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        pytest.raises(LabError, match=r"did not finish in 0\.5 s"),
    ):
        crane.run("digest", f"127.0.0.1:{deaf.getsockname()[1]}/small", what="cannot ask", timeout=0.5)
