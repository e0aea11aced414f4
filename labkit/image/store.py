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
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from labkit import paths
from labkit.errors import BadInput, Mismatch, NotFound, explain
from labkit.image import model, reference

CHUNK = 1 << 20  # bytes
CHANGED = "nothing of it was kept; the registry, or something on the way, changed it"
ROTTEN = "labkit pull the image again, which replaces the blob; an image of your own: build it again"
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

    @property
    def stack(self) -> list[tuple[model.Descriptor, str]]:
        """(layer, its diff_id), bottom first. Raises BadInput where the two documents disagree."""
        layers, diff_ids = self.manifest.layers, self.config.diff_ids
        if len(layers) != len(diff_ids):
            why = f"{len(layers)} layers and {len(diff_ids)} diff_ids: as many diff_ids as layers are needed"
            raise BadInput(f"{self.name} contradicts itself", why=why, next=model.NEXT)
        return list(zip(layers, diff_ids, strict=True))


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
        check(digest, "sha256:" + hashlib.sha256(data).hexdigest(), f"a blob in {self.blobs}", next=ROTTEN)
        return model.parse(data, f"the blob {digest}")

    def holds(self, digest: str) -> bool:
        """Is this document here, and true? Its blob is small; a layer's is hashed when it is unpacked."""
        try:
            self.document(digest)
        except (NotFound, Mismatch):
            return False
        return True

    def put(self, stream: IO[bytes], digest: str, size: int | None, what: str) -> None:
        """Take in a blob that calls itself `digest`. Raises Mismatch, and then keeps nothing."""
        from labkit.image.drafts import draft  # costs 5 ms, and most containers start from the store

        hasher, count = hashlib.sha256(), 0
        with draft(self.blobs) as unfinished:
            try:
                with unfinished.open("wb") as file:
                    while (size is None or count <= size) and (data := stream.read(CHUNK)):
                        hasher.update(data)
                        count += len(data)
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # else a power cut could leave the name without the bytes
            except OSError as error:
                why = f"nothing of it was kept, in {self.folder}"
                explain(error, f"cannot keep {what}", why=why, next="labkit prune, or a larger disk: df -h")
            if size is not None and count > size:  # more would only fill the disk
                why = f"{size} bytes were promised for {digest}, more came"
                raise Mismatch(f"{what} is too long", why=why, next=CHANGED)
            check(digest, "sha256:" + hasher.hexdigest(), what)
            if size is not None and count != size:
                why = f"{size} bytes were promised, {count} came"
                raise Mismatch(f"{what} has the wrong size", why=why, next=CHANGED)
            unfinished.chmod(0o644)
            unfinished.rename(self.path(digest))

    # --- names ---------------------------------------------------------------------------

    def names(self) -> dict[str, str]:
        """{name: digest of its manifest} of index.json. Raises BadInput for an index.json that is none."""
        return {name: entry.digest for name, entry in self._entries().items()}

    def _entries(self) -> dict[str, model.Descriptor]:
        """{name: its line of index.json}; what others left there without a name is passed over."""
        try:
            data = (self.folder / "index.json").read_bytes()
        except FileNotFoundError:
            return {}
        what = f"{self.folder / 'index.json'}"
        entries = [model.Descriptor.read(each) for each in model.listed(model.parse(data, what), "manifests", what)]
        return {entry.annotations[REF_NAME]: entry for entry in entries if REF_NAME in entry.annotations}

    def find(self, name: str) -> Image | None:
        """The image called `name` if it is here, else None. Raises Mismatch for a damaged store."""
        full = str(reference.parse(name))
        digest = self.names().get(full)
        if digest is None:
            return None
        manifest = model.Manifest.read(self.document(digest))
        return Image(full, digest, manifest, model.Config.read(self.document(manifest.config.digest)), self)

    def get(self, name: str) -> Image:
        """The same; NotFound where it is not here."""
        found = self.find(name)
        if found is None:
            listed = ", ".join(sorted(self.names())) or "none"
            raise NotFound(
                f"there is no image {name} in the store", why=f"here are: {listed}", next=f"labkit pull {name}"
            )
        return found

    def tag(self, name: str, digest: str) -> None:
        """Let `name`, a full reference, mean the manifest `digest`, whatever it meant before."""
        with self._renaming() as names:
            names[name] = digest

    def untag(self, name: str) -> str:
        """Take a name away; the digest that it meant. Its blobs stay until they are collected. Raises NotFound."""
        full = str(reference.parse(name))
        with self._renaming() as names:
            if full not in names:
                raise NotFound(
                    f"the store has no image {full}", why="no name in it is that", next="labkit images lists them"
                )
            return names.pop(full)

    @contextmanager
    def _renaming(self) -> Iterator[dict[str, str]]:
        """The names, to be changed by nobody else meanwhile, and written in one step."""
        from labkit.image.drafts import locked

        with locked(self.folder):
            before = self._entries()
            names = {name: entry.digest for name, entry in before.items()}
            yield names
            manifests = []
            for name, digest in sorted(names.items()):
                entry = before.get(name)
                if entry is not None and entry.digest == digest:
                    # As it stood: a damaged manifest must not keep the other names from being changed.
                    kind, size = entry.media_type, entry.size
                else:
                    kind = self.document(digest).get("mediaType", model.MANIFESTS[0])
                    size = self.path(digest).stat().st_size
                line = {"mediaType": kind, "digest": digest, "size": size, "annotations": {REF_NAME: name}}
                manifests.append(line)
            index = {"schemaVersion": 2, "mediaType": model.INDEXES[0], "manifests": manifests}
            draft = self.folder / ".index.json"
            with draft.open("w") as file:
                file.write(json.dumps(index, indent=1))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.folder / "index.json")
            (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While blobs are brought or read nothing is collected; the kernel ends this with the process."""
        from labkit.image.drafts import locked

        with locked(self.blobs.parent, shared=True):
            yield

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
        with self.in_use():
            digest, document = self._fetch_manifest(str(wanted), wanted.digest)
            if model.kind(document) == "index":
                chosen = model.choose(document, platform or model.host_platform())
                digest, document = self._fetch_manifest(wanted.at(chosen.digest), chosen.digest)
                if model.kind(document) == "index":
                    raise BadInput(
                        f"{wanted} is an index of indexes",
                        why="a platform has a manifest",
                        next="crane manifest shows it",
                    )
            manifest = model.Manifest.read(document)
            if not self.holds(manifest.config.digest):
                self._fetch_blob(wanted, manifest.config)
            for part in manifest.layers:
                if not self.path(part.digest).exists():  # what a killed pull brought whole is not asked for again
                    self._fetch_blob(wanted, part)
            config = model.Config.read(self.document(manifest.config.digest))
            self._compare(str(wanted), config, platform)
            self.tag(str(wanted), digest)
        return Image(str(wanted), digest, manifest, config, self)

    def _compare(self, name: str, config: model.Config, platform: str | None) -> None:
        """An image for another machine: an error when a platform was asked for, else a word (as with docker)."""
        offered, asked = f"{config.os}/{config.architecture}", platform or model.host_platform()
        if config.os and config.architecture and not model.fits(offered, asked):
            if platform:
                raise NotFound(
                    f"{name} is not made for {platform}",
                    why=f"it is one image, for {offered}",
                    next="leave --platform out",
                )
            print(f"{name} is made for {offered}, this machine is {asked}", file=sys.stderr)

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


def check(promised: str, actual: str, what: str, next: str = CHANGED) -> None:
    """Raise Mismatch unless the two digests are one."""
    if promised != actual:
        raise Mismatch(
            f"{what} is not what its digest promises",
            why=f"promised {promised}, but its bytes hash to {actual}",
            next=next,
        )
