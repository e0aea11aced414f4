"""SIGKILL while networks are made, changed and removed: a reset gives all back, and the next attempt completes."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine, needs_root

pytestmark = needs_root

# The victim counts the calls and returns at which something is written or asked for, and dies at one of them.
KILLED = """
from labkit.network import networks, plan
STEPS = {"request", "apply", "_append", "save", "write_text", "rename", "unlink", "remove", "_execute_child"}
VICTIM = '''
import os, signal, sys
from labkit.kernel import nftables
from labkit.kernel.ledger import Ledger
from labkit.network import bridge, dns_service, networks
action, pid, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
identifier = "c1" * 32
wish = networks.Wish("shop", ipv6=True)
before = {"create": 0, "connect": 1, "disconnect": 2, "remove": 1}[action]
if before >= 1:
    networks.create(wish)
if before >= 2:
    networks.connect("shop", identifier, pid)
count = 0
def watch(frame, event, argument):
    global count
    if event in ("call", "return") and frame.f_code.co_name in STEPS:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(watch)
if action == "create":
    networks.create(wish)
elif action == "connect":
    networks.connect("shop", identifier, pid)
elif action == "disconnect":
    networks.disconnect("shop", identifier, pid)
else:
    networks.remove("shop")
sys.setprofile(None)
print(count)
'''.replace("STEPS", repr(STEPS))

def strike(action, pid, at):
    child = subprocess.run([sys.executable, "-c", VICTIM, action, str(pid), str(at)], capture_output=True, text=True)
    return child.returncode, child.stdout, child.stderr

before = census()
"""


@pytest.mark.parametrize("action", ["create", "connect", "disconnect", "remove"])
def test_killed_at_seeded_moments_a_reset_gives_all_back(tmp_path: Path, action: str) -> None:
    """Links, rules, routes, forwarding, plans and ledgers are as before; a second reset finds nothing."""
    moments = in_machine(
        tmp_path,
        f"action = {action!r}"
        + KILLED
        + """
import random
pid = new_namespace()
code, out, err = strike(action, pid, 0)
assert code == 0, err
total = int(out)
reset()
assert census() == before
for at in sorted(random.Random(3).sample(range(1, total + 1), min(8, total))):
    pid = new_namespace()
    code, out, err = strike(action, pid, at)
    assert code == -9, (at, code, err)
    reset()
    assert census() == before, ("after a kill at moment", at, census(), before)
    assert not list(all_ledgers()) and not plan.load_all(), at
say(total)
""",
        timeout=300,
    )
    assert moments > 10


def test_killed_while_creating_the_next_attempt_completes_it(tmp_path: Path) -> None:
    """Beside another network, and without a reset: the second try makes a whole network, and no subnet stays behind."""
    in_machine(
        tmp_path,
        KILLED
        + """
networks.create(networks.Wish("first"))
beside = census()
for _ in range(2):  # forwarding stays on with the first network, so that the second try has fewer steps
    code, out, err = strike("create", 0, 0)
    assert code == 0, err
    total = int(out)
    networks.remove("shop")
    assert census() == beside
for at in range(1, total + 1, max(total // 8, 1)):
    code, out, err = strike("create", 0, at)
    assert code == -9, (at, err)
    if not plan.load("shop").subnet:
        networks.create(networks.Wish("shop"))
    found = [item["set"] for item in nftables.ruleset("inet", "labkit") if "set" in item]
    sets = {each["name"]: each.get("elem") for each in found}
    assert sorted(sets["bridges"]) == ["first", "shop"] and len(sets["sources4"]) == 2, (at, sets)
    networks.remove("shop")
    left, were = census(), beside
    assert left[:3] == were[:3], (at, left, were)
""",
        timeout=300,
    )
