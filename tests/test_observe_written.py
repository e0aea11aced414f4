"""A snapshot as JSON: there and back for any snapshot, refused for anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput
from labkit.observe import snapshot
from labkit.observe.model import Cgroup, Link, Namespace, Network, Process, Route, Snapshot
from labkit.observe.mountinfo import Mount

# What the kernel's text may hold once it is decoded: any character, and bytes that are no UTF-8 as surrogates.
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=6)
NUMBER = st.integers(0, 2**64 - 1)
PID = st.integers(0, 2**22)


def tuples(kind: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(kind, max_size=3).map(tuple)


PROCESS = st.builds(
    Process, PID, PID, NUMBER, TEXT, tuples(TEXT), TEXT, tuples(PID), PID, PID, PID,
    st.dictionaries(TEXT, NUMBER, max_size=3), NUMBER, st.integers(0, 2), st.booleans(), TEXT,
)  # fmt: skip
NAMESPACE = st.builds(Namespace, TEXT, NUMBER, tuples(PID), tuples(TEXT), NUMBER, NUMBER, NUMBER)
MOUNT = st.builds(Mount, PID, PID, TEXT, TEXT, TEXT, tuples(TEXT), tuples(TEXT), TEXT, TEXT, TEXT)
CGROUP = st.builds(
    Cgroup, TEXT, tuples(TEXT), st.dictionaries(TEXT, TEXT, max_size=3), st.dictionaries(TEXT, NUMBER, max_size=3),
    tuples(PID),
)  # fmt: skip
LINK = st.builds(Link, PID, TEXT, TEXT, st.booleans(), TEXT, PID, PID, PID, NUMBER, tuples(TEXT))
NETWORK = st.builds(Network, NUMBER, tuples(LINK), tuples(st.builds(Route, TEXT, TEXT, TEXT)), st.none() | tuples(TEXT))
TABLES = st.dictionaries(NUMBER, tuples(MOUNT), max_size=3)
SNAPSHOT = st.builds(
    lambda processes, namespaces, mounts, cgroups, networks, origins: Snapshot(
        {one.pid: one for one in processes},
        {(one.kind, one.inode): one for one in namespaces},
        mounts,
        {one.path: one for one in cgroups},
        {one.inode: one for one in networks},
        origins,
    ),
    *(st.lists(PROCESS, max_size=3), st.lists(NAMESPACE, max_size=3), TABLES),
    *(st.lists(CGROUP, max_size=3), st.lists(NETWORK, max_size=3), TABLES),
)


@given(SNAPSHOT)
def test_a_snapshot_comes_back_as_it_was(made: Snapshot) -> None:
    """Written and read, every value and every type is as before, and written again it is the same text."""
    text = snapshot.to_json(made)
    back = snapshot.from_json(text)
    assert back == made
    assert snapshot.to_json(back) == text
    # Equality is not enough: a tuple that became a list would compare unequal, a NamedTuple of another kind not.
    for mine, its in ((made.processes, back.processes), (made.networks, back.networks)):
        assert [type(one) for one in mine.values()] == [type(one) for one in its.values()]
    assert {type(link) for one in back.networks.values() for link in one.links} <= {Link}
    assert {type(mount) for table in back.mounts.values() for mount in table} <= {Mount}


def test_the_text_is_plain_json() -> None:
    """Any JSON reader can read it: numbers as keys and bytes that are no text are none of its problems."""
    made = Snapshot({}, {}, {4026531840: (Mount(1, 0, "0:1", "/", "/\udc80", (), (), "x", "x", ""),)}, {}, {})
    found = json.loads(snapshot.to_json(made).encode("ascii"))
    assert found["mounts"][0][0] == 4026531840


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "7", "{}", '{"version": 2}', '{"version": 1}',
     '{"version":1,"processes":[[1,2]],"namespaces":[],"mounts":[],"cgroups":[],"networks":[],"origins":[]}',
     '{"version":1,"processes":[],"namespaces":[],"mounts":[[1,[[1,2]]]],"cgroups":[],"networks":[],"origins":[]}'],
)  # fmt: skip
def test_another_text_is_refused(text: str) -> None:
    """What is no snapshot, or one of another version, is bad input and says so."""
    with pytest.raises(BadInput, match="no snapshot") as caught:
        snapshot.from_json(text)
    assert caught.value.why
