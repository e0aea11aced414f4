"""Top floor: the check of docker-flags.

Owns: what the kernel holds after the files were written as they were said, beside what it should hold.
Read: Docker's documentation of `docker run`, "Runtime constraints on resources"; cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Callable

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

UNIT = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
ALL = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")


def check(files: Callable[..., dict[str, str]], lab: Ground) -> None:
    """Write what the function says into new cgroups, and read what the kernel has made of it."""
    top = lab.cgroup()
    unit = "kmg"[lab.number(0, 2)]
    amount, more = lab.number(20, 90), lab.number(1, 80)
    if unit == "k":  # whole pages, and enough to be a limit at all
        amount, more = amount << 10, more << 10
    memory, both = f"{amount}{unit}", f"{amount + more}{unit}"
    swap = more * UNIT[unit]
    cpus, pids = lab.number(1, 30) / 4, lab.number(50, 5000)
    full = {"memory.max": str(amount * UNIT[unit]), "memory.swap.max": str(amount * UNIT[unit])}
    cases: list[tuple[dict[str, object], dict[str, str]]] = [
        ({"cpus": cpus, "pids_limit": pids}, {"cpu.max": f"{round(cpus * 100_000)} 100000", "pids.max": str(pids)}),
        ({"memory": memory}, full),
        ({"memory": memory, "memory_swap": both}, {**full, "memory.swap.max": str(swap)}),
        ({"memory": memory, "memory_swap": "-1"}, {**full, "memory.swap.max": "max"}),
        ({}, {}),
    ]
    for number, (options, wanted) in enumerate(cases):
        group = top / f"case-{number}"
        group.mkdir()
        new = {file: (group / file).read_text().strip() for file in ALL}
        said = lab.call(files, *[options.get(name) for name in ("memory", "memory_swap", "cpus", "pids_limit")])
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items()) or "no options"
        if not isinstance(said, dict):
            raise Wrong(f"{words}: files() gave back {said!r}, which is no dictionary")
        for file, text in said.items():
            if not (group / str(file)).exists():
                raise Wrong(f"{words}: a cgroup has no file {file!r}")
            try:
                (group / str(file)).write_text(str(text))
            except OSError as error:
                raise Wrong(f"{words}: {text!r} written into {file}: {error.strerror}") from error
        for file in ALL:
            held = (group / file).read_text().strip()
            if held != wanted.get(file, new[file]):
                raise Wrong(f"{words}: {file} holds {held}, and Docker's would hold {wanted.get(file, new[file])}")
