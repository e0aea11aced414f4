"""Floor 2: what one query to a network's name server gets: an answer, silence, or the way to another server.

Owns: the decision, as a function of the query's bytes and of who has which name; no socket
is touched here.  The wire format is dnspython's business.

Read: RFC 1035 (messages), RFC 6891 (EDNS), RFC 2308 (no such name, no such data), RFC 9619 (one question);
docs.docker.com on user-defined bridge networks for what containers are called.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

HEADER = struct.Struct("!HHHHHH")  # id, flags, and the number of entries in the four sections
# A container may be gone the next moment: nobody should remember its address for longer.
TTL = 5  # seconds
PAYLOAD = 1232  # bytes of a datagram that no path cuts into fragments (DNS flag day 2020)
CLASSIC = 512  # bytes of a datagram for those who do not speak EDNS
ADDRESS_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
TRANSFERS = {dns.rdatatype.AXFR, dns.rdatatype.IXFR}
# Resolvers that validate ask these of top-level domains, which have one label as containers have.
DELEGATION = {dns.rdatatype.NS, dns.rdatatype.DS, dns.rdatatype.DNSKEY, dns.rdatatype.SOA}


class Lookup(Protocol):
    """Who has which name on one network. Names are lower case, without the last dot."""

    def addresses(self, name: str) -> Sequence[str] | None:
        """Those of a name, IPv4 and IPv6; None when nobody has the name."""

    def name(self, address: str) -> str | None:
        """The full name of who has the address; None when nobody has it."""

    def covers(self, address: str) -> bool:
        """Whether the address lies in the network: then nobody else knows better."""


class Forward(NamedTuple):
    """The query is for another server: what to ask it."""

    query: dns.message.Message
    limit: int  # bytes that the asker takes in one datagram


def decide(wire: bytes, lookup: Lookup, *, datagram: bool) -> bytes | Forward | None:
    """The answer's bytes, or whom to ask, or None where the right answer is none.  Never raises for any bytes."""
    if len(wire) < HEADER.size:
        return None
    _, flags, questions, answers, authorities, additional = HEADER.unpack_from(wire)
    if flags & dns.flags.QR:
        return None  # an answer that nobody asked for: to answer it would start a loop
    if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        return refusal(wire, dns.rcode.NOTIMP)
    # Before parsing: a query has one question, and at most EDNS and a signature behind it.
    if questions != 1 or answers or authorities or additional > 2:
        return refusal(wire, dns.rcode.FORMERR)
    try:
        query = dns.message.from_wire(wire)
        limit = max(CLASSIC, query.payload) if query.edns >= 0 else CLASSIC
        return _of_query(query, lookup, limit if datagram else 0)
    except dns.message.UnknownTSIGKey:
        return refusal(wire, dns.rcode.NOTAUTH)
    except (dns.exception.DNSException, ValueError, struct.error):
        return refusal(wire, dns.rcode.FORMERR)


def refusal(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """An answer of a header alone, to a query that may not even be readable."""
    identifier, flags = struct.unpack_from("!HH", wire)
    kept = flags & (dns.flags.RD | 0x7800)  # the bit for recursion, and the kind of query
    return HEADER.pack(identifier, dns.flags.QR | dns.flags.RA | kept | code, 0, 0, 0, 0)


def failure(query: dns.message.Message, code: dns.rcode.Rcode) -> bytes:
    """The answer to a readable query that cannot be served."""
    reply = _reply(query)
    reply.set_rcode(code)
    return reply.to_wire(max_size=65535)


def fitted(reply: bytes, query: dns.message.Message, limit: int) -> bytes:
    """Another server's answer, or "ask again by TCP" where the asker takes no datagram of that size."""
    if not limit or len(reply) <= limit:
        return reply
    short = _reply(query)
    short.flags |= dns.flags.TC
    return short.to_wire(max_size=65535)


def _reply(query: dns.message.Message) -> dns.message.Message:
    return dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)


def _of_query(query: dns.message.Message, lookup: Lookup, limit: int) -> bytes | Forward:
    if query.edns > 0:
        return failure(query, dns.rcode.BADVERS)
    (question,) = query.question
    if question.rdclass != dns.rdataclass.IN or question.rdtype in TRANSFERS:
        return failure(query, dns.rcode.REFUSED)
    name = question.name.to_text(omit_final_dot=True).lower()
    address = _reversed(question.name)
    if address is not None and lookup.covers(address):
        owner = lookup.name(address)
        if owner is None:
            return failure(query, dns.rcode.NXDOMAIN)
        found = [(dns.rdatatype.PTR, f"{owner}.")]
    elif (addresses := lookup.addresses(name)) is not None:
        # In another order each time, so that who takes the first spreads over all that share an alias.
        found = [(ADDRESS_TYPES[6 if ":" in each else 4], each) for each in random.sample(addresses, len(addresses))]
    elif len(question.name.labels) == 2 and question.rdtype not in DELEGATION:
        return failure(query, dns.rcode.NXDOMAIN)  # one label and the root: no name of the wide world
    else:
        return Forward(query, limit)
    return _answer(query, [item for item in found if question.rdtype in (item[0], dns.rdatatype.ANY)], limit)


def _reversed(name: dns.name.Name) -> str | None:
    """The address that a name such as 2.0.30.172.in-addr.arpa stands for."""
    try:
        return dns.reversename.to_address(name)
    except (dns.exception.DNSException, ValueError):
        return None


def _answer(query: dns.message.Message, found: list[tuple[dns.rdatatype.RdataType, str]], limit: int) -> bytes:
    """An answer of our own knowledge; without records it says that the name is there, but not with such data."""
    reply = _reply(query)
    reply.flags |= dns.flags.AA
    for kind, text in found:
        owner = query.question[0].name
        records = reply.find_rrset(reply.answer, owner, dns.rdataclass.IN, kind, create=True)
        records.add(dns.rdata.from_text(dns.rdataclass.IN, kind, text), TTL)
    return fitted(reply.to_wire(max_size=65535), query, min(limit, PAYLOAD))
