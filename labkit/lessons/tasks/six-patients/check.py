"""Top floor: the check of six-patients.

Owns: the six with random values, what the answer's document makes of each, and whether the container is then what it
was ordered for.
Read: labkit/lessons/patients.py; the OCI runtime specification, runtime.md, "State".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.kernel.namespaces import inode
from labkit.lessons import patients
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.lessons.patients import PATIENTS, STEPS, Bundle
from labkit.runtime.life import store, verbs

SECONDS = 60.0  # for one start


def check(heal: Callable[[str, dict[str, Any]], Any], lab: Ground) -> None:
    """Make each of the six, let it be healed, and start it."""
    engine, learner = lab.child("engine"), lab.child("learner")
    pod = engine.spawn("unshare", "--net", "sleep", "infinity")
    lab.until(lambda: inode("net", pod) != inode("net", engine.pid), SECONDS)
    for name, patient in PATIENTS.items():
        bundle = Bundle(lab.folder(), pod, lab.number(1000, 9999), lab.token(), lab.number(20, 900))
        patients.write(name, bundle)
        document = answer(name, learner.do(heal, name, bundle.config))
        (bundle.folder / "config.json").write_text(document)
        identifier = f"{name}-{lab.token()}"
        said = Child.do(engine, start, str(bundle.folder), identifier, limit=2 * SECONDS)
        try:
            if said:
                raise Wrong(f"{name}: it still does not start: {said}")
            if seen := patient.seen(sleeper(name, bundle, identifier, lab), bundle, setting):
                raise Wrong(f"{name}: it starts, but {seen}")
        finally:
            Child.do(engine, forget, str(bundle.folder), identifier, limit=SECONDS)


def answer(name: str, given: Any) -> str:
    """The document as JSON, when the step is right. Raises Wrong."""
    if not isinstance(given, tuple | list) or [type(one) for one in given] != [str, dict]:
        raise Wrong(f"{name}: heal(name, config) gives {type(given).__name__}, and not a pair of a step and a document, "
                    'such as ("limited", config)')  # fmt: skip
    step, config = given
    if step not in STEPS:
        raise Wrong(f"{name}: there is no step {step!r} in a birth, but {', '.join(STEPS)}")
    dies = PATIENTS[name].step
    if step != dies:
        before = STEPS.index(step) < STEPS.index(dies)
        how = "makes that step, and goes on" if before else "does not come so far"
        raise Wrong(f"{name}: it does not die at {step!r}: a birth of it {how}")
    try:
        return json.dumps(config)
    except (TypeError, ValueError) as error:
        raise Wrong(f"{name}: the document cannot be written as JSON: {error}") from None


def start(folder: str, identifier: str) -> str:
    """In a child: `labkit-runtime run --detach`; what went wrong, on one line."""
    said = Path(folder, "said")
    words = [sys.executable, "-m", "labkit.runtime.life.command", "--root", f"{folder}/state", "run", "--detach",
             "--bundle", folder, identifier]  # fmt: skip
    with said.open("w") as file:  # no pipe: the container holds it, too
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"labkit-runtime did not end within {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    text = " ".join(said.read_text().split()).removeprefix("labkit-runtime run: ")
    return text or f"labkit-runtime ended with {done.returncode}"


def forget(folder: str, identifier: str) -> None:
    """In a child: delete --force."""
    verbs.delete(store.Store(f"{folder}/state"), identifier, force=True)


def sleeper(name: str, bundle: Bundle, identifier: str, lab: Ground) -> int:
    """The pid of the container's first process, once its program sleeps. Raises Wrong."""
    state = json.loads((bundle.folder / "state" / identifier / "state.json").read_text())
    pid = int(state["pid"])
    lab.until(lambda: sleeps(pid, bundle.seconds) or not lives(pid), SECONDS,
              f"{name}: it runs, and its program is not `sleep {bundle.seconds}`")  # fmt: skip
    if not lives(pid):
        raise Wrong(f"{name}: it starts, and has ended at once: its state is stopped")
    return pid


def lives(pid: int) -> bool:
    """Whether the process is there, and not dead and unwaited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def sleeps(pid: int, seconds: int) -> bool:
    """Whether this process, or a child that it has started, is `sleep SECONDS`."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = [Path(f"/proc/{one}/cmdline").read_text().split("\0")[:-1] for one in (pid, *children)]
    except OSError:
        return False
    return any(len(one) == 2 and Path(one[0]).name == "sleep" and one[1] == str(seconds) for one in found)


def setting(pid: int, key: str) -> str:
    """A kernel setting as it is in the network namespace of a process."""
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", "cat", f"/proc/sys/{key.replace('.', '/')}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
