"""Floor 2: what an image is called: registry, repository, tag or digest.

Owns: reading a name the way Docker does, short forms included.

Read: distribution/reference in the distribution project, for the grammar.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from labkit.errors import BadInput

COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
DOMAIN = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HUB = "index.docker.io"
LONGEST = 255  # characters of a repository's name
IDENTIFIER = re.compile(r"[0-9a-f]{64}")  # what docker takes for an image's ID, never for a name


class Reference(NamedTuple):
    """A whole name; either tag or digest says which image of the repository."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{end}"

    def at(self, digest: str) -> str:
        """The same repository at a digest, as registries are asked for it."""
        return f"{self.registry}/{self.repository}@{digest}"


def parse(text: str) -> Reference:
    """nginx, nginx:1.27, org/app, localhost:5000/app@sha256:...; Raises BadInput."""
    rest, _, digest = text.partition("@")
    first, slash, remainder = rest.partition("/")
    # Docker's rule: the first part is a registry if it could not be a user's name.
    if slash and (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        registry, path = first, remainder
    else:
        registry, path = HUB, rest
    if registry in ("docker.io", "registry-1.docker.io"):
        registry = HUB
    path, colon, tag = path.partition(":")
    if registry == HUB and path and "/" not in path:
        path = f"library/{path}"
    wrong = ""
    if not DOMAIN.fullmatch(registry):  # it must never look like an option of crane's
        wrong = f"{registry!r} is no registry: a host name, and perhaps a port"
    elif not REPOSITORY.fullmatch(path):
        wrong = f"{path!r} is no repository name: lower-case letters, digits and . _ - between them"
    elif IDENTIFIER.fullmatch(rest):
        wrong = "64 hexadecimal digits are an image's ID; a name may not look like one"
    elif len(path) > LONGEST:
        wrong = f"the repository's name is longer than {LONGEST} characters"
    elif colon and not TAG.fullmatch(tag):
        wrong = f"{tag!r} is no tag"
    elif "@" in text and not DIGEST.fullmatch(digest):
        wrong = f"{digest!r} is no digest: sha256: and 64 hexadecimal digits"
    if wrong:
        raise BadInput(f"{text!r} is not the name of an image", why=wrong, next="for example nginx:1.27")
    return Reference(registry, path, "" if digest else tag or "latest", digest)
