"""The specification's seccomp object: what is understood, and what is refused with its place and a way out."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import BadInput
from labkit.kernel.seccomp import compiler, machines, profile
from labkit.kernel.seccomp.profile import Condition, Rule

ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}


def with_rule(**changes: object) -> dict[str, Any]:
    """A profile of one rule, changed."""
    return {**ALLOW, "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_TRAP", **changes}]}


def with_condition(**changes: object) -> dict[str, Any]:
    """A profile of one condition, changed."""
    return with_rule(args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1, **changes}])


def test_the_least_profile() -> None:
    """A default answer is enough; without a list of flags SPEC_ALLOW is set, with an empty one nothing."""
    assert profile.parse(ALLOW) == profile.Profile(0x7FFF0000, flags=4)
    assert profile.parse({**ALLOW, "flags": []}).flags == 0
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert profile.parse({**ALLOW, "flags": flags}).flags == 3


def test_numbers_of_answers() -> None:
    """ERRNO and TRACE have EPERM when nothing is said, 0 when 0 is said."""
    given = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}
    assert profile.parse(given).default == 0x50026
    assert profile.parse({"defaultAction": "SCMP_ACT_ERRNO"}).default == 0x50001
    assert profile.parse(with_rule(action="SCMP_ACT_TRACE")).rules[0].action == 0x7FF00001
    assert profile.parse(with_rule(action="SCMP_ACT_ERRNO", errnoRet=0)).rules[0].action == 0x50000


def test_two_conditions_on_one_argument_are_two_rules() -> None:
    """Either is enough, as in runc; on two arguments both must hold."""
    args = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 2)]
    assert profile.parse(with_rule(args=args)).rules == tuple(
        Rule(("kill",), 0x30000, (Condition(0, "EQ", value),)) for value in (1, 2)
    )
    args[1]["index"] = 1
    assert len(profile.parse(with_rule(args=args)).rules) == 1


def test_a_name_that_no_table_has_is_passed_over() -> None:
    """As in runc: profiles name calls of other architectures and of newer kernels."""
    given = with_rule(names=["no_such_call"])
    assert compiler.compile(profile.parse(given), "SCMP_ARCH_X86_64") == compiler.compile(
        profile.parse(ALLOW), "SCMP_ARCH_X86_64"
    )


@pytest.mark.parametrize(("given", "said"), [
    ([], "linux.seccomp: must be an object"),
    ({}, "defaultAction: '' is no action"),
    ({"defaultAction": "ALLOW"}, "defaultAction: 'ALLOW' is no action"),
    ({"defaultAction": ["SCMP_ACT_ALLOW"]}, "must be a text"),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be the default"),
    ({**ALLOW, "defaultErrnoRet": 1}, "defaultErrnoRet: SCMP_ACT_ALLOW takes no number"),
    ({**ALLOW, "syscalls": {}}, "syscalls: must be a list"),
    ({**ALLOW, "syscalls": [[]]}, r"syscalls\[0\]: must be an object"),
    ({**ALLOW, "flags": ["FAST"]}, "'FAST' is no flag"),
    ({**ALLOW, "flags": "SECCOMP_FILTER_FLAG_LOG"}, "flags: must be a list"),
    ({**ALLOW, "architectures": ["SCMP_ARCH_Z80"]}, "'SCMP_ARCH_Z80' cannot be filtered.*knows no architecture"),
    ({**ALLOW, "architectures": ["SCMP_ARCH_MIPS"]}, "'SCMP_ARCH_MIPS' cannot be filtered.*no system call table"),
    ({**ALLOW, "listenerMetadata": "x"}, "no listenerPath"),
    (with_rule(names=[]), r"syscalls\[0\].names: every rule names"),
    (with_rule(names=["kill", 9]), "names: 9 must be a text"),
    (with_rule(action="SCMP_ACT_BAN"), r"syscalls\[0\].action: 'SCMP_ACT_BAN' is no action"),
    (with_rule(errnoRet=1), "SCMP_ACT_TRAP takes no number"),
    (with_rule(action="SCMP_ACT_ERRNO", errnoRet=65536), "from 0 to 65535"),
    (with_rule(action="SCMP_ACT_ERRNO", errnoRet=-1), "from 0 to 65535"),
    (with_rule(action="SCMP_ACT_NOTIFY", names=["read", "write"]), "cannot be asked for write"),
    (with_condition(op="SCMP_CMP_IS"), r"args\[0\].op: 'SCMP_CMP_IS' is no operator"),
    (with_condition(op="EQ"), "'EQ' is no operator"),
    (with_condition(index=6), "index: 6 must be a whole number from 0 to 5"),
    (with_condition(index=True), "index: True must be"),
    (with_condition(value=2**64), "from 0 to 18446744073709551615"),
    (with_condition(value=None), "value: None must be"),
    (with_condition(valueTwo=1.5), "valueTwo: 1.5 must be"),
])  # fmt: skip
def test_bad_input_is_refused_with_its_place(given: object, said: str) -> None:
    """What, where, and what to write in its stead."""
    with pytest.raises(BadInput, match="(?s)" + said) as caught:
        profile.parse(given)
    assert str(caught.value).startswith("linux.seccomp") and "\n  next: " in str(caught.value)


def test_a_machine_without_a_table_is_refused() -> None:
    """Never a guess."""
    assert machines.native("aarch64") == "SCMP_ARCH_AARCH64"
    with pytest.raises(BadInput, match="riscv64"):
        machines.native("riscv64")
