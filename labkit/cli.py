"""Top of the house: the `labkit` command, a table of verbs.

Owns: finding the verb, and printing a LabError as what, why and next.
Each verb's module is imported only when it is asked for, so that `labkit run`
never pays for the doctor.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from labkit import __version__
from labkit.errors import LabError

# verb: (module:function, what it does); every function takes the arguments behind the
# verb and returns an exit status.
VERBS = {
    "run": ("labkit.runtime.commands:run", "start a container from an image, without a daemon"),
    "ps": ("labkit.runtime.commands:ps", "list containers"),
    "exec": ("labkit.runtime.commands:exec", "run a command inside a container"),
    "stats": ("labkit.runtime.stats:stats", "what containers use: CPU, memory, network, disk, processes"),
    "logs": ("labkit.runtime.commands:logs", "what a detached container printed"),
    "stop": ("labkit.runtime.commands:stop", "end a container: SIGTERM, then SIGKILL"),
    "rm": ("labkit.runtime.commands:rm", "remove an ended container"),
    "network": ("labkit.runtime.network_commands:main", "networks of your own: create, ls, inspect, rm, connect"),
    "reset": ("labkit.runtime.commands:reset", "give back everything that labkit ever acquired"),
    "pull": ("labkit.image.commands:pull", "fetch an image from a registry into the store"),
    "build": ("labkit.runtime.build_command:build", "make an image from a Dockerfile"),
    "images": ("labkit.image.commands:images", "list the images in the store"),
    "history": ("labkit.image.commands:history", "how an image was made, and what each instruction added"),
    "rmi": ("labkit.image.commands:rmi", "remove an image, and what no other image needs"),
    "prune": ("labkit.image.commands:prune", "remove what no image needs and the build cache, and say what that was"),
    "registry": ("labkit.image.commands:registry", "the lab's own registry on the loopback"),
    "cni": ("labkit.runtime.cni_commands:main", "networks that CNI plugins make: list, versions, check"),
    "doctor": ("labkit.lab.doctor_command:main", "try what this machine can do, and say what is missing"),
    "census": ("labkit.observe.commands:census", "count what the kernel holds right now"),
    "exercises": ("labkit.lessons.commands:main", "the course's exercises: next, hint, solution, progress, --verify"),
    "xray": ("labkit.lessons.xray_command:xray", "what the kernel holds for a process, or what a command changed"),
    "guest": ("labkit.lab.guest_command:main", "the lab's machine: status, exec, log, copy"),
    "lab": ("labkit.lab.lab_command:main", "start and stop the lab (what `make lab` calls)"),
}

# What an ordinary user does as root of a user namespace, and what moves there.  Images alone, before they are
# unpacked, are that user's own files.
ENTER = "labkit.runtime.rootless:enter"
OF_CONTAINERS = {"run", "ps", "exec", "stats", "logs", "stop", "rm", "reset", "build", "rmi", "prune"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status for the shell."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"labkit {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"labkit: there is no command {verb!r}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        if verb in OF_CONTAINERS and os.geteuid() and not {"-h", "--help"} & set(rest[:1]):
            _named(ENTER)()
        return int(_named(VERBS[verb][0])(rest))
    except LabError as error:
        print(f"labkit {verb}: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        return 141  # what a shell reports for SIGPIPE


def _named(text: str) -> Callable[..., Any]:
    module, _, function = text.partition(":")
    # Ctrl-C in an import could be lost (what is raised in the importer's own callbacks is dropped), and else would
    # print a page of its frames: until the verb begins, it ends this process as it ends any program.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
    return found


def usage() -> str:
    """The one-screen answer to `labkit`."""
    lines = ["labkit: build containers by hand, one layer at a time", "", "usage: labkit COMMAND [--help] ...", ""]
    lines += [f"  {verb:<10} {purpose}" for verb, (_, purpose) in VERBS.items()]
    return "\n".join(lines)
