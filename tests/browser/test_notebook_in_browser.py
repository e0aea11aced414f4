"""Notebook 00 as a learner has it: JupyterLab, opened at the address that `make lab` prints, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TREE = Path(__file__).resolve().parents[2]
LIMIT = 420_000  # milliseconds; under emulation a whole notebook takes two minutes
NOTEBOOK = "notebooks/00_the_lab_and_its_kernel.ipynb"


def address() -> str:
    """What `make lab` prints when the lab runs."""
    done = subprocess.run([sys.executable, "-m", "labkit", "lab", "up"], cwd=TREE, capture_output=True, text=True)
    found = re.search(r"http://127\.0\.0\.1:\S+", done.stdout)
    assert found, done.stdout + done.stderr
    return found[0]


def choose(page: Any, menu: str, entry: str) -> None:
    """Click through a menu, as a person would: a dialog in the way is an error."""
    page.wait_for_timeout(2000)
    assert page.locator(".jp-Dialog-content").all_inner_texts() == []
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:text-is('{entry}')")


def failed(cells: list[Any]) -> list[Any]:
    """The errors that the cells ended with; Run All stops at the first."""
    return [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]


def saved_as(page: Any, true_of: Callable[[list[Any]], object]) -> list[Any]:
    """Save until `true_of` the saved notebook's code cells; return them. Fails after LIMIT."""
    until = time.monotonic() + LIMIT / 1000
    while time.monotonic() < until:
        page.wait_for_timeout(2000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        try:
            saved = json.loads((TREE / NOTEBOOK).read_text())
        except ValueError:
            continue  # half written
        cells = [cell for cell in saved["cells"] if cell["cell_type"] == "code"]
        if true_of(cells):
            return cells
    page.screenshot(path=TREE / ".lab" / "screenshots" / "stuck.png")
    raise AssertionError(f"the notebook has not come so far in {LIMIT / 1000:.0f} s: see .lab/screenshots/stuck.png")


def shoot(page: Any, folder: Path) -> None:
    """The notebook from top to bottom, a screen at a time."""
    page.mouse.move(800, 500)
    page.mouse.wheel(0, -100_000)
    for number in range(12):
        page.wait_for_timeout(700)
        page.screenshot(path=folder / f"notebook-00-{number:02}.png")
        page.mouse.wheel(0, 780)


def test_run_all_finishes_without_an_error() -> None:
    """The printed address opens notebook 00; Run All Cells ends with every code cell run and no error shown."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no Chromium here: apt-get install chromium"
    saved = (TREE / NOTEBOOK).read_bytes()
    shots = TREE / ".lab" / "screenshots"
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(LIMIT)
            page.goto(address())
            # The menus work before the notebook is there, and do nothing then.
            page.get_by_role("heading", name="The lab and its kernel").wait_for()
            page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle")).wait_for()
            # What was committed is shown at first: only a cleared notebook can prove that it was run.
            choose(page, "Edit", "Clear Outputs of All Cells")
            saved_as(page, lambda cells: not any(cell["execution_count"] or cell["outputs"] for cell in cells))
            choose(page, "Run", "Run All Cells")
            cells = saved_as(page, lambda cells: failed(cells) or all(cell["execution_count"] for cell in cells))
            assert failed(cells) == []
            pictures = sum("image/svg+xml" in output.get("data", {}) for cell in cells for output in cell["outputs"])
            assert pictures == 3
            shoot(page, shots)
            browser.close()
    finally:
        # JupyterLab saves by itself; what was committed is what stays.
        (TREE / NOTEBOOK).write_bytes(saved)
    assert len(list(shots.glob("notebook-00-*.png"))) == 12


def test_a_stranger_is_refused() -> None:
    """Without the token JupyterLab shows its login page and no notebook."""
    import urllib.error
    import urllib.request

    base = address().partition("/lab")[0]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{base}/api/contents", timeout=60)
    assert refused.value.code == 403
    refused.value.close()
