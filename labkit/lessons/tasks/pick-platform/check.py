"""Top floor: the check of pick-platform.

Owns: indexes with random digests in random order, and what each platform must find in them.
Read: the OCI image specification, image-index ("platform").
"""

from __future__ import annotations

import json

from labkit.lessons.outcome import Wrong

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# platform asked for: the platform of the entry that fits, None where none does
ASKED = {
    "linux/amd64": "linux/amd64",
    "windows/amd64": "windows/amd64",
    "linux/arm64": "linux/arm64/v8",
    "linux/arm64/v8": "linux/arm64/v8",
    "linux/arm/v6": "linux/arm/v6",
    "linux/arm/v7": "linux/arm",
    "linux/arm": "linux/arm",
    "linux/s390x": "linux/s390x",
    "linux/riscv64": None,
    "linux/arm/v5": None,
}


def check(pick, lab):
    """Ask for each platform, in an index of which every entry is in a random place."""
    places = {platform: f"sha256:{lab.number(0, 2**256 - 1):064x}" for platform in {*ASKED.values()} - {None}}
    entries = [entry(digest, *platform.split("/")) for platform, digest in places.items()]
    entries += [entry(f"sha256:{lab.number(0, 2**256 - 1):064x}", "unknown", "unknown") for _ in range(2)]
    bare = entry(f"sha256:{lab.number(0, 2**256 - 1):064x}", "", "")
    del bare["platform"]
    entries.append(bare)
    entries.sort(key=lambda one: lab.token())
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    names = {one["digest"]: one.get("platform") for one in entries}
    child = lab.child()
    for platform, fits in ASKED.items():
        found = child.do(pick, index, platform)
        wanted = places[fits] if fits else None
        if found == wanted:
            continue
        if found is None:
            raise Wrong(f"nothing was found for {platform}, and the index has {fits}: it is the same platform")
        if wanted is None:
            raise Wrong(f"there is no {platform} in the index, and yet {said(names, found)} was returned")
        raise Wrong(blame(platform, names.get(found), found, names))


def entry(digest, system, architecture, variant=""):
    """One line of an index."""
    platform = {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}
    return {"mediaType": MANIFEST, "digest": digest, "size": 500, "platform": platform}


def said(names, found):
    """What a returned value is, in words."""
    if not isinstance(found, str) or found not in names:
        return f"{found!r:.80}, which is no digest of the index,"
    platform = names[found]
    return "the entry for " + "/".join(platform.values()) if platform else "the entry without a platform"


def blame(platform, has, found, names):
    """Why an entry is the wrong one."""
    wanted = platform.split("/")
    if has and has["architecture"] == wanted[1]:
        if has["os"] != wanted[0]:
            return f"for {platform} {said(names, found)} was returned: its system is another one"
        return f"for {platform} {said(names, found)} was returned: its variant is another one"
    return f"for {platform} {said(names, found)} was returned"
