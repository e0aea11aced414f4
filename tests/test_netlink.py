"""The netlink message layer: bytes only, no kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.kernel import netlink

SMALL = settings(max_examples=50, derandomize=True, deadline=None)


@SMALL
@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=6))
def test_attributes_come_back_as_they_were_packed(pairs: list[tuple[int, bytes]]) -> None:
    """Whatever is packed as attributes is read back, in order, and fills whole words of four bytes."""
    packed = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(packed) % 4 == 0
    assert list(netlink.attributes(packed)) == pairs


@SMALL
@given(st.binary(max_size=80))
def test_any_bytes_can_be_read_as_attributes(data: bytes) -> None:
    """Bytes that are no attributes end the reading; they raise nothing and are not read beyond."""
    assert sum(4 + len(value) for _, value in netlink.attributes(data)) <= len(data)


@SMALL
@given(st.binary(max_size=80))
def test_any_bytes_can_be_read_as_messages(data: bytes) -> None:
    """Bytes that are no messages end the reading; they raise nothing and are not read beyond."""
    assert sum(16 + len(message.payload) for message, _ in netlink.messages(data)) <= len(data)


def test_the_kernels_own_words_are_in_the_error() -> None:
    """An error names the request, the errno and the text of the extended acknowledgement."""
    payload = struct.pack("=i", -22) + bytes(16) + netlink.attribute(netlink.NLMSGERR_ATTR_MSG, "no such thing")
    with pytest.raises(OSError, match="do this: Invalid argument; the kernel says: no such thing") as caught:
        netlink._raise_if_error(payload, netlink.NLM_F_ACK_TLVS, "do this")
    assert caught.value.errno == 22
