"""Floor 2: the content store: every blob once, under the hash of its bytes.

Owns: one OCI image layout at $LABKIT_DATA/images, shared by all images: blobs/sha256,
index.json with the names.  A blob is hashed while it streams in and gets its name only
when the hash is right; a killed pull leaves a draft, which the next pull sweeps away,
never a false blob.

Read: the OCI image specification, image-layout and descriptor ("Digests").
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

from labkit import paths
from labkit.errors import BadInput, Mismatch, NotFound
from labkit.image import model, reference

CHUNK = 1 << 20  # bytes
REF_NAME = "org.opencontainers.image.ref.name"


class Image(NamedTuple):
    """An image that is wholly in the store."""

    name: str
    digest: str  # of its manifest
    manifest: model.Manifest
    config: model.Config
    store: Store

    @property
    def size(self) -> int:
        """Bytes of its layers as they travel, compressed."""
        return sum(layer.size for layer in self.manifest.layers)


class Store:
    """The layout at `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.data() / "images"
        self.blobs = self.folder / "blobs" / "sha256"

    def path(self, digest: str) -> Path:
        """Where the blob of that digest lies, or would lie."""
        return self.blobs / digest.removeprefix("sha256:")

    def document(self, digest: str) -> dict[str, Any]:
        """A JSON blob, its bytes checked against its name. Raises Mismatch, NotFound."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"the store has no blob {digest}", next="labkit pull the image again") from None
        check(digest, "sha256:" + hashlib.sha256(data).hexdigest(), f"the blob in {self.folder}")
        return model.parse(data, f"the blob {digest}")

    def put(self, stream: IO[bytes], digest: str, size: int | None, what: str) -> None:
        """Take in a blob that calls itself `digest`. Raises Mismatch, and then keeps nothing."""
        from labkit.image.drafts import draft  # costs 5 ms, and most containers start from the store

        hasher, count = hashlib.sha256(), 0
        with draft(self.blobs) as unfinished:
            with unfinished.open("wb") as file:
                while (size is None or count <= size) and (data := stream.read(CHUNK)):
                    hasher.update(data)
                    count += len(data)
                    file.write(data)
            if size is not None and count > size:  # more would only fill the disk
                raise Mismatch(f"{what} is too long", why=f"{size} bytes were promised for {digest}, more came")
            check(digest, "sha256:" + hasher.hexdigest(), what)
            if size is not None and count != size:
                raise Mismatch(f"{what} has the wrong size", why=f"{size} bytes were promised, {count} came")
            unfinished.chmod(0o644)
            unfinished.rename(self.path(digest))

    # --- names ---------------------------------------------------------------------------

    def names(self) -> dict[str, str]:
        """{name: digest of its manifest} of index.json."""
        try:
            index = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError:
            return {}
        return {entry["annotations"][REF_NAME]: entry["digest"] for entry in index["manifests"]}

    def find(self, name: str) -> Image | None:
        """The image called `name` if it is here, else None. Raises Mismatch for a damaged store."""
        full = str(reference.parse(name))
        digest = self.names().get(full)
        if digest is None:
            return None
        manifest = model.Manifest.read(self.document(digest))
        return Image(full, digest, manifest, model.Config.read(self.document(manifest.config.digest)), self)

    def _name(self, name: str, digest: str) -> None:
        from labkit.image.drafts import locked

        with locked(self.folder):
            entries = {**self.names(), name: digest}
            manifests = [
                {
                    "mediaType": self.document(digest).get("mediaType", model.MANIFESTS[0]),
                    "digest": digest,
                    "size": self.path(digest).stat().st_size,
                    "annotations": {REF_NAME: name},
                }
                for name, digest in sorted(entries.items())
            ]
            index = {"schemaVersion": 2, "mediaType": model.INDEXES[0], "manifests": manifests}
            draft = self.folder / ".index.json"
            draft.write_text(json.dumps(index, indent=1))
            draft.rename(self.folder / "index.json")
            (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')

    # --- from a registry -----------------------------------------------------------------

    def obtain(self, name: str) -> Image:
        """The image from the store, or from its registry when it is not here (docker run's rule)."""
        found = self.find(name)
        if found is not None and all(self.path(layer.digest).exists() for layer in found.manifest.layers):
            return found
        return self.pull(name)

    def pull(self, name: str, platform: str | None = None) -> Image:
        """Ask the registry, fetch the blobs that are missing, and give the image its name.

        Raises NotFound, Mismatch, LabError; the store then holds no more than whole, true blobs.
        """
        wanted = reference.parse(name)
        digest, document = self._fetch_manifest(str(wanted), wanted.digest)
        if model.kind(document) == "index":
            chosen = model.choose(document, platform or model.host_platform())
            digest, document = self._fetch_manifest(wanted.at(chosen.digest), chosen.digest)
            if model.kind(document) == "index":
                raise BadInput(f"{wanted} is an index of indexes", next="crane manifest shows it")
        manifest = model.Manifest.read(document)
        for part in (manifest.config, *manifest.layers):
            if not self.path(part.digest).exists():
                self._fetch_blob(wanted, part)
        self._name(str(wanted), digest)
        return Image(str(wanted), digest, manifest, model.Config.read(self.document(manifest.config.digest)), self)

    def _fetch_manifest(self, name: str, digest: str) -> tuple[str, dict[str, Any]]:
        from labkit.image import crane  # costs 5 ms, and most containers start from the store

        data = crane.manifest(name)
        actual = "sha256:" + hashlib.sha256(data).hexdigest()
        check(digest or actual, actual, f"the manifest of {name}")
        from io import BytesIO

        document = model.parse(data, f"the manifest of {name}")
        self.put(BytesIO(data), actual, len(data), f"the manifest of {name}")
        return actual, document

    def _fetch_blob(self, wanted: reference.Reference, part: model.Descriptor) -> None:
        from labkit.image import crane

        what = f"blob {part.digest[:19]} of {wanted}"
        print(f"{part.digest[7:19]}: {part.size / 1e6:.1f} MB", file=sys.stderr)
        with crane.blob(wanted, part.digest) as (stream, failure):
            try:
                self.put(stream, part.digest, part.size, what)
            except Mismatch:
                # crane hashes too: when it complains of the hash, ours says it better.
                if (words := failure()) and "checksum" not in words:
                    raise crane.failure(f"cannot fetch {what}", words) from None
                raise


def check(promised: str, actual: str, what: str) -> None:
    """Raise Mismatch unless the two digests are one."""
    if promised != actual:
        raise Mismatch(
            f"{what} is not what its digest promises",
            why=f"promised {promised}, but its bytes hash to {actual}",
            next="nothing of it was kept; the registry, or something on the way, changed it",
        )
