"""Top floor: `labkit lab up|down|here|clean`, which `make lab` and `make down` call.

Owns: the order of a start (look, check, build, choose, boot, wait), and telling a waiting
person where it stands, with times.

Read: the README's "Start the lab"; labkit/lab/machine.py for what is started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from labkit.errors import InUse, LabError
from labkit.lab import accelerator, image_build, keepsakes, machine, preflight, state
from labkit.lab.state import Machine

LEAST_MEMORY = 1024  # MiB: the kernel, JupyterLab, one notebook and a few containers
MOST_CPUS = 64  # a slip of the finger is more
ATTEMPTS = 2  # starts of a machine that ends by itself while it boots
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


class Progress:
    """One line a step: seconds since the start, and what begins now."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:4.0f} s  {text}", flush=True)


def main(argv: list[str]) -> int:
    """`labkit lab VERB`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="labkit lab", description="The lab: a machine of its own, with JupyterLab.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up_ = verbs.add_parser("up", help="start the lab, or find the running one, and print its address")
    up_.add_argument("--port", type=_port, default=8888, help="JupyterLab's port on 127.0.0.1 (0: any free one)")
    up_.add_argument("--publish-port", type=_port, default=8080, help="the first of ten ports for what learners publish"
                     " (0: any free ones)")  # fmt: skip
    up_.add_argument("--memory", type=_memory, default=2048, metavar="MIB", help="memory of the machine")
    up_.add_argument("--cpus", type=_cpus, default=2, help="processors of the machine")
    up_.add_argument("--variant", choices=("learner", "test"), default="learner", help="test: with the tests' peers")
    up_.add_argument("--arch", choices=tuple(HOST_ARCH.values()), default=HOST_ARCH.get(os.uname().machine, "amd64"))
    up_.add_argument("--fresh", action="store_true", help="a new machine; what learners wrote is kept")
    down_ = verbs.add_parser("down", help="stop the lab; nothing of it is left")
    down_.add_argument("--discard", action="store_true", help="what was written in the machine's homes is lost")
    here_ = verbs.add_parser("here", help="JupyterLab directly on this Linux, which is meant to be thrown away")
    here_.add_argument("--port", type=_port, default=8888)
    here_.add_argument("--check", action="store_true", help="only say whether it could: before anything is installed")
    verbs.add_parser("clean", help="remove the built images from this user's cache")
    options = parser.parse_args(argv)
    if options.verb == "here":
        from labkit.lab import here

        return here.check(options.port) if options.check else here.main(options.port)
    if options.verb == "clean":
        return clean()
    if options.verb == "down":
        preflight.become_owner(state.TREE)
        return down(options.discard)
    return up(options)


def _port(text: str) -> int:
    number = int(text) if text.isdigit() else -1
    if not (number == 0 or 1024 <= number <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1024 to 65535, or 0 for any free one")
    return number


def _memory(text: str) -> int:
    number = int(text) if text.isdigit() else -1
    if number < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(f"{text!r} is too little: {LEAST_MEMORY} (MiB) or more, 2048 is usual")
    return number


def _cpus(text: str) -> int:
    number = int(text) if text.isdigit() else -1
    if not 1 <= number <= MOST_CPUS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processors: 1 to {MOST_CPUS}")
    return number


def up(options: argparse.Namespace) -> int:
    """Start the lab, or find it; print the address."""
    say = Progress()
    preflight.platform()
    if os.geteuid() == 0 and (lacking := preflight.missing(options.arch, building=True)):
        preflight.install(lacking, say)
    preflight.become_owner(state.TREE)
    preflight.find_admin_tools()
    with state.locked():
        if (found := state.running()) and not options.fresh:
            # A machine whose JupyterLab still starts belongs to a `make lab` that was interrupted.
            if not machine.answers(found):
                say("the machine runs; waiting for JupyterLab")
                machine.wait(found, say)
            print(address(found))
            return 0
        if old := state.load():
            say("the old machine goes" if found else "the last machine was found dead")
            _end(old, say)
        _start(options, say)
    return 0


def _start(options: argparse.Namespace, say: Progress) -> None:
    arch, variant = options.arch, options.variant
    building = not image_build.cached(state.TREE, arch=arch, variant=variant)
    preflight.check(port=options.port, publish=options.publish_port, memory=options.memory, arch=arch,
                    building=building)  # fmt: skip
    if building:
        say("building the machine's image: once, some minutes")
    image = image_build.build(state.TREE, arch=arch, variant=variant, say=lambda text: say(f"   {text}"))
    say(f"image {image.folder.name}, {image.size() / 1e6:.0f} MB")
    chosen = accelerator.Accelerator("tcg", "the machine is of another architecture than this host")
    if HOST_ARCH.get(os.uname().machine) == arch:
        chosen = accelerator.choose(image.kernel, image_build.cache() / "accelerator.json", qemu=machine.QEMU[arch])
    say(f"accelerator {chosen.name}: {chosen.why}")
    for attempt in range(ATTEMPTS):
        try:
            with _nothing_left():
                started = machine.start(image, chosen, arch=arch, variant=variant, memory=options.memory,
                                        cpus=options.cpus, port=options.port, publish=options.publish_port)  # fmt: skip
                say("the machine boots")
                machine.wait(started, say)
            break
        except machine.Ended as error:
            # A kernel that panics once in a hundred boots, or a KVM that carries a small boot and not a whole one.
            if attempt + 1 == ATTEMPTS:
                raise
            say(f"{error.what}, and is started once more\n        {error.why}")
            chosen = accelerator.doubted(chosen, image_build.cache() / "accelerator.json")
    say("JupyterLab answers")
    print(address(started))


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    """A start that fails, or that a person interrupts, leaves no machine behind."""
    try:
        yield
    except BaseException:
        if begun := state.load():
            machine.stop(begun)
        state.forget()
        raise


def address(found: Machine) -> str:
    """What a person opens in a browser, and what else the running lab offers."""
    first = next(iter(sorted((state.TREE / "notebooks").glob("00*.ipynb"))), None)
    place = f"/tree/notebooks/{first.name}" if first else ""
    return (
        f"\nThe lab is up:  http://127.0.0.1:{found.port}/lab{place}?token={found.token}\n"
        f"What you publish on 8080 to 8089 in the lab is on 127.0.0.1:{found.publish} to "
        f"{found.publish + machine.PUBLISHED - 1} here.  Stop it: make down"
    )


def down(discard: bool = False) -> int:
    """Stop the machine; keep what a learner wrote in it, unless told to discard it; leave nothing else."""
    say = Progress()
    with state.locked():
        old = state.load()
        if old is None:
            state.forget()
            print("no lab of this checkout is running")
            return 0
        _end(old, say, discard)
    say("the lab is down")
    return 0


def _end(old: Machine, say: Progress, discard: bool = False) -> None:
    # An error in here leaves the machine as it is.
    if not discard and (kept := keepsakes.keep(old)):
        say(f"kept from the machine's homes: {kept.relative_to(state.TREE)}")
    machine.stop(old)
    state.forget()


def clean() -> int:
    """Remove the images of this user; refused while a machine's disk lies on one of them."""
    folder: Path = image_build.cache()
    if used := sorted(folder.glob("*/*.in-use")):
        raise InUse("cannot remove the images", why=f"a lab runs on {used[0].parent.name}", next="make down")
    if folder.exists():
        size = sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) * 512
        shutil.rmtree(folder)
        print(f"removed {size / 1e6:.0f} MB: {folder}", file=sys.stdout)
    return 0


__all__ = ["LabError", "address", "clean", "down", "main", "up"]
