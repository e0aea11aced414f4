"""The house's rules, over every file that is in it: size, header, one-way imports, nothing private."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path

import house_rules
import pytest

from labkit.cli import VERBS

TREE = Path(__file__).resolve().parent.parent
LIMIT = 500  # lines a file
# Small modules with nothing of the kernel's or of a specification behind them.  This list may only shrink.
WITHOUT_FULL_HEADER = {
    "labkit.__main__",
    "labkit.cli",
    "labkit.paths",
    "labkit.runtime.commands",
    "labkit.runtime.launch",
}
# `labkit run` and every child of it pay for what the package itself imports.
BARE = "import sys; before = set(sys.modules); import labkit; print(sorted(set(sys.modules) - before))"


def tracked(*patterns: str) -> list[Path]:
    """The files of the project that git knows, or would if asked; without git, those that are there."""
    words = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard", "--", *patterns]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True)
    assert done.returncode == 0, f"git cannot list the files: {done.stderr}"
    found = [TREE / name for name in done.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


def modules() -> list[tuple[str, str, bool]]:
    """(dotted name, text, whether it is a package) of each module of labkit."""
    found = []
    for path in tracked("labkit/*.py"):
        if path.parent.parent.name == "tasks":  # the cells and answers of an exercise are no modules
            continue
        names = list(path.relative_to(TREE).with_suffix("").parts)
        package = names[-1] == "__init__"
        found.append((".".join(names[:-1] if package else names), path.read_text(), package))
    assert len(found) > 50
    return found


def test_no_file_is_long() -> None:
    """A file has one idea: no Python file has more than LIMIT lines."""
    files = [*tracked("labkit/*.py"), *tracked("tests/*.py"), *tracked("bench/*.py")]
    lines = {str(path.relative_to(TREE)): path.read_text().count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > LIMIT} == {}


def test_each_module_says_its_floor_what_it_owns_and_what_to_read() -> None:
    """A module's docstring begins with its floor, and has Owns: and Read:."""
    said = [line for name, text, package in modules() for line in house_rules.headless(name, text, package=package)
            if not (name in WITHOUT_FULL_HEADER and not line.endswith("its floor"))]  # fmt: skip
    assert said == []


def test_no_module_is_excused_in_vain() -> None:
    """A module that has its header by now is not on the list of those without."""
    lacking = {name for name, text, package in modules() if house_rules.headless(name, text, package=package)}
    assert lacking >= WITHOUT_FULL_HEADER


def test_imports_point_one_way() -> None:
    """No module imports a higher floor, in a function or a condition neither."""
    assert [line for name, text, package in modules() for line in house_rules.upward(name, text, package=package)] == []


def test_the_verbs_are_there() -> None:
    """Each verb of the command names a module and a function in it, and all that must not change are among them."""
    texts = {name: text for name, text, _ in modules()}
    for verb, (place, _) in VERBS.items():
        module, _, function = place.partition(":")
        assert module in texts, f"labkit {verb}: there is no {module}"
        assert re.search(rf"^def {function}\(", texts[module], re.MULTILINE), f"labkit {verb}: no {function} there"
    assert {"run", "ps", "exec", "reset", "doctor", "guest", "lab"} <= set(VERBS)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("labkit.kernel.mounts", "from labkit.image import store"),
        ("labkit.kernel.mounts", "def f():\n    import labkit.runtime.run"),
        ("labkit.image.store", "if True:\n    from labkit.network.bridge import x"),
        ("labkit.image.store", "from ..runtime import run"),
        ("labkit.image.store", "from labkit import cli"),
        ("labkit.draw.svg", "from labkit.errors import LabError"),
        ("labkit.observe.census", "from labkit.runtime import state"),
        ("labkit.runtime.run", "from labkit.lab import state"),
        ("labkit.runtime.run", "import importlib\nimportlib.import_module('labkit.lab.state')"),
        ("labkit.errors", "from labkit import paths"),
        ("labkit.cellar.wine", "import os"),
    ],
)
def test_an_upward_import_is_refused(module: str, text: str) -> None:
    """The check of the floors sees an upward import however it is written, and a part that is on no floor."""
    assert len(house_rules.upward(module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("labkit.kernel.mounts", "from labkit import paths\nfrom . import syscalls\nimport os"),
        ("labkit.runtime.run", "from labkit.image import store\nfrom labkit.observe import census"),
        ("labkit.lab.doctor", "from labkit.draw import svg"),
    ],
)
def test_a_downward_import_is_allowed(module: str, text: str) -> None:
    """The check of the floors lets a module import what lies below it."""
    assert house_rules.upward(module, text) == []


@pytest.mark.parametrize("text", ['"""Floor 2: wrong.\n\nOwns: a\nRead: b\n"""', '"""Floor 1: x."""', "x = 1"])
def test_a_module_without_a_header_is_refused(text: str) -> None:
    """The check of the headers sees a wrong floor, a missing Owns: or Read:, and no docstring at all."""
    assert house_rules.headless("labkit.kernel.mounts", text) != []


def test_importing_labkit_imports_nothing() -> None:
    """`import labkit` loads the package's own file and no other module."""
    done = subprocess.run([sys.executable, "-c", BARE], cwd=TREE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['labkit']"


def test_the_command_starts_without_anything_heavy() -> None:
    """Printing the list of verbs imports none of the modules that cost milliseconds."""
    script = "import sys; from labkit.cli import main; main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=TREE, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"subprocess", "argparse", "json", "asyncio", "ssl", "urllib.request", "tarfile", "numpy", "matplotlib"}
    assert loaded & heavy == set()


# A home or a working folder of whoever wrote this; the two users of the lab's own machine are documented.
HOMES = re.compile(r"(?<![\w.$}])/(?:home/(?!learner\b|vagrant\b)[a-z]\w*|work/\w+|tmp/w/\w+|Users/\w+|root/\.\w+)")
ADDRESS = re.compile(r"(?<![\d.\w/-])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
SECRETS = re.compile(r"gh[pousr]_\w{30}|glpat-[\w-]{20}|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{10}|sk-[\w-]{32}"
                     r"|BEGIN (?:OPENSSH |RSA |EC )?PRIVATE KEY|token=[0-9a-f]{20}")  # fmt: skip
HOST = re.compile(r"https?://(?:[^/\s@\"']+@)?([A-Za-z0-9.-]+\.[A-Za-z]{2,})(?=[:/\s\"')>,]|$)")
# Names that everybody may know; a mirror or a registry of one company is not among them.
PUBLIC = ("github.com", "githubusercontent.com", "opencontainers.org", "json-schema.org", "hashicorp.com", "docker.com",
          "docker.io", "debian.org", "ubuntu.com", "kernel.org", "python.org", "jupyter.org", "nginx.org", "nginx.com",
          "w3.org", "freedesktop.org", "man7.org", "apache.org", "vagrantup.com", "conda-forge.org", "qemu.org",
          "example.org", "example.com", "virtualbox.org", "keepachangelog.com", "semver.org")  # fmt: skip


def private(text: str) -> list[str]:
    """What a text holds that belongs to one machine or one person."""
    found = [match[0] for match in [*HOMES.finditer(text), *SECRETS.finditer(text)]]
    for match in ADDRESS.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:  # 1.2.3.999 is a test's bad input
            continue
        # Loopback, link-local, documentation, and the private ranges that containers and tests use.
        if address.is_global:
            found.append(match[0])
    for match in HOST.finditer(text):
        name = match[1].lower()
        if not any(name == known or name.endswith(f".{known}") for known in PUBLIC):
            found.append(match[0])
    return found


def test_nothing_private_is_in_the_tree() -> None:
    """No file holds a home of the writer's, an address of the internet, a mirror's name or a secret."""
    found = {}
    for path in tracked():
        content = path.read_bytes()
        # This file's own examples are what it looks for.
        if b"\0" not in content and path != Path(__file__).resolve() and (said := private(content.decode())):
            found[str(path.relative_to(TREE))] = said
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["/home/anna/lab", "cd /work/main", "/tmp/w/x", "/root/.cache/labkit", "see 93.184.216.34", "ghp_" + "a" * 36,
     "http://mirror.corp.test/debian", "https://user:word@registry.corp.test/v2/", "lab?token=" + "0f" * 16],
)  # fmt: skip
def test_private_things_are_seen(text: str) -> None:
    """The check sees what it is made to see."""
    assert private(f"x {text} y") != []


@pytest.mark.parametrize(
    "text",
    ["/home/learner", "127.0.0.1:8888", "192.0.2.1", "172.30.0.0/24", "https://github.com/x/y", "$HOME/work/x",
     "http://127.0.0.1:5000/v2/", "/root", "version 1.2.3"],
)  # fmt: skip
def test_public_things_are_let_through(text: str) -> None:
    """The check does not see what is not private."""
    assert private(f"x {text} y") == []


def test_no_leftover_is_tracked() -> None:
    """Git holds no cache, log, disk or compiled file, and executed notebooks in notebooks/ alone."""
    words = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(words, cwd=TREE, capture_output=True, text=True, check=True).stdout.split("\0")
    left = re.compile(r"(^|/)(__pycache__|\.ipynb_checkpoints|\.lab|\.venv|\.vagrant|lab-keepsakes|nohup\.out)(/|$)"
                      r"|\.(pyc|log|img|qcow2|box|tar|swp|orig|rej)$|~$")  # fmt: skip
    assert [name for name in names if left.search(name)] == []
    assert [name for name in names if name.endswith(".ipynb") and not name.startswith("notebooks/")] == []
    for name in (name for name in names if name.endswith(".ipynb")):
        document = json.loads((TREE / name).read_text())
        assert all(cell["cell_type"] != "code" or cell["execution_count"] for cell in document["cells"]), name


def test_make_help_lists_every_target() -> None:
    """`make help` names each target that the Makefile has, and what `make lab` understands."""
    text = (TREE / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (help .*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    rules = set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, re.MULTILINE))
    assert rules == targets >= {"help", "lab", "test", "down", "bench", "arm64"}
    said = subprocess.run(["make", "help"], cwd=TREE, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  ([a-z][a-z0-9-]*)  +\S", said, re.MULTILINE)) == targets
    assert all(word in said for word in ("PORT=", "PUBLISH_PORT=", "MEMORY=", "CPUS=", "FRESH=1", "WHERE=here"))


def test_make_alone_is_make_help() -> None:
    """`make` without a target starts nothing: it prints the help."""
    both = [subprocess.run(words, cwd=TREE, capture_output=True, text=True, check=True).stdout
            for words in (["make"], ["make", "help"])]  # fmt: skip
    assert both[0] == both[1]
