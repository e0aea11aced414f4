"""What a network's name server decides for one query: names, refusals, sizes; and that no bytes upset it."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.network import names, plan
from labkit.network.dns_answer import Forward, decide, fitted
from labkit.network.dns_names import PlannedNames
from labkit.network.plan import Member

WEB, DB = "a1" * 32, "b2" * 32


def member(name: str, number: int, *aliases: str, v6: bool = True) -> Member:
    return Member(name, aliases, f"172.29.0.{number}", f"fd00:29::{number:x}" if v6 else "", "eth0", "", "")


def write(folder: Path, containers: dict[str, Member]) -> None:
    """The plan of the network `shop`, below $LABKIT_RUN."""
    os.environ["LABKIT_RUN"] = str(folder)
    plan.folder().mkdir(parents=True, exist_ok=True)
    made = plan.Plan("shop")
    made.subnet, made.gateway, made.subnet6, made.gateway6 = "172.29.0.0/24", "172.29.0.1", "fd00:29::/64", "fd00:29::1"
    made.containers = containers
    made.save()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedNames:
    """Two containers: web (IPv4 and IPv6) and DB (IPv4 alone), which share an alias."""
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path))
    write(tmp_path, {WEB: member("web", 2, "www"), DB: member("DB", 3, "www", v6=False)})
    return PlannedNames("shop")


def ask(known: PlannedNames, name: str, kind: str = "A", **options: object) -> dns.message.Message | Forward:
    verdict = decide(dns.message.make_query(name, kind, **options).to_wire(), known, datagram=True)  # type: ignore[arg-type]
    assert verdict is not None
    return verdict if isinstance(verdict, Forward) else dns.message.from_wire(verdict)


def records(reply: dns.message.Message | Forward) -> list[str]:
    assert isinstance(reply, dns.message.Message)
    return sorted(record.to_text() for rrset in reply.answer for record in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "code", "answers"),
    [
        ("web", "A", "NOERROR", ["172.29.0.2"]),
        ("web", "AAAA", "NOERROR", ["fd00:29::2"]),
        ("WEB", "A", "NOERROR", ["172.29.0.2"]),
        ("db", "A", "NOERROR", ["172.29.0.3"]),
        ("db", "AAAA", "NOERROR", []),
        ("web", "MX", "NOERROR", []),
        ("web", "ANY", "NOERROR", ["172.29.0.2", "fd00:29::2"]),
        ("www", "A", "NOERROR", ["172.29.0.2", "172.29.0.3"]),
        ("web.shop", "A", "NOERROR", ["172.29.0.2"]),
        (WEB[:12], "A", "NOERROR", ["172.29.0.2"]),
        ("nobody", "A", "NXDOMAIN", []),
        ("nobody", "AAAA", "NXDOMAIN", []),
        ("2.0.29.172.in-addr.arpa", "PTR", "NOERROR", ["web.shop."]),
        ("9.0.29.172.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("web", "AXFR", "REFUSED", []),
    ],
)
def test_what_a_name_gets(known: PlannedNames, name: str, kind: str, code: str, answers: list[str]) -> None:
    """Names, aliases and short ids in any case, both families, the way back; no such name, and no such data."""
    reply = ask(known, name, kind)
    assert isinstance(reply, dns.message.Message)
    assert (dns.rcode.to_text(reply.rcode()), records(reply)) == (code, answers)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("example.org", "A"), ("web.example.org", "AAAA"), (".", "NS"), ("com", "NS"), ("1.2.0.192.in-addr.arpa", "PTR")],
)
def test_the_rest_is_for_other_servers(known: PlannedNames, name: str, kind: str) -> None:
    """Names with dots, addresses of others and what delegation needs are passed on."""
    assert isinstance(ask(known, name, kind), Forward)


def test_who_shares_an_alias_comes_first_in_turn(known: PlannedNames) -> None:
    """The order of two addresses changes from answer to answer."""
    first = Counter(reply.answer[0][0].to_text() for _ in range(60)
                    if isinstance(reply := ask(known, "www"), dns.message.Message))  # fmt: skip
    assert set(first) == {"172.29.0.2", "172.29.0.3"}


def test_a_changed_plan_is_seen_at_the_next_question(known: PlannedNames, tmp_path: Path) -> None:
    """A container comes, another goes, the plan goes; and a plan that cannot be read changes nothing."""
    assert records(ask(known, "web")) == ["172.29.0.2"]
    write(tmp_path, {DB: member("api", 9)})
    assert records(ask(known, "api")) == ["172.29.0.9"]
    assert records(ask(known, "web")) == []
    (plan.folder() / "shop.json").write_text("{")
    assert records(ask(known, "api")) == ["172.29.0.9"]
    (plan.folder() / "shop.json").write_text(json.dumps({"containers": {WEB: {"surprise": 1}}}))
    assert records(ask(known, "api")) == ["172.29.0.9"]
    (plan.folder() / "shop.json").unlink()
    assert records(ask(known, "api")) == []


def test_what_does_not_fit_is_asked_again_by_tcp(known: PlannedNames, tmp_path: Path) -> None:
    """A hundred addresses: TC and no answer in 512 bytes as in a datagram of any size; by TCP all of them."""
    write(tmp_path, {f"{number:064x}": member(f"n{number}", number, "all") for number in range(2, 102)})
    for options in ({}, {"use_edns": 0, "payload": 4096}):
        reply = ask(known, "all", **options)
        assert isinstance(reply, dns.message.Message)
        assert reply.flags & dns.flags.TC and not reply.answer
    whole = decide(dns.message.make_query("all", "A").to_wire(), known, datagram=False)
    assert isinstance(whole, bytes) and len(records(dns.message.from_wire(whole))) == 100


def test_another_servers_answer_is_cut_for_who_takes_less() -> None:
    """What an asker's datagram cannot hold becomes TC with the same number and question."""
    query = dns.message.make_query("big.example.org", "TXT", id=77)
    assert fitted(b"x" * 512, query, 512) == b"x" * 512
    short = dns.message.from_wire(fitted(b"x" * 513, query, 512))
    assert short.id == 77 and short.question == query.question and short.flags & dns.flags.TC
    assert fitted(b"x" * 60000, query, 0) == b"x" * 60000


def test_edns_is_spoken_to_those_who_speak_it(known: PlannedNames) -> None:
    """EDNS 0 in, EDNS 0 out, with a size of ours; none for others; a version to come is BADVERS."""
    spoken, plain, later = ask(known, "web", use_edns=0), ask(known, "web"), ask(known, "web", use_edns=7)
    assert isinstance(spoken, dns.message.Message) and isinstance(plain, dns.message.Message)
    assert isinstance(later, dns.message.Message)
    assert (spoken.edns, spoken.payload, plain.edns) == (0, 1232, -1)
    assert (later.rcode(), later.edns) == (dns.rcode.BADVERS, 0)


def changed(wire: bytes, at: int, value: int) -> bytes:
    """The message with one 16-bit field of its header replaced."""
    return wire[:at] + struct.pack("!H", value) + wire[at + 2 :]


QUERY = dns.message.make_query("web", "A", id=0x1234).to_wire()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (QUERY[:-1], "FORMERR"),
        (QUERY + b"\0", "FORMERR"),
        (changed(QUERY, 4, 0), "FORMERR"),
        (changed(QUERY, 4, 2), "FORMERR"),
        (changed(QUERY, 6, 1), "FORMERR"),
        (changed(QUERY, 8, 9), "FORMERR"),
        (QUERY[:12] + b"\xc0\x0c" + QUERY[-4:], "FORMERR"),  # a name that points at itself
        (QUERY[:12] + b"\x50" + QUERY[13:], "FORMERR"),  # a label type that does not exist
        (QUERY[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0" + QUERY[-4:], "FORMERR"),  # a name of over 255 bytes
        (QUERY + b"\0" * 60000, "FORMERR"),
        (changed(QUERY, 2, 0x2800), "NOTIMP"),  # an update
        (QUERY[:-2] + b"\0\3", "REFUSED"),  # class CHAOS
    ],
)
def test_a_bad_query_is_told_so(known: PlannedNames, wire: bytes, code: str) -> None:
    """What cannot be read is FORMERR, what is not done here NOTIMP or REFUSED, with the asker's number."""
    verdict = decide(wire, known, datagram=True)
    assert isinstance(verdict, bytes)
    reply = dns.message.from_wire(verdict)
    assert (reply.id, dns.rcode.to_text(reply.rcode())) == (0x1234, code)
    assert reply.flags & dns.flags.QR


def test_a_signed_query_is_not_authentic_here(known: PlannedNames) -> None:
    """There are no keys: a TSIG gets NOTAUTH (RFC 8945)."""
    query = dns.message.make_query("web", "A")
    query.use_tsig({dns.name.from_text("key."): b"0123456789abcdef"})
    verdict = decide(query.to_wire(), known, datagram=True)
    assert isinstance(verdict, bytes) and dns.message.from_wire(verdict).rcode() == dns.rcode.NOTAUTH


@pytest.mark.parametrize("wire", [b"", QUERY[:11], changed(QUERY, 2, 0x8180)])
def test_some_deserve_silence(known: PlannedNames, wire: bytes) -> None:
    """Less than a header, and answers that nobody asked for."""
    assert decide(wire, known, datagram=True) is None


@st.composite
def nearly_queries(draw: st.DrawFn) -> bytes:
    """A good query with a few bytes changed, cut or added."""
    query = dns.message.make_query(
        draw(st.sampled_from(["web", "www.shop", "example.org", "2.0.29.172.in-addr.arpa", "1.ip6.arpa"])),
        draw(st.sampled_from(["A", "AAAA", "PTR", "ANY", "TXT", "OPT", "TSIG"])),
        use_edns=draw(st.sampled_from([-1, 0, 1])),
        options=draw(st.sampled_from([None, [dns.edns.GenericOption(10, b"12345678")]])),
    )
    wire = bytearray(query.to_wire())
    for _ in range(draw(st.integers(0, 4))):
        wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    return bytes(wire[: draw(st.integers(0, len(wire)))]) + draw(st.binary(max_size=20))


FUZZED = st.one_of(st.binary(max_size=600), nearly_queries())


@pytest.fixture(scope="module")
def one_plan(tmp_path_factory: pytest.TempPathFactory) -> PlannedNames:
    """The same two containers, made once."""
    before = os.environ.get("LABKIT_RUN")
    write(tmp_path_factory.mktemp("run"), {WEB: member("web", 2, "www"), DB: member("DB", 3, "www", v6=False)})
    known = PlannedNames("shop")
    known.refresh()
    if before is None:
        del os.environ["LABKIT_RUN"]
    else:
        os.environ["LABKIT_RUN"] = before
    known.refresh = lambda: None  # type: ignore[method-assign]
    return known


@settings(max_examples=600, deadline=None)
@given(wire=FUZZED, datagram=st.booleans())
def test_no_bytes_upset_it(one_plan: PlannedNames, wire: bytes, datagram: bool) -> None:
    """Any bytes: silence, or a whole answer under the asker's number, or a question for others."""
    verdict = decide(wire, one_plan, datagram=datagram)
    if isinstance(verdict, bytes):
        reply = dns.message.from_wire(verdict)
        assert reply.id == int.from_bytes(wire[:2], "big") and reply.flags & dns.flags.QR
        assert not datagram or len(verdict) <= 1232
    elif isinstance(verdict, Forward):
        assert len(verdict.query.question) == 1 and verdict.limit >= (512 if datagram else 0)


def test_resolv_conf_of_a_network_with_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's server, the machine's search list, and names of one label asked as they are."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\nsearch example.org\n")
    real.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(names, "RESOLV_CONFS", (stub, real))
    assert names.resolv_conf(["172.29.0.1"]) == "nameserver 172.29.0.1\nsearch example.org\noptions ndots:0\n"
    assert names.servers() == ["127.0.0.53"]


def test_what_is_no_address_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in resolv.conf is passed over, as the C library does; an address has one spelling, its scope kept."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver dns.example.org\nnameserver\nnameserver FE80:0::1%eth0\nnameserver\t192.0.2.1 # x\n")
    monkeypatch.setattr(names, "RESOLV_CONFS", (file,))
    assert names.servers() == ["fe80::1%eth0", "192.0.2.1"]
