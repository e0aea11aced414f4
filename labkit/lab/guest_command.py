"""Top floor: `labkit guest status|exec|log|copy`, the lab's machine from the host's shell.

Owns: the four verbs.  None of them starts a machine: without one they say so.

Read: labkit/lab/reach.py for how a command gets in.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from labkit.errors import BadInput, LabError, NotFound
from labkit.lab import machine, preflight, reach, state

SERVICES = ("lab-tree", "lab-registry", "lab-jupyter")
MARK = "guest:"  # before a path: it is the machine's


def main(argv: list[str]) -> int:
    """`labkit guest VERB`; returns the exit status, for exec that of the command."""
    parser = argparse.ArgumentParser(prog="labkit guest", description="The lab's machine, from the host's shell.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    status_ = verbs.add_parser("status", help="whether it runs, and how; 0 when JupyterLab answers")
    status_.add_argument("--json", action="store_true")
    exec_ = verbs.add_parser("exec", help="run a command there as root, at the same place of the tree")
    exec_.add_argument("-t", "--tty", action=argparse.BooleanOptionalAction, help="give it a terminal, or none")
    exec_.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    log_ = verbs.add_parser("log", help="what the lab's services said; the console when it cannot be reached")
    log_.add_argument("-f", "--follow", action="store_true")
    log_.add_argument("--console", action="store_true", help="the machine's serial console")
    log_.add_argument("service", nargs="*", default=SERVICES)
    copy_ = verbs.add_parser("copy", help=f"copy a file or folder; the machine's path is {MARK}PATH")
    copy_.add_argument("source")
    copy_.add_argument("target")
    options = parser.parse_args(argv)
    preflight.become_owner(state.TREE)
    if options.verb == "status":
        return status(as_json=options.json)
    if options.verb == "exec":
        words = options.command[1:] if options.command[:1] == ["--"] else options.command
        if not words:
            raise BadInput("no command to run in the machine", next="labkit guest exec -- COMMAND")
        return reach.execute(words, tty=options.tty)
    if options.verb == "log":
        return log(options.service, follow=options.follow, console=options.console)
    return copy(options.source, options.target)


def status(*, as_json: bool) -> int:
    """Print what is known of the machine; 0 when its JupyterLab answers, 1 otherwise."""
    found = state.running()
    if found is None:
        way = reach.find()  # raises when Vagrant has none either
        answer = {"started": "vagrant up", "host": way.host}
        print(json.dumps(answer) if as_json else f"a machine of Vagrant's: {way.host}; vagrant status knows more")
        return 0
    answers = machine.answers(found)
    public = {name: value for name, value in found._asdict().items() if name not in ("token", "started")}
    if as_json:
        print(json.dumps({**public, "started": "make lab", "answers": answers}, indent=1))
        return 0 if answers else 1
    used = sum(path.stat().st_blocks for path in state.folder().iterdir()) * 512
    lines = {
        "machine": f"process {found.pid}, up for {(time.time() - found.since) / 60:.0f} min, {found.memory} MiB",
        "accelerator": f"{found.accelerator}: {found.why}",
        "image": f"{found.image}, written above it: {used / 1e6:.0f} MB",
        "JupyterLab": f"127.0.0.1:{found.port}, {'answers' if answers else 'does not answer (yet)'}",
        "published": f"127.0.0.1:{found.publish} to {found.publish + machine.PUBLISHED - 1} lead to 8080 to 8089",
        "ssh": f"127.0.0.1:{found.ssh}",
    }
    print("\n".join(f"{name:<12} {text}" for name, text in lines.items()))
    return 0 if answers else 1


def log(services: list[str], *, follow: bool, console: bool) -> int:
    """The services' journal; of a machine that cannot be reached, its console and QEMU's complaints."""
    if not console:
        words = ["journalctl", "--no-pager", "--no-hostname", "-o", "short-monotonic"]
        words += [f"--unit={service}" for service in services] + (["--follow"] if follow else ["--lines=200"])
        try:
            return reach.execute(words, folder="/")
        except NotFound:
            raise
        except LabError as error:
            print(f"{error}\nso here is its console:")
    if state.load() is None:
        raise NotFound("there is no console to show", why="no machine of `make lab` is on record", next="make lab")
    for name in ("qemu.log", "console.log"):
        path = state.folder() / name
        if path.exists() and (text := path.read_text(errors="replace")):
            print(text, end="" if text.endswith("\n") else "\n")
    return 0


def copy(source: str, target: str) -> int:
    """Copy as `cp -a` would, between this host and the machine; owners become the receiver's."""
    inward, outward = target.startswith(MARK), source.startswith(MARK)
    if inward == outward:
        raise BadInput(f"cannot copy {source} to {target}", why="one of the two is to be in the machine",
                       next=f"labkit guest copy notes.txt {MARK}/root/")  # fmt: skip
    return _inward(Path(source), target.removeprefix(MARK)) if inward else _outward(source.removeprefix(MARK), target)


# $1 the target, $2 the name it comes under, standard input the archive.
RECEIVE = """\
set -e
if [ -d "$1" ]; then tar -C "$1" --no-same-owner -xf -; exit; fi
part=$(mktemp -d -- "$(dirname -- "$1")/.copy.XXXXXX")
trap 'rm -rf -- "$part"' EXIT
tar -C "$part" --no-same-owner -xf -
mv -T -- "$part/$2" "$1"
"""


def _inward(source: Path, target: str) -> int:
    source = Path(os.path.abspath(source))
    if not source.exists():
        raise NotFound(f"cannot copy {source} into the machine", why="it does not exist")
    words = ["tar", "-C", str(source.parent), "-cf", "-", "--", source.name]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as sender:
        receiver = ["sh", "-c", RECEIVE, "sh", target or ".", source.name]
        status = reach.execute(receiver, tty=False, stdin=sender.stdout)
    return status or sender.returncode


def _outward(source: str, target: str) -> int:
    name = os.path.basename(os.path.normpath(source))
    if name in ("", ".", "..", "/"):
        raise BadInput(f"cannot copy {MARK}{source}", why="it has no name of its own", next="name a file or folder")
    with tempfile.TemporaryFile() as archive:
        sender = f"cd -- {shlex.quote(os.path.dirname(source) or '.')} && exec tar -cf - -- {shlex.quote(name)}"
        if status := reach.execute(["sh", "-c", sender], tty=False, stdin=subprocess.DEVNULL, stdout=archive):
            return status
        archive.seek(0)
        return subprocess.run(["sh", "-c", RECEIVE, "sh", target, name], stdin=archive).returncode
