"""The running lab, seen from the host's shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from labkit.lab import machine, state
from labkit.lab.state import Machine

TREE = Path(__file__).resolve().parents[2]
LABKIT = [sys.executable, "-P", "-m", "labkit"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TREE)}


class Lab:
    """The lab that runs, and its three ways in: guest exec, JupyterLab's interface, the published ports."""

    def __init__(self, record: Machine) -> None:
        self.record = record

    def start(self, *words: str, cwd: Path = TREE, **popen: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*LABKIT, "guest", "exec", "--", *words], cwd=cwd, env=ENVIRONMENT, **popen)

    def run(self, *words: str, stdin: bytes = b"", cwd: Path = TREE) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*LABKIT, "guest", "exec", "--", *words], cwd=cwd, env=ENVIRONMENT, input=stdin,
                              capture_output=True, timeout=240)  # fmt: skip

    def text(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.decode()

    def guest(self, *words: str, cwd: Path = TREE) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*LABKIT, "guest", *words], cwd=cwd, env=ENVIRONMENT, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=240)  # fmt: skip

    def ask(self, path: str, *, token: str | None = None, body: Any = None, method: str = "GET") -> tuple[int, bytes]:
        """One HTTP request to JupyterLab; (status, body)."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.record.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode())  # fmt: skip
        if token is not None:
            request.add_header("Authorization", f"token {token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until a shell script succeeds in the machine."""
        end = time.monotonic() + seconds
        while self.run("sh", "-c", script).returncode:
            assert time.monotonic() < end, f"not within {seconds} s: {script}"


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The running lab; without one these tests fail, since skipping them would prove nothing."""
    found = state.running()
    if found is None:
        pytest.fail("no lab of this checkout runs: make lab (LAB_NAME names another)", pytrace=False)
    assert machine.answers(found, 120), "the lab's JupyterLab does not answer: labkit guest log"
    return Lab(found)
