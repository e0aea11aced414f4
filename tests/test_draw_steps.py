"""The picture of a build's steps: states in words, layers with sizes, stages named, and legible whatever the text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.draw.steps import STATES, Step, build
from tests.draw_ground import faults
from tests.draw_odd import odd_names

STEPS = [
    Step("COPY go.mod .", "cached", 300),
    Step("ENV A=b", "setting"),
    Step("RUN make", "runs"),
    Step("COPY . .", "waits"),
]
steps = st.lists(
    st.builds(Step, odd_names(), st.sampled_from(sorted(STATES)), st.none() | st.integers(0, 1 << 45), odd_names()),
    max_size=50,
)


def test_every_step_says_its_state_and_its_layer() -> None:
    """A cached layer has its size, a setting makes none, and what is not done yet has nothing to say."""
    assert [line.split() for line in build(STEPS).text.splitlines()[1:]] == [
        ["from", "the", "cache", "COPY", "go.mod", ".", "300", "B"],
        ["a", "setting", "ENV", "A=b", "none"],
        ["runs", "now", "RUN", "make", "-"],
        ["waits", "COPY", ".", ".", "-"],
    ]


def test_stages_are_named_where_there_are_several() -> None:
    """One stage needs no name in front of each line, two do."""
    assert "[" not in build([step._replace(stage="build") for step in STEPS]).text
    assert "[build] RUN make" in build([STEPS[0], STEPS[2]._replace(stage="build")]).text


def test_states_are_told_apart_without_colour() -> None:
    """Each has its own words in the picture."""
    picture = build([Step("RUN x", state) for state in STATES])
    drawn = [text.text for text in ET.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")]
    words = {look[3] for look in STATES.values()}
    assert len(words) == len(STATES) and words <= set(drawn)


def test_a_long_build_is_cut_and_says_so() -> None:
    """Fifty steps make a picture of a page."""
    picture = build([Step(f"RUN {number}", "done", 1) for number in range(50)])
    assert faults(picture) == [] and "and 14 more steps, not drawn" in picture.text


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps)
def test_a_build_of_anything_is_legible(found: list[Step]) -> None:
    """Instructions and stages that nobody would write; no step at all."""
    picture = build(found)
    ET.fromstring(picture.svg)
    assert faults(picture) == []
    assert all(line.isprintable() for line in picture.text.split("\n"))
