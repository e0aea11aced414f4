"""Is there an overlay on the target, with these layers in this order, and does a write land in the upper folder?"""

import os
import random
from pathlib import Path

from labkit.kernel import mounts
from labkit.lessons.child import Child
from labkit.lessons.outcome import Wrong
from labkit.observe import mountinfo


def prepare(here, layers, target):
    """In the child: a file system of its own, since an overlay cannot stand on every other one, and the layers."""
    mounts.mount("tmpfs", here, "tmpfs")
    for number, (folder, token) in enumerate(layers, 1):
        folder.mkdir()
        (folder / f"only-{number}").write_text(token)
        (folder / "same").write_text(token)
    for folder in (target, here / "upper", here / "work"):
        folder.mkdir()


def check(function, lab):
    """The learner's process is looked at from outside: its mount table, its open files, the folders."""
    here = Path(lab.folder())
    dice = random.Random(lab.token())
    names = [*dice.sample(["one", "with space", "two", "three"], dice.randint(2, 4)), "a:b"]
    dice.shuffle(names)
    layers = [(here / name, lab.token()) for name in names]
    target, upper, work = here / "merged", here / "upper", here / "work"
    child = lab.child()
    Child.do(child, prepare, here, layers, target)
    open_before, calls_before = descriptors(child.pid), len(child.calls)
    try:
        child.do(function, str(target), [str(folder) for folder, _ in layers], str(upper), str(work))
    except OSError as error:
        raise Wrong(refused(error, child.calls[calls_before:])) from error
    made = {call.name for call in child.calls[calls_before:] if not call.errno}
    found = [mount for mount in mountinfo.read(child.pid) if mount.place == str(target)]
    if not found:
        extra = "; fsmount made a mount, but it hangs nowhere: move_mount gives it a place" if "fsmount" in made else ""
        raise Wrong(f"nothing is mounted on {target}{extra}")
    if found[-1].kind != "overlay":
        raise Wrong(f"the mount on {target} is of the type {found[-1].kind}, not overlay")
    look(Path(f"/proc/{child.pid}/root"), target, layers, mountinfo.layers(found[-1]), upper)
    if "mount" in made:
        raise Wrong("the stack is right, but made with the old mount call; use fsopen, fsconfig, fsmount, move_mount")
    left = {fd: what for fd, what in descriptors(child.pid).items() if fd not in open_before}
    if left:
        shown = ", ".join(f"{fd} -> {what}" for fd, what in sorted(left.items()))
        raise Wrong(f"the stack is right, but the process has descriptors still open: {shown}. Close each of them")


def refused(error, calls):
    """What to say when the kernel refused one of the learner's calls."""
    said = f"the kernel refused: {error.strerror or error}"
    strings = [str(argument) for call in calls for argument in call.arguments if isinstance(argument, str)]
    if any(":" in text.replace("a:b", "") for text in strings):
        said += ". One layer is called a:b, and in one string a colon parts layers; lowerdir+ takes them one by one"
    return said


def look(root, target, layers, seen, upper):
    """Read and write through the stack, from outside."""
    inside = Path(f"{root}{target}")
    for number, (_, token) in enumerate(layers, 1):
        file = inside / f"only-{number}"
        if not file.exists() or file.read_text() != token:
            raise Wrong(f"layer {number} of {len(layers)} is not in the stack: its file {file.name} is not seen")
    read = (inside / "same").read_text()
    if read != layers[-1][1]:
        owner = next((number for number, (_, token) in enumerate(layers, 1) if token == read), "none")
        raise Wrong(
            "the layers are upside down, or mixed: every layer has a file `same`, and the stack shows that "
            f"of layer {owner}; the top one is layer {len(layers)}"
        )
    if seen.upper is None:
        raise Wrong("the stack has no upper folder: mountinfo shows no upperdir, so nothing can be written")
    word = f"written {os.urandom(4).hex()}"
    try:
        (inside / "new").write_text(word)
    except OSError as error:
        raise Wrong(f"writing a file into the stack fails: {error.strerror}") from error
    landed = Path(f"{root}{upper}/new")
    if not landed.exists() or landed.read_text() != word:
        raise Wrong(f"a file written into the stack did not land in {upper}; mountinfo shows upperdir={seen.upper}")


def descriptors(pid):
    """{number: what it is} of the open files of a process."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[path.name] = os.readlink(path)
        except FileNotFoundError:
            continue
    return found
