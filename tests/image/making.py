"""What the image tests share: archives made entry by entry, trees read back, a registry that lies."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.image import kit, model, tarball
from labkit.image.store import Image, Store
from labkit.image.unpack import apply

WHEN = 1_700_000_000  # seconds since 1970


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of an archive; `fields` are those of TarInfo."""
    header = tarfile.TarInfo(name)
    header.type, header.size, header.mtime = kind, len(data), WHEN
    header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """The tar archive of these entries, in this order."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for header, data in entries:
            tar.addfile(header, io.BytesIO(data))
    return plain.getvalue()


def unpack(plain: bytes, root: Path, *, overlay: bool = False, packed: bytes | None = None, how: str = "") -> Path:
    """Apply one layer to `root`; the blob lies beside it for the time."""
    root.mkdir(exist_ok=True)
    blob = root.with_name(root.name + ".blob")
    blob.write_bytes(plain if packed is None else packed)
    try:
        apply(blob, how, tarball.sha256(plain), root, overlay=overlay)
    finally:
        blob.unlink()
    return root


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """{path: everything about it that an archive can say}, links grouped by their first name."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted([root, *root.rglob("*")]):
        name, seen = str(path.relative_to(root)), path.lstat()
        inner: object = None
        if path.is_symlink():
            inner = os.readlink(path)
        elif path.is_file():
            inner = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISCHR(seen.st_mode) or stat.S_ISBLK(seen.st_mode):
            inner = seen.st_rdev
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        same = first.setdefault(seen.st_ino, name)
        found[name] = (
            oct(seen.st_mode),
            seen.st_uid,
            seen.st_gid,
            int(seen.st_mtime),
            inner,
            same,
            sorted(xattrs.items()),
        )
    return found


def stored(store: Store, name: str, *layers: bytes) -> Image:
    """An image of uncompressed layers, put straight into the store."""
    media = "application/vnd.oci.image.layer.v1.tar"
    rootfs = {"type": "layers", "diff_ids": [tarball.sha256(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": model.MANIFESTS[0],
            "config": kit.describe(model.CONFIGS[0], config),
            "layers": [kit.describe(media, layer) for layer in layers],
        }
    ).encode()
    for blob in (config, manifest, *layers):
        store.put(io.BytesIO(blob), tarball.sha256(blob), len(blob), "test")
    store.tag(name, tarball.sha256(manifest))
    image = store.find(name)
    assert image is not None
    return image


def small_layout(output: Path) -> None:
    """An OCI layout with two layers, made as the lab's own images are."""
    first = [tarball.folder("etc"), tarball.file("etc/motd", "one\n"), tarball.file("gone", "x")]
    second = [tarball.file("etc/motd", "two\n"), tarball.file(".wh.gone", "")]
    kit.layout(output, "1.0", [("first", first), ("second", second)], {"Cmd": ["true"]}, WHEN)


@contextmanager
def lying_registry(
    layout: Path, change: dict[str, Any], first: Callable[[http.server.BaseHTTPRequestHandler], bool] | None = None
) -> Iterator[str]:
    """A registry that serves `layout` over real HTTP as NAME:latest; yields its address.

    change -- {digest or "latest": function from the true bytes to what is served instead}
    first  -- asked before each answer; True when it has answered, or hung up, itself
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if first is not None and first(self):
                return
            last = self.path.rpartition("/")[2]
            index = json.loads((layout / "index.json").read_text())
            digest = index["manifests"][0]["digest"] if last == "latest" else last
            blob = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
            if self.path != "/v2/" and not blob.is_file():
                self.send_error(404)
                return
            data = b"{}" if self.path == "/v2/" else blob.read_bytes()
            data = change.get(last, lambda same: same)(data)
            self.send_response(200)
            self.send_header("Content-Type", model.MANIFESTS[0] if "manifests" in self.path else "application/json")
            self.send_header("Docker-Content-Digest", digest)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
