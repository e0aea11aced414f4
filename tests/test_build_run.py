"""Does RUN run as Docker's does, in a container of labkit run's; does what goes wrong point at its line?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from build_ground import BASE, Ground
from runtime_ground import IMAGE, child, in_a_machine, until

from labkit.image import collect

pytest_plugins = ["runtime_machine", "build_machine"]
pytestmark = in_a_machine


def said(ground: Ground, lines: str, *options: str, **files: str) -> list[str]:
    """What the RUN lines print, without the progress around it."""
    done = ground.build(BASE + lines, dict(files), "-t", "app", "--no-cache", *options)
    assert done.returncode == 0, done.stderr
    numbered = [line.split(" ", 2) for line in done.stderr.splitlines() if line.startswith("#")]
    return [words[2] for words in numbered if len(words) == 3 and words[1].replace(".", "").isdigit()
            and "bytes" not in words[2] and not words[2].endswith(" done")]  # fmt: skip


# --- what a command meets ----------------------------------------------------------------


def test_a_command_meets_what_the_lines_before_it_set(ground: Ground) -> None:
    """Variables, arguments, folder, user; and of labkit run: a host name, an init, no capability more."""
    lines = 'ENV A=1\nARG B=2\nWORKDIR /w\nUSER 33\nRUN echo "$A $B $C $(pwd) $(id -u):$(id -g)"\n'
    assert said(ground, lines + "RUN hostname; cat /proc/1/comm\n") == ["1 2  /w 33:33", "labkit-build", "labkit-init"]
    mask = said(ground, "RUN grep CapBnd /proc/self/status\n")[0].split()[-1]
    same = ground.machine.said("grep CapBnd /proc/self/status").split()[-1]
    assert mask == same


def test_a_command_has_a_network_of_its_own_or_none(ground: Ground) -> None:
    """RUN --network=none has the loopback alone; host is the machine's; the default is what --network says."""
    count = "RUN ls /sys/class/net | wc -w\n"
    here = len(ground.machine.sh("ls", "/sys/class/net").stdout.split())
    lines = count + count.replace("RUN", "RUN --network=none") + count.replace("RUN", "RUN --network=host")
    assert said(ground, lines) == ["1", "1", str(here)]
    assert said(ground, count + "RUN ip route | grep -c default\n", "--network", "bridge") == ["2", "1"]


def test_proxies_reach_a_command_and_nothing_else(ground: Ground) -> None:
    """A predefined ARG is in the environment of RUN, neither in the image nor in its history, nor in the key."""
    lines = "RUN echo $HTTP_PROXY\n"
    assert said(ground, lines, "--build-arg", "HTTP_PROXY=http://p") == ["http://p"]
    image = ground.image()
    assert "http://p" not in json.dumps([dict(image.config.config), *map(dict, image.config.history)])
    done = ground.built(BASE + lines, None, "--build-arg", "HTTP_PROXY=other")
    assert [step["cached"] for step in done["steps"]] == [True]


def test_shells_and_here_documents(ground: Ground) -> None:
    """The exec form needs no shell; SHELL is used; a here-document is a script, or a file of the shell's."""
    lines = (
        'RUN ["echo", "$HOME"]\nSHELL ["sh", "-ec"]\nRUN <<EOF\necho one\nfalse || echo two\nEOF\n'
        "RUN <<EOF\n#!/bin/cat\nthree\nEOF\nRUN cat <<A - <<-B\nfour\nA\n\tfive\nB\nRUN cat <<'Q'\n$HOME\nQ\n"
    )
    found = said(ground, lines)
    assert found[:5] == ["$HOME", "one", "two", "#!/bin/cat", "three"] and found[-1] == "$HOME" and "five" in found


def test_what_a_base_image_asks_for_is_done(ground: Ground, tmp_path: Path) -> None:
    """ONBUILD is kept by one build, done by the next, and not inherited further."""
    ground.built(BASE + "ONBUILD COPY f /f\nONBUILD RUN cat /f > /g\n", {"f": "f"}, "-t", "localhost:5000/onbuild")
    assert ground.config("localhost:5000/onbuild")["OnBuild"] == ["COPY f /f", "RUN cat /f > /g"]
    done = ground.built("FROM localhost:5000/onbuild\nRUN test -f /g\n")
    assert "ONBUILD RUN cat /f > /g" in done["said"] and "OnBuild" not in ground.config()
    assert {"f", "g"} <= set(ground.files(tmp_path / "root"))


def test_the_image_runs(ground: Ground) -> None:
    """labkit run takes it by its name, with its command, its user and its folder."""
    ground.built(BASE + 'WORKDIR /w\nRUN echo made > f\nUSER 7\nCMD ["sh", "-c", "id -u; cat f"]\n', {})
    assert ground.machine.run("app").stdout == "7\nmade\n"


def test_a_long_output_comes_whole(ground: Ground) -> None:
    """Ten thousand lines, and a last one without an end."""
    found = said(ground, "RUN seq 10000 && printf last\n")
    assert (len(found), found[0], found[-2], found[-1]) == (10_001, "1", "10000", "last")


# --- what goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(("lines", "line", "words", "status"), [
    ("RUN echo out; echo err >&2; exit 3", 2, ["the command failed", "status 3", "out", "err"], 3),
    ("RUN kill -9 $$", 2, ["signal 9 ended it"], 137),
    ("RUN /no/such", 2, ["the command failed", "status 127", "not found"], 127),
    ('RUN ["/no/such"]', 2, ["there is no program '/no/such'"], 127),
    ("USER nobodyknows\nRUN id", 3, ["no user 'nobodyknows'"], 1),
    ("COPY gone /x", 2, ["there is no 'gone' to copy", "the context"], 1),
    ("COPY g* /x", 2, ["no file is meant by g*"], 1),
    ("COPY a b /x", 2, ["several sources need a folder"], 1),
    ("COPY --from=bulid /x /y", 2, ["there is no stage 'bulid'", "stages: "], 1),
    ("COPY --from=0 /x /y", 2, ["copies from its own stage"], 1),
    ("RUN mkdir -p /d/a\nCOPY a /d", 3, ["a file cannot be copied onto the folder a"], 1),
    ("COPY --chown=nobodyknows a /x", 2, ["no user 'nobodyknows'"], 1),
    ("COPY --chmod=u+x a /x", 2, ["--chmod=u+x is no mode"], 1),
    ('ENV A="${B:?set it}"', 2, ["the variable B must be set", "set it"], 1),
    ("RUNN x", 2, ["no instruction RUNN", "perhaps RUN is meant"], 1),
])  # fmt: skip
def test_an_error_points_at_its_line(lines: str, line: int, words: list[str], status: int, ground: Ground) -> None:
    """File, line, the line itself, why; the status of a failed command is the build's; no image is named."""
    done = ground.build(BASE + lines + "\n", {"a": "a", "b": "b"}, "-t", "never")
    assert done.returncode == status, done.stderr
    message = done.stderr.partition("labkit build: ")[2]
    assert message.startswith(f"Dockerfile:{line}: ") and f"{line:>6} | {lines.splitlines()[line - 2]}" in message
    assert all(word in message for word in words), message
    assert ground.store.find("never") is None and "Traceback" not in done.stderr


def test_a_missing_base_is_named(ground: Ground) -> None:
    """FROM a stage that comes later, or an image that nobody has, with its line."""
    done = ground.build("FROM later\nFROM busybox AS later\n", {}, "--target", "0")
    assert done.returncode == 1 and "Dockerfile:1: " in done.stderr
    assert "the stage later begins in line 2, not before this one" in done.stderr


def test_what_the_command_line_lacks_is_said(ground: Ground, tmp_path: Path) -> None:
    """No Dockerfile, no context, an unknown target, no ARG for a --build-arg."""
    (tmp_path / "empty").mkdir()
    done = ground.machine.labkit("build", str(tmp_path / "empty"))
    assert done.returncode == 1 and "cannot read" in done.stderr and "--file" in done.stderr
    done = ground.build(BASE, {}, "--target", "x")
    assert done.returncode == 1 and "no stage 'x'" in done.stderr
    assert "no ARG names the --build-arg X" in ground.built(BASE + "RUN true\n", {}, "--build-arg", "X=1")["said"]


def test_the_steps_before_a_failure_are_kept(ground: Ground) -> None:
    """The next build begins where this one ended."""
    text = BASE + "RUN echo kept > /k\nRUN {}\n"
    assert ground.build(text.format("false"), {}).returncode == 1
    assert [step["cached"] for step in ground.built(text.format("true"))["steps"]] == [True, False]


def test_a_full_disk_leaves_nothing_half(ground: Ground, tmp_path: Path) -> None:
    """The layers' disk full in the middle of a step: what, on which line, what to do; the next build completes."""
    layers = ground.machine.data / "layers"
    layers.mkdir(exist_ok=True)
    ground.machine.sh("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(layers), check=True)
    try:
        for line in ("COPY big /big", "RUN dd if=/dev/zero of=/big bs=1M count=20"):
            done = ground.build(BASE + line + "\n", {"big": b"\0" * (20 << 20)})
            assert done.returncode == 1 and "Dockerfile:2: " in done.stderr, done.stderr
            assert "No space left on device" in done.stderr
            seen = ground.machine.sh("ls", "-A", str(layers)).stdout.split()
            assert len(seen) == 1 and not seen[0].startswith(".")  # the base image's
        assert ground.build(BASE + "RUN echo small > /s\n", {}).returncode == 0
    finally:
        ground.machine.sh("umount", str(layers), check=True)
    assert list(collect.verify(ground.store)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_build_and_gives_all_back(number: int, ground: Ground) -> None:
    """128 and its number; the command is gone with it, and nothing of the step stays."""
    ground.build(BASE + "RUN echo up; sleep 1000\n", {}, "--target", "nothing")
    words = [sys.executable, "-m", "labkit", "build", "--network", "none", "--progress", "plain", str(ground.folder)]
    machine = ground.machine
    running = subprocess.Popen(machine.words(*words), env=machine.environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    until(lambda: " up" in (running.stderr.readline() if running.stderr else ""))
    machine.sh("kill", f"-{number}", str(_inner(machine, child(running))))
    running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert not [path for path in (machine.data / "layers").iterdir() if path.name.startswith(".")]
    assert machine.sh("pgrep", "-f", "sleep 1000").returncode == 1


def _inner(machine: object, pid: int) -> int:
    """The pid of a process as its own namespace numbers it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def test_another_platform_is_asked_for(ground: Ground) -> None:
    """--platform that the base image in the store has not: its registry is asked, and the error has the line."""
    done = ground.build(f"FROM --platform=linux/s390x {IMAGE}\nRUN true\n", {})
    assert done.returncode == 1 and "Dockerfile:1: " in done.stderr
    built = ground.built(
        "ARG TARGETARCH\n" + BASE + "ARG TARGETARCH\nARG BUILDPLATFORM\nRUN echo $TARGETARCH > /t\n", {}
    )
    assert f"TARGETARCH={ground.image().config.architecture}" in built["steps"][0]["created_by"]
