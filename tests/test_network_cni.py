"""The distribution's CNI plugins configure a container of ours: ADD, CHECK, DEL, VERSION; crashes; bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from cni_ground import on_machine, with_plugins

pytestmark = on_machine


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_the_bridge_plugin_gives_a_container_its_place(tmp_path: Path, version: str) -> None:
    """Address, default route and a cable to the plugin's bridge; the gateway answers; DEL gives all back, and twice."""
    place, seen, route, ping, checked, left, owned = with_plugins(
        tmp_path,
        f"""
        write(version={version!r})
        pid, ledger = new_namespace(), Ledger(C1)
        place = cni.attach(C1, pid, ledger, "lan")
        seen, route = addresses(pid), inner(pid, "route", "show", "default")[0]["gateway"]
        ping, checked = pings(pid, "10.77.0.1"), cni.check(C1)
        owned = [entry.kind for entry in ledger.entries()]
        cni.detach(ledger)
        cni.detach(ledger)
        ledger.release_all()
        say([place, seen, route, ping, checked, held(), owned])
        """,
    )
    assert place[0] == seen == ["10.77.0.2/24"] and route == "10.77.0.1" and ping
    assert place[1][0] == "cni7" and len(place[1]) == 2
    assert checked == (version != "0.3.1")  # CHECK came with 0.4.0
    assert left == [[], [], 0, []]
    assert owned == ["file", "mount", "file", "command"]


def test_a_namespace_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """A process that is gone: the error names it, and says what was wanted of it; nothing is left."""
    words, left = with_plugins(
        tmp_path,
        """
        write()
        ledger = Ledger(C1)
        try:
            cni.attach(C1, 2**22 - 1, ledger, "lan")
        except LabError as error:
            words = str(error)
        ledger.release_all()
        say([words, held()])
        """,
    )
    assert "cannot keep the network namespace of process 4194303" in words and "errno 2" in words
    assert left == [[], [], 0, []]


def test_published_ports_are_portmaps_business(tmp_path: Path) -> None:
    """The mapping reaches the plugin that has the capability: a neighbour of the machine is served."""
    seen, left = with_plugins(
        tmp_path,
        """
        write(plugins=[bridge_plugin(), PORTMAP])
        there = outside()
        before = held()
        pid, ledger = new_namespace(), Ledger(C1)
        cni.attach(C1, pid, ledger, "lan", ports=ports.parse("8080:80"))
        serve(pid, 80)
        seen = seen_from(there, "10.99.0.1", 8080)
        ledger.release_all()
        rules = sh("iptables-save", "-t", "nat")
        say([seen, [held() == before, "8080" in rules]])
        """,
    )
    assert seen == "10.99.0.2" and left == [True, False]


def test_check_says_what_is_broken(tmp_path: Path) -> None:
    """Whole: True. An address taken away, a cable cut: the plugin's words. Switched off by disableCheck: False."""
    words, cut, off = with_plugins(
        tmp_path,
        """
        write()
        pid, ledger = new_namespace(), Ledger(C1)
        cni.attach(C1, pid, ledger, "lan")
        assert cni.check(C1)
        def why():
            try:
                cni.check(C1)
            except LabError as error:
                return [error.what, error.why]
        sh("nsenter", "-t", str(pid), "-n", "ip", "addr", "flush", "dev", "eth0")
        words = why()
        sh("nsenter", "-t", str(pid), "-n", "ip", "link", "del", "eth0")
        cut = why()
        ledger.release_all()
        write(disableCheck=True)
        pid, ledger = new_namespace(), Ledger(C2)
        cni.attach(C2, pid, ledger, "lan")
        off = cni.check(C2)
        ledger.release_all()
        say([words, cut, off])
        """,
    )
    assert words[0] == "the CNI plugin bridge failed at CHECK of network lan" and "10.77.0.2" in words[1]
    assert cut[1] and off is False


def test_a_crash_loses_nothing(tmp_path: Path) -> None:
    """Killed after ADD, with the container dead and the configuration gone: the ledger's own command does the DEL."""
    before, between, after = with_plugins(
        tmp_path,
        """
        write()
        pid = new_namespace()
        before = held()
        child = os.fork()
        if child == 0:
            cni.attach(C1, pid, Ledger(C1), "lan")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        os.kill(pid, signal.SIGKILL)
        (state / "net.d" / "lan.conflist").unlink()
        between = held()
        reset()
        say([before, between, held()])
        """,
    )
    assert before == after == [[], [], 0, []]
    assert between[0] == ["10.77.0.2"] and len(between[1]) == 1 and between[2:] == [1, ["c1" * 32]]


def test_a_failed_add_takes_back_what_went_before(tmp_path: Path) -> None:
    """The second plugin refuses: its words come up, and the first one's cable and address are given back."""
    what, why, next_, left = with_plugins(
        tmp_path,
        """
        (state / "bin" / "sour").write_text('#!/bin/sh\\ncase $CNI_COMMAND in DEL) exit 0;; VERSION)'
            ' echo \\'{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}\\'; exit 0;; esac\\n'
            'echo \\'{"cniVersion": "1.0.0", "code": 11, "msg": "not today", "details": "come back"}\\'; exit 1\\n')
        (state / "bin" / "sour").chmod(0o755)
        write(plugins=[bridge_plugin(), {"type": "sour"}])
        ledger = Ledger(C1)
        try:
            cni.attach(C1, new_namespace(), ledger, "lan")
        except LabError as error:
            said = [error.what, error.why, error.next]
        ledger.release_all()
        say([*said, held()])
        """,
    )
    assert what == "the CNI plugin sour failed at ADD of network lan"
    assert why.startswith("not today: come back (code 11, ") and next_ == "try again"
    assert left == [[], [], 0, []]


def test_addresses_end_with_the_plugins_words(tmp_path: Path) -> None:
    """A range of one address: the second container is told that there is none left."""
    why, left = with_plugins(
        tmp_path,
        """
        plugin = bridge_plugin()
        plugin["ipam"]["ranges"] = [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}]]
        write(plugins=[plugin])
        first, second = Ledger(C1), Ledger(C2)
        cni.attach(C1, new_namespace(), first, "lan")
        try:
            cni.attach(C2, new_namespace(), second, "lan")
        except LabError as error:
            why = error.why
        second.release_all(), first.release_all()
        say([why, held()])
        """,
    )
    assert "no IP addresses available" in why and left == [[], [], 0, []]


def test_versions_are_asked_before_anything_is_made(tmp_path: Path) -> None:
    """VERSION of the distribution's bridge plugin; a plugin that does not speak the configuration's is not run."""
    spoken, what, why, left = with_plugins(
        tmp_path,
        """
        (state / "bin" / "old").write_text('#!/bin/sh\\n'
            'echo \\'{"cniVersion": "0.3.1", "supportedVersions": ["0.3.1"]}\\'; touch "$0.$CNI_COMMAND"\\n')
        (state / "bin" / "old").chmod(0o755)
        write(plugins=[bridge_plugin(), {"type": "old"}])
        try:
            cni.attach(C1, new_namespace(), Ledger(C1), "lan")
        except LabError as error:
            said = [error.what, error.why]
        say([cni.versions("bridge"), *said, held() + sorted(file.name for file in (state / "bin").iterdir())])
        """,
    )
    assert {"0.3.1", "0.4.0", "1.0.0"} <= set(spoken)
    assert what == "the CNI plugin old does not speak cniVersion 1.0.0" and why == "it speaks 0.3.1"
    assert left == [[], [], 0, [], "old", "old.VERSION"]


@pytest.mark.parametrize(
    ("prepare", "name", "kind", "words"),
    [
        ("write()", "wan", "NotFound", "net.d has lan"),
        ("", "lan", "NotFound", "no configuration"),
        ("(state / 'net.d' / 'lan.conf').write_text('{')", "lan", "BadInput", "line 1"),
        ("(state / 'net.d' / 'lan.conf').write_text('[]')", "lan", "BadInput", "no JSON object"),
        ("write(plugins=[{'bridge': 'x'}])", "lan", "BadInput", "needs a type"),
        ("write(plugins=[{'type': '../../bin/sh'}])", "lan", "BadInput", "bare name"),
        ("write(plugins=[{'type': 'no-such-plugin'}])", "lan", "NotFound", "no-such-plugin"),
        ("write(version='9.9')", "lan", "BadInput", "9.9"),
        ("(state / 'net.d' / 'x.conf').write_text('{\"name\": \"a/b\", \"type\": \"x\"}')", "a/b", "BadInput", "a/b"),
    ],
)  # fmt: skip
def test_bad_configurations_are_refused_before_anything_is_made(
    tmp_path: Path, prepare: str, name: str, kind: str, words: str
) -> None:
    """Each has its message, which names the file or what there is; the ledger stays empty."""
    said, text, left = with_plugins(
        tmp_path,
        f"""
        {prepare}
        try:
            cni.attach(C1, new_namespace(), Ledger(C1), {name!r})
        except LabError as error:
            said, text = type(error).__name__, str(error)
        say([said, text, held()])
        """,
    )
    assert said == kind and words in text and left == [[], [], 0, []]


@pytest.mark.parametrize(("port", "words"), [("8080:80", "portMappings"), ("80", "no port of its own choice")])
def test_ports_that_no_plugin_takes_are_refused(tmp_path: Path, port: str, words: str) -> None:
    """Without portmap no port is published in silence; and the machine's port must be named."""
    plugins = "[bridge_plugin()]" if port == "8080:80" else "[bridge_plugin(), PORTMAP]"
    text, left = with_plugins(
        tmp_path,
        f"""
        write(plugins={plugins})
        try:
            cni.attach(C1, new_namespace(), Ledger(C1), "lan", ports=ports.parse({port!r}))
        except LabError as error:
            text = str(error)
        say([text, held()])
        """,
    )
    assert words in text and left == [[], [], 0, []]
