"""Top floor: the doctor's probes, each tried in a throw-away process.

    python -P -m labkit.lab.doctor_probes [NAME...]

Owns: the table of probes, one fork a probe, its time limit, and what a probe that dies or
hangs is reported as.  One interpreter forks them all, because starting Python costs a
second in an emulated machine and a fork does not.  What a killed probe left is given back
here, by its name; what this process left when it was killed itself, by the next one.
The one lasting effect: the kernel may load a module (veth, overlay) that a probe asks for.

Read: fork(2), setsid(2), waitpid(2), PR_SET_PDEATHSIG in prctl(2).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError
from labkit.kernel import process

NATIVE_START = 0.15  # seconds from exec to the table on a machine that is not emulated
NATIVE_LIMIT = 10.0  # seconds a probe may take there


class Seen(NamedTuple):
    """What one probe saw: state is "ok", "limited" or "missing"; remedy is empty for the usual one."""

    state: str
    found: str
    remedy: str = ""


class Probe(NamedTuple):
    """One probe: the findings it answers for, and the function, which gives key: Seen."""

    keys: tuple[str, ...]
    run: Callable[[], dict[str, Seen]]


def table() -> dict[str, Probe]:
    """Every probe by name, those that take longest first."""
    from labkit.lab import doctor_probes_cgroups as cgroups
    from labkit.lab import doctor_probes_files as files
    from labkit.lab import doctor_probes_machine as machine
    from labkit.lab import doctor_probes_namespaces as namespaces
    from labkit.lab import doctor_probes_network as network
    from labkit.lab import doctor_probes_observe as observe
    from labkit.lab import doctor_probes_security as security
    from labkit.lab import doctor_probes_tools as tools

    modules = (tools, network, security, observe, cgroups, files, namespaces, machine)
    return {name: probe for module in modules for name, probe in module.PROBES.items()}


def why(error: BaseException) -> str:
    """An error in one phrase: the errno's words, or our own error's cause."""
    if isinstance(error, LabError):
        return (error.why or error.what).partition("\n")[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def limit() -> float:
    """Seconds a probe may take here: longer in proportion where Python itself starts slowly."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
    started = ticks / os.sysconf("SC_CLK_TCK")
    slowness = (time.clock_gettime(time.CLOCK_BOOTTIME) - started) / NATIVE_START
    return NATIVE_LIMIT * min(max(slowness, 1.0), 12.0)


def run(probes: dict[str, Probe], seconds: float) -> dict[str, Seen]:
    """Run all probes, one a processor at a time; every key of every probe gets an answer."""
    waiting = list(probes.values())
    running: dict[int, Running] = {}  # by the read end of its pipe
    answers: dict[str, Seen] = {}
    with selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and len(running) < max(2, os.cpu_count() or 1):
                child = _start(waiting.pop(0), seconds)
                running[child.pipe] = child
                selector.register(child.pipe, selectors.EVENT_READ)
            soonest = min(child.deadline for child in running.values())
            selector.select(max(0.0, soonest - time.monotonic()))
            for child in list(running.values()):
                if child.is_over():
                    selector.unregister(child.pipe)
                    del running[child.pipe]
                    answers |= child.answer(seconds)
    return answers


class Running:
    """A probe's process, what it has said so far, and when its time is up."""

    def __init__(self, probe: Probe, pid: int, pipe: int, deadline: float) -> None:
        self.probe, self.pid, self.pipe, self.deadline = probe, pid, pipe, deadline
        self.text = b""
        self.late = False

    def is_over(self) -> bool:
        """Take in what it says; whether it has said all, has ended, or is out of time."""
        while True:
            try:
                piece = os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                self.late = time.monotonic() >= self.deadline
                return self.late
            if not piece:
                return True
            self.text += piece

    def answer(self, seconds: float) -> dict[str, Seen]:
        """End its whole process group and give its findings, or the reason why there are none."""
        os.close(self.pipe)
        if self.late:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        try:
            os.killpg(self.pid, signal.SIGKILL)  # a child that it left behind
        except ProcessLookupError:
            pass
        try:
            found = {key: Seen(*words) for key, words in json.loads(self.text).items()}
        except ValueError:
            found = {}
        code = os.waitstatus_to_exitcode(status)
        ended = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"status {code}"
        reason = f"no answer in {seconds:.0f} s" if self.late else f"the probe ended with {ended} and no answer"
        return {key: found.get(key, Seen("missing", reason)) for key in self.probe.keys}


def _start(probe: Probe, seconds: float) -> Running:
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_end)
            os.setsid()
            process.die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            _child(probe, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    os.set_blocking(read_end, False)
    return Running(probe, pid, read_end, time.monotonic() + seconds)


def _child(probe: Probe, pipe: int) -> None:
    """Run the probe and write its answer: the end of this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    try:
        found = probe.run()
    except Exception as error:  # a probe's own mistake must not hide the other findings
        found = {key: Seen("missing", why(error)) for key in probe.keys}
    os.write(pipe, json.dumps(found).encode())
    os._exit(0)


def main(names: Iterable[str]) -> int:
    """Run the named probes, or all, and print {key: [state, found, remedy]}."""
    from labkit.lab import doctor_probes_leftovers as leftovers

    # Ctrl-C goes to the doctor in front; this process ends by itself, and tidily.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    wanted = list(names)
    probes = {name: probe for name, probe in table().items() if not wanted or name in wanted}
    leftovers.sweep(of_the_dead=True)
    try:
        answers = run(probes, limit())
    finally:
        leftovers.sweep(of_the_dead=False)
    try:
        print(json.dumps(answers), flush=True)
    except BrokenPipeError:
        return 141
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - a closed pipe must not complain at the very end
    sys.exit(status)
