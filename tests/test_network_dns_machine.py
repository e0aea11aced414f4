"""The name service on a machine: who asks is dig and getent in a container's namespace, with other servers outside."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from dns_ground import on_network
from network_ground import needs_root

pytestmark = [
    *needs_root,
    pytest.mark.skipif(not shutil.which("dig"), reason="asks with dig: install bind9-dnsutils"),
]

TWO = """
made = network()
web, db = join(made, WEB, 2, "web", "www"), join(made, DB, 3, "db", "www", v6=False)
"""


def with_two(folder: Path, program: str) -> Any:
    """Run `program` on a machine with a network of two containers."""
    return on_network(folder, TWO + textwrap.dedent(program))


def test_containers_find_one_another(tmp_path: Path) -> None:
    """By name, alias and short id, forwards and backwards, by UDP and TCP, over IPv4 and IPv6."""
    answers = with_two(
        tmp_path,
        """
        asked = [["db"], ["web", "AAAA"], ["db", "AAAA"], ["www"], ["b2b2b2b2b2b2"], ["DB.shop"], ["nobody"],
                 ["-x", "172.29.0.3"], ["-x", "fd00:29::2"], ["-x", "172.29.0.9"], ["+tcp", "db"]]
        found = [dig(web, *words) for words in asked] + [dig(db, "web", server="fd00:29::1")]
        remove(made)
        say([[status, records] for status, flags, records in found])
        """,
    )
    assert answers == [
        ["NOERROR", [["A", "172.29.0.3"]]],
        ["NOERROR", [["AAAA", "fd00:29::2"]]],
        ["NOERROR", []],
        ["NOERROR", [["A", "172.29.0.2"], ["A", "172.29.0.3"]]],
        ["NOERROR", [["A", "172.29.0.3"]]],
        ["NOERROR", [["A", "172.29.0.3"]]],
        ["NXDOMAIN", []],
        ["NOERROR", [["PTR", "db.shop."]]],
        ["NOERROR", [["PTR", "web.shop."]]],
        ["NXDOMAIN", []],
        ["NOERROR", [["A", "172.29.0.3"]]],
        ["NOERROR", [["A", "172.29.0.2"]]],
    ]


def test_the_c_library_finds_them_with_our_resolv_conf(tmp_path: Path) -> None:
    """getent, as any program of a container does it: a name, an address, and a name that nobody has."""
    found = with_two(
        tmp_path,
        """
        file = Path(os.environ["LABKIT_RUN"]) / "resolv.conf"
        file.write_text(names.resolv_conf([made.gateway]))
        def getent(*words):
            return subprocess.run(["nsenter", "-t", str(web), "-n", "unshare", "-m", "sh", "-c",
                                   f"mount --bind {file} /etc/resolv.conf && exec getent \\"$@\\"", "sh", *words],
                                  capture_output=True, text=True)
        found = [getent("ahostsv4", "db"), getent("hosts", "172.29.0.3"), getent("ahosts", "nobody")]
        remove(made)
        say([[one.returncode, one.stdout.split()[:2]] for one in found])
        """,
    )
    assert found == [[0, ["172.29.0.3", "STREAM"]], [0, ["172.29.0.3", "db.shop"]], [2, []]]


def test_the_rest_comes_from_other_servers(tmp_path: Path) -> None:
    """UDP and TCP, a refusal as it is, a big answer cut by UDP and whole by TCP, and a second server for a dead one."""
    asked, after = with_two(
        tmp_path,
        """
        there, helper = upstream()
        resolv_conf("10.99.0.2")
        asked = [dig(web, *words) for words in (["x.example.org"], ["+tcp", "x.example.org"], ["refuse.example.org"],
                                                ["+ignore", "big.example.org", "TXT"], ["big.example.org", "TXT"])]
        resolv_conf("10.99.0.1", "10.99.0.2")
        began = time.monotonic()
        after = [dig(web, "y.example.org"), time.monotonic() - began]
        remove(made)
        say([[[status, "tc" in flags, len(records)] for status, flags, records in asked], after])
        """,
    )
    assert asked == [["NOERROR", False, 1], ["NOERROR", False, 1], ["REFUSED", False, 0],
                     ["NOERROR", True, 0], ["NOERROR", False, 10]]  # fmt: skip
    assert after[0][2] == [["A", "192.0.2.7"]] and after[1] < 1


def test_dead_and_lying_servers_are_told_within_seconds(tmp_path: Path) -> None:
    """SERVFAIL: at once where nobody listens or none is known, in under five seconds for silence and for lies."""
    answers = with_two(
        tmp_path,
        """
        there, helper = upstream()
        answers = []
        for servers, name in ([["10.99.0.2"], "silent.example.org"], [["10.99.0.2"], "liar.example.org"],
                              [["10.99.0.77"], "x.example.org"], [["10.99.0.1"], "x.example.org"],
                              [[], "x.example.org"], [["172.29.0.1"], "x.example.org"]):
            resolv_conf(*servers)
            began = time.monotonic()
            status = dig(web, name)[0]
            answers.append([status, time.monotonic() - began, dig(web, "db")[2]])
        remove(made)
        say(answers)
        """,
    )
    assert [status for status, _, _ in answers] == ["SERVFAIL"] * 6
    assert all(seconds < 5 for _, seconds, _ in answers[:3]) and all(seconds < 1 for _, seconds, _ in answers[3:])
    assert all(records == [["A", "172.29.0.3"]] for _, _, records in answers)


def test_no_question_goes_round(tmp_path: Path) -> None:
    """Two networks whose machine names both as its servers: REFUSED comes back at once, names are still served."""
    status, seconds, here, passed = with_two(
        tmp_path,
        """
        other = network("barn", 28)
        resolv_conf("172.29.0.1", "172.28.0.1")
        began = time.monotonic()
        status = dig(web, "x.example.org")[0]
        seconds = time.monotonic() - began
        here = dig(os.getpid(), "db")[2]  # the machine itself may ask for containers
        passed = dig(os.getpid(), "x.example.org")[0]
        remove(made), remove(other)
        say([status, seconds, here, passed])
        """,
    )
    assert (status, here, passed) == ("REFUSED", [["A", "172.29.0.3"]], "REFUSED")
    assert seconds < 2


def test_other_networks_learn_nothing(tmp_path: Path) -> None:
    """A container of another network reaches this server's address, and is refused; its own server knows its own."""
    answers = with_two(
        tmp_path,
        """
        other = network("barn", 28)
        cow = join(other, API, 2, "cow")
        answers = [dig(cow, "cow", server="172.28.0.1"), dig(cow, "db", server="172.28.0.1"), dig(cow, "db")]
        remove(made), remove(other)
        say(answers)
        """,
    )
    assert [[status, records] for status, _, records in answers] == [
        ["NOERROR", [["A", "172.28.0.2"]]], ["NXDOMAIN", []], ["REFUSED", []]]  # fmt: skip


def test_a_network_without_a_way_out_asks_nobody(tmp_path: Path) -> None:
    """Internal: names are served, other servers are not asked."""
    answers = on_network(
        tmp_path,
        """
        made = network(internal=True)
        web = join(made, WEB, 2, "web")
        there, helper = upstream()
        resolv_conf("10.99.0.2")
        answers = [dig(web, "web")[0], dig(web, "x.example.org")[0]]
        remove(made)
        say(answers)
        """,
    )
    assert answers == ["NOERROR", "REFUSED"]


def test_rubbish_and_idlers_do_not_stop_it(tmp_path: Path) -> None:
    """Random datagrams, torn messages, a hundred idle connections, a half-closed one: the same process answers."""
    same, answers, files = with_two(
        tmp_path,
        """
        import random
        chance = random.Random(4)
        first = server(made)
        code = '''
        import random, socket, struct, sys
        import dns.message
        chance = random.Random(4)
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(500):
            u.sendto(chance.randbytes(chance.choice([0, 1, 11, 12, 40, 600, 9000])), ("172.29.0.1", 53))
        idle = [socket.create_connection(("172.29.0.1", 53)) for _ in range(100)]
        for one in idle[::3]:
            one.sendall(chance.randbytes(300))
        query = dns.message.make_query("db", "A").to_wire()
        t = socket.create_connection(("172.29.0.1", 53))
        t.sendall((struct.pack("!H", len(query)) + query) * 200)  # many at once, answers read late
        t.shutdown(socket.SHUT_WR)
        got = b""
        while piece := t.recv(65536):
            got += piece
        n = 0
        while got:
            size = int.from_bytes(got[:2], "big")
            assert dns.message.from_wire(got[2:2 + size]).answer
            got, n = got[2 + size:], n + 1
        print(n)
        '''
        many = within(web, code).communicate(timeout=60)[0].strip()
        answers = [many, dig(db, "web")[2], dig(db, "+tcp", "web")[2]]
        time.sleep(0.5)
        files = len(os.listdir(f"/proc/{first}/fd"))
        same = server(made) == first
        remove(made)
        say([same, answers, files])
        """,
    )
    assert same
    assert answers == ["200", [["A", "172.29.0.2"]], [["A", "172.29.0.2"]]]
    assert files < 20  # the idlers went with their process


def test_the_oldest_idle_connection_makes_room(tmp_path: Path) -> None:
    """With sixty-four connections open the next one is served, and the first is ended."""
    code = """
        made = network()
        web = join(made, WEB, 2, "web")
        code = '''
        import socket, struct
        import dns.message
        open_ = [socket.create_connection(("172.29.0.1", 53), 5) for _ in range(64)]
        query = dns.message.make_query("web", "A").to_wire()
        def ask(one):
            one.sendall(struct.pack("!H", len(query)) + query)
            return len(one.recv(999))
        assert ask(open_[0])  # no longer the one that was silent longest
        more = socket.create_connection(("172.29.0.1", 53), 5)
        print(ask(more) > 20, ask(open_[0]) > 20, open_[1].recv(1) == b"")
        '''
        said = within(web, code).communicate(timeout=60)[0].split()
        remove(made)
        say(said)
        """
    assert on_network(tmp_path, code) == ["True", "True", "True"]


def test_the_server_is_one_and_goes_with_its_network(tmp_path: Path) -> None:
    """A second `ensure` starts none, a killed server is started anew, the ledger's end is the server's."""
    same, anew, titles, left = on_network(
        tmp_path,
        """
        made = network()
        first = server(made)
        ledger = Ledger("network-shop")
        dns_service.ensure(made, ledger)
        same = server(made) == first
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        dns_service.ensure(made, ledger)
        anew = server(made) != first
        while (title := sh("ps", "-o", "args=", "-p", str(server(made))).strip()) != "labkit-dns":
            time.sleep(0.02)
        remove(made)
        left = sh("ss", "-Hlntu", "sport = 53")
        say([same, anew, title, left])
        """,
    )
    assert (same, anew, titles, left) == (True, True, "labkit-dns", "")


def test_a_taken_port_names_its_holder(tmp_path: Path) -> None:
    """Another name server that listens everywhere: InUse says who it is, and no process of ours is left."""
    kind, why, left = on_network(
        tmp_path,
        """
        code = "import time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 53))"
        other = within(os.getpid(), code + "; print(flush=True); time.sleep(99)")
        other.stdout.readline()
        try:
            network()
        except LabError as error:
            kind, why = type(error).__name__, error.why
        left = len(Ledger("network-shop").entries())
        sh("ip", "link", "del", "shop")
        plan.load("shop").remove()
        say([kind, why, left])
        """,
    )
    assert kind == "InUse" and "python" in why and left == 0


def test_without_dnspython_it_says_so(tmp_path: Path) -> None:
    """The error names the package, how to install it, and what works without."""
    what, next_ = on_network(
        tmp_path,
        """
        import importlib.util
        importlib.util.find_spec = lambda name: None
        try:
            network()
        except LabError as error:
            say([error.why, error.next])
        sh("ip", "link", "del", "shop")
        plan.load("shop").remove()
        """,
    )
    assert "dnspython" in what and "pip install dnspython" in next_
