"""Classic BPF as the kit writes it: structure, jumps of any length, limits, and the listing."""

from __future__ import annotations

import pytest

from labkit.errors import BadInput
from labkit.kernel.callnumbers import table
from labkit.kernel.seccomp import classic, compiler, profile
from labkit.kernel.seccomp.classic import Assembler, Instruction, Label
from tests import seccomp_ground as ground

X86_64 = "SCMP_ARCH_X86_64"


def compiled(**given: object) -> list[Instruction]:
    """A profile for x86-64 alone, whatever machine this is."""
    return compiler.compile(profile.parse({"defaultAction": "SCMP_ACT_ALLOW", **given}), X86_64)


def test_a_small_filter_reads_like_a_text() -> None:
    """One call refused when its argument's two halves are what the rule says."""
    rule = {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    rule |= {"args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 0x1_0000_0008}]}
    assert classic.disassemble(compiled(syscalls=[rule])).splitlines() == [
        "   0: A = arch",
        "   1: if A == AUDIT_ARCH_X86_64 go to 2 else 17",
        "   2: A = nr",
        "   3: if A >= 136 go to 12 else 4",
        "   4: if A >= 135 go to 6 else 5",
        "   5: return ALLOW",
        "   6: A = args[0].high",
        "   7: if A == 0x1 go to 8 else 11",
        "   8: A = args[0].low",
        "   9: if A == 0x8 go to 10 else 11",
        "  10: return ERRNO(13)",
        "  11: return ALLOW",
        "  12: if A >= 0x40000000 go to 14 else 13",
        "  13: return ALLOW",
        "  14: if A >= 0xffffffff go to 16 else 15",
        "  15: return KILL_THREAD",
        "  16: return ALLOW",
        "  17: return KILL_THREAD",
    ]


def test_what_is_no_instruction_of_ours_is_shown_as_it_is() -> None:
    """A foreign program, an unknown word, an unknown action: numbers, and no error."""
    text = classic.disassemble(
        [Instruction(0x45, 0, 1, 7), Instruction(0x20, 0, 0, 99), Instruction(6, 0, 0, 0x12340005)]
    )
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "code 0x45, 0x7",
        "A = data[99]",
        "return 0x12340000(5)",
    ]


def test_packing_is_undone_by_unpacking() -> None:
    """Eight bytes an instruction, code first; and back."""
    program = compiled()
    assert len(classic.pack(program)) == 8 * len(program)
    assert classic.pack([Instruction(0x1234, 1, 2, 0xA0B0C0D0)]) == bytes.fromhex("3412 01 02 d0c0b0a0")
    assert classic.unpack(classic.pack(program)) == program


@pytest.mark.parametrize("between", [0, 1, 254, 255, 256, 700])
@pytest.mark.parametrize("sides", ["true", "false", "both"])
def test_a_jump_reaches_any_distance(between: int, sides: str) -> None:
    """Over 255 instructions and more, to one side or both, the right answer is found."""
    out, far, near = Assembler(), Label(), Label()
    out.load(0)
    out.jump(classic.EQUAL, 5, far if sides != "false" else None, {"true": None, "false": near, "both": near}[sides])
    for _ in range(between):
        out.mask(0xFFFFFFFF)
    out.answer(1)
    out.place(near)
    out.answer(2)
    out.place(far)
    out.answer(3)
    program = out.program()
    assert all(max(one.true, one.false) <= 255 for one in program)
    answers = [ground.run(classic.pack(program), number, 0, [0] * 6) for number in (5, 6)]
    assert answers == {"true": [3, 1], "false": [1, 2], "both": [3, 2]}[sides]
    # The two answers lie between; a long jump to one side moves the other side's target by one.
    far_long = sides != "false" and between + 2 > 255
    near_long = sides != "true" and between + 1 + far_long > 255
    assert sum(one.code == classic.GOTO for one in program) == far_long + near_long


def test_every_call_with_a_condition_makes_long_jumps() -> None:
    """Some 380 calls, each with a value of its own: every one answers for its value and no other."""
    calls = table("x86_64")
    rules = [{"names": [name], "action": "SCMP_ACT_TRAP", "args": [{"index": 5, "op": "SCMP_CMP_EQ", "value": number}]}
             for name, number in calls.items()]  # fmt: skip
    program = compiled(syscalls=rules)
    assert any(one.code == classic.GOTO for one in program)
    code = classic.pack(program)
    for number in calls.values():
        answers = [ground.run(code, number, 0xC000003E, [0] * 5 + [value]) for value in (number, number + 1)]
        assert answers == [0x30000, 0x7FFF0000]
    # Found by halving: the longest way is far shorter than one comparison a call.
    assert len(program) > 2000


def test_a_program_too_long_for_the_kernel_is_refused() -> None:
    """Four conditions on each of all calls are more than 4096 instructions; the message says so."""
    rules = [
        {"names": [name], "action": "SCMP_ACT_TRAP", "args": [
            {"index": index, "op": "SCMP_CMP_GT", "value": number << 32} for index in range(4)]}
        for name, number in table("x86_64").items()
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"instructions[\s\S]*4096[\s\S]*fewer"):
        compiled(syscalls=rules)


@pytest.mark.parametrize(("value", "text"), [
    (0x80000000, "KILL_PROCESS"), (0, "KILL_THREAD"), (0x30000, "TRAP"), (0x50000, "ERRNO(0)"), (0x50026, "ERRNO(38)"),
    (0x7FF00001, "TRACE(1)"), (0x7FFC0000, "LOG"), (0x7FC00000, "USER_NOTIF"), (0x7FFF0000, "ALLOW"),
])  # fmt: skip
def test_an_answer_has_a_name(value: int, text: str) -> None:
    """The kernel's own words for what a program returns."""
    assert classic.verdict(value) == text
