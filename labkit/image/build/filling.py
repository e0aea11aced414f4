"""Floor 2: COPY, ADD and WORKDIR: files into the layers so far.

Owns: what their words mean (sources, here-documents, a destination, owner and mode), what their layer
depends on, and what is refused: fetching from the network is none of a build's business here.

Read: Docker's "Dockerfile reference", COPY, ADD, WORKDIR.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput, LabError, NotFound, Refused, explain
from labkit.image.build import cache
from labkit.image.build.building import Building, Outcome
from labkit.image.build.context import Found, Tree, digest
from labkit.image.build.dockerfile import Instruction
from labkit.image.build.lines import HEREDOC
from labkit.image.build.patterns import Patterns, is_pattern
from labkit.image.build.plan import Planned
from labkit.image.build.stage import Making
from labkit.image.build.words import expand_document

REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@", re.IGNORECASE)
MODE = re.compile(r"[0-7]{3,4}")


class Wanted(NamedTuple):
    """What a COPY or an ADD asks for, its variables replaced."""

    sources: tuple[str, ...]
    documents: tuple[tuple[str, str], ...]  # (name, text) of the here-documents among the sources
    destination: str  # absolute; a slash at its end says that it is a folder
    chown: str
    mode: int | None
    exclude: tuple[str, ...]
    unpack: bool  # ADD: an archive becomes its content

    @property
    def patterns(self) -> Patterns:
        """What --exclude leaves out."""
        return Patterns.of(self.exclude)


def wanted(stage: Making, one: Instruction) -> Wanted:
    """Raises BadInput, Refused."""
    settings = stage.settings
    documents = {each.name: each for each in one.heredocs}
    sources, texts = list[str](), list[tuple[str, str]]()
    for word in one.args[:-1]:
        match = None if one.exec else HEREDOC.fullmatch(word)
        name = re.sub(r"[\"'\\]", "", match[2]) if match else ""
        if name in documents:
            each = documents[name]
            texts.append((name, expand_document(each.data, settings.variables) if each.expand else each.data))
        else:
            sources.append(settings.word(word))
    for source in sources:
        if REMOTE.match(source):
            raise Refused(f"{one.name} of {source} is not done here", why="a build fetches nothing but its base images",
                          next="fetch it before the build and COPY it, or RUN wget in a stage", status=1)  # fmt: skip
    destination = settings.path(settings.word(one.args[-1]))
    if len(sources) + len(texts) > 1 and not destination.endswith("/"):
        raise BadInput(f"several sources need a folder, and {one.args[-1]} may be a file",
                       next=f"{one.args[-1]}/", status=1)  # fmt: skip
    mode = settings.word(one.option("chmod") or "")
    if mode and not MODE.fullmatch(mode):
        raise BadInput(f"--chmod={mode} is no mode", why="three or four octal digits are understood",
                       next="--chmod=755", status=1)  # fmt: skip
    exclude = tuple(settings.word(each) for each in one.options.get("exclude", ()))
    return Wanted(tuple(sources), tuple(texts), destination, settings.word(one.option("chown") or ""),
                  int(mode, 8) if mode else None, exclude, one.name == "ADD")  # fmt: skip


def copy(build: Building, planned: Planned, stage: Making, one: Instruction) -> Outcome:
    """COPY and ADD. Raises LabError."""
    asked = wanted(stage, one)
    name = one.option("from")
    words = [*(["--chown=" + asked.chown] if asked.chown else []), *one.args[:-1], one.args[-1]]
    said = f"{one.name} {' '.join(words)}" if one.exec else f"{one.name} {' '.join(_said(stage, words))}"
    facts = {"asked": asked, "when": stage.when}
    if name is None:
        found, content, signs = _look(build, asked)
        key = cache.key(one.name, stage.chain, content=content, **facts)

        def make(place: Path, lower: list[Path]) -> None:
            _fill(place, lower, asked, stage.when, build.context, found)
            if _look(build, asked)[2] != signs:
                raise LabError("the context was changed while it was copied", next="build again", status=1)
    else:
        source = build.source(planned, name)
        key = cache.key(one.name, stage.chain, source=source.chain, **facts)

        def make(place: Path, lower: list[Path]) -> None:
            _fill(place, lower, asked, stage.when, source)

    layer, cached = build.layered(stage, key, make)
    return Outcome(said, layer, cached)


def _said(stage: Making, words: list[str]) -> list[str]:
    return [word if HEREDOC.fullmatch(word) else stage.settings.word(word) for word in words]


def _look(build: Building, asked: Wanted) -> tuple[list[Found], str, str]:
    """(what the sources mean in the context, a hash of it, a hash of its looks)."""
    if not asked.sources:
        return [], "", ""
    try:
        found = _find(build.context, asked.sources)
        return found, *digest(build.context, found, asked.patterns, build.hashes)
    except OSError as error:
        explain(error, "cannot read the context", next="is every file of it readable? .dockerignore leaves some out")


def _find(tree: Tree, sources: Sequence[str]) -> list[Found]:
    found = [each for source in sources for each in tree.find(source)]
    if not found and any(is_pattern(source) for source in sources):
        raise NotFound(f"no file is meant by {' '.join(sources)}", why="the pattern meets nothing",
                       next="ls the context; .dockerignore leaves files out too", status=1)  # fmt: skip
    return found


def _fill(place: Path, lower: list[Path], asked: Wanted, when: int, source: Tree | Making,
          found: list[Found] | None = None) -> None:  # fmt: skip
    """Into the draft at `place`, on top of `lower`. Raises LabError."""
    from labkit.image.build.copying import How, Target
    from labkit.image.build.inside import Stack, within

    target = Stack(lower, place)
    stacks = [target]
    if isinstance(source, Making):
        (place / "source").mkdir()
        stacks.append(Stack(source.folders(), place / "source"))

    def work() -> None:
        tree = Tree(stacks[1].root, owners=True) if isinstance(source, Making) else source
        all_found = _find(tree, asked.sources) if found is None else found
        how = How(when * 1_000_000_000, asked.chown, asked.mode, asked.patterns)
        into = Target(target.root, how)
        if asked.unpack:
            from labkit.image.build.archives import unpack

            all_found = [each for each in all_found if not unpack(into, tree, each, asked.destination)]
        into.copy(tree, all_found, asked.destination)
        for name, text in asked.documents:
            into.write(name, text.encode("utf-8", "surrogateescape"), asked.destination)

    within(stacks, work)


def workdir(build: Building, stage: Making, one: Instruction) -> Outcome:
    """WORKDIR: set, and made where it is missing, for the user of the moment. Raises LabError."""
    said = stage.settings.apply(one)
    path, user = stage.settings.workdir, stage.settings.user
    if path == "/":
        return Outcome(said, None, True)
    key = cache.key("WORKDIR", stage.chain, path=path, user=user, when=stage.when)

    def make(place: Path, lower: list[Path]) -> bool:
        from labkit.image.build.copying import How, Target
        from labkit.image.build.inside import Stack, within

        stack = Stack(lower, place)

        def work() -> None:
            os.close(Target(stack.root, How(0, user)).folder(path))

        within([stack], work)
        return bool(os.listdir(stack.upper))

    layer, cached = build.layered(stage, key, make)
    return Outcome(said, layer, cached)
