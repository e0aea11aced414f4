"""Floor 1: classic BPF, the language of seccomp filters: assembled, packed, and read back.

Owns: the few instructions that a filter is made of, labels, jumps that reach further than one byte can
say, the eight bytes of an instruction, and the listing.

The machine has one register, the accumulator A.  A program may only jump forwards, so it always ends.
A conditional jump keeps its two distances in a byte each; where a target is further than 255
instructions, it goes to an unconditional jump right behind it, whose distance has 32 bits.

Read: seccomp(2); Documentation/networking/filter.rst; include/uapi/linux/filter.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from labkit.errors import BadInput
from labkit.kernel import constants as C

LOAD = C.BPF_LD | C.BPF_W | C.BPF_ABS  # A = the 32-bit word of seccomp_data at k
AND = C.BPF_ALU | C.BPF_AND | C.BPF_K  # A &= k
GOTO = C.BPF_JMP | C.BPF_JA
EQUAL = C.BPF_JMP | C.BPF_JEQ | C.BPF_K
GREATER = C.BPF_JMP | C.BPF_JGT | C.BPF_K  # unsigned, as all comparisons are
AT_LEAST = C.BPF_JMP | C.BPF_JGE | C.BPF_K
RETURN = C.BPF_RET | C.BPF_K

FAR = 255  # the furthest that a conditional jump reaches
SIGNS = {EQUAL: "==", GREATER: ">", AT_LEAST: ">="}

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both architectures of the kit are little-endian.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
WORDS = {NUMBER: "nr", ARCHITECTURE: "arch", 8: "ip.low", 12: "ip.high"} | {
    ARGUMENTS + 8 * place + 4 * half: f"args[{place}].{('low', 'high')[half]}" for place in range(6) for half in (0, 1)
}
ACTIONS = {
    value: name.removeprefix("SECCOMP_RET_")
    for name, value in vars(C).items()
    if name.startswith("SECCOMP_RET_") and name not in ("SECCOMP_RET_ACTION_FULL", "SECCOMP_RET_DATA")
}
MACHINES = {value: name for name, value in vars(C).items() if name.startswith("AUDIT_ARCH_")}


class Instruction(NamedTuple):
    """struct sock_filter: what to do, how far to jump when true and when false, and a number."""

    code: int
    true: int
    false: int
    k: int


class Label:
    """A place in a program, known before it is reached."""


class Jump(NamedTuple):
    """A conditional jump before its distances are known; None is the next instruction."""

    code: int
    k: int
    true: Label | None
    false: Label | None


class Assembler:
    """A program being written: instructions, jumps and the labels between them."""

    def __init__(self) -> None:
        self._steps: list[Instruction | Jump | Label] = []

    def load(self, offset: int) -> None:
        """A = the word of seccomp_data at `offset` bytes."""
        self._steps.append(Instruction(LOAD, 0, 0, offset))

    def mask(self, bits: int) -> None:
        """A &= bits."""
        self._steps.append(Instruction(AND, 0, 0, bits))

    def answer(self, value: int) -> None:
        """End with `value` (SECCOMP_RET_... and its data)."""
        self._steps.append(Instruction(RETURN, 0, 0, value))

    def jump(self, code: int, k: int, true: Label | None = None, false: Label | None = None) -> None:
        """Compare A with k (EQUAL, GREATER, AT_LEAST) and go on at a label; None: at the next instruction."""
        self._steps.append(Jump(code, k, true, false))

    def place(self, label: Label) -> None:
        """The label is here."""
        self._steps.append(label)

    def program(self) -> list[Instruction]:
        """The instructions with their distances.

        Raises BadInput when there are more than the kernel takes (BPF_MAXINSNS, 4096).
        """
        # A jump that is found too short gets a long one behind it, which moves what follows: again, until all reach.
        long: dict[int, set[str]] = {}
        while True:
            at, places = self._places(long)
            grown = False
            for index, step in enumerate(self._steps):
                if isinstance(step, Jump):
                    for side in ("true", "false"):
                        target = getattr(step, side)
                        if target is None or side in long.get(index, ()):
                            continue
                        if places[target] - at[index] - 1 > FAR:
                            long.setdefault(index, set()).add(side)
                            grown = True
            if not grown:
                break
        made = self._made(long, at, places)
        if len(made) > C.BPF_MAXINSNS:
            raise BadInput(
                f"the seccomp profile becomes {len(made)} instructions",
                why=f"the kernel takes {C.BPF_MAXINSNS} in one filter",
                next="name fewer system calls with conditions on their arguments, or fewer architectures",
            )
        return made

    def _places(self, long: dict[int, set[str]]) -> tuple[list[int], dict[Label, int]]:
        """Where each step and each label comes to stand."""
        at, places, position = [], {}, 0
        for index, step in enumerate(self._steps):
            at.append(position)
            if isinstance(step, Label):
                places[step] = position
            else:
                position += 1 + len(long.get(index, ()))
        return at, places

    def _made(self, long: dict[int, set[str]], at: list[int], places: dict[Label, int]) -> list[Instruction]:
        made: list[Instruction] = []
        for index, step in enumerate(self._steps):
            if isinstance(step, Instruction):
                made.append(step)
            elif isinstance(step, Jump):
                far = sorted(long.get(index, ()), reverse=True)  # true's stands first
                distances = {}
                for side, target in (("true", step.true), ("false", step.false)):
                    if side in far:
                        distances[side] = far.index(side)
                    else:
                        distances[side] = len(far) if target is None else places[target] - at[index] - 1
                made.append(Instruction(step.code, distances["true"], distances["false"], step.k))
                for side in far:
                    made.append(Instruction(GOTO, 0, 0, places[getattr(step, side)] - len(made) - 1))
        return made


def pack(program: Sequence[Instruction]) -> bytes:
    """An array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *one) for one in program)


def unpack(code: bytes) -> list[Instruction]:
    """The instructions of an array of struct sock_filter."""
    return [Instruction(*one) for one in struct.iter_unpack("=HBBI", code)]


def verdict(value: int) -> str:
    """ERRNO(38), ALLOW: what a program's answer means."""
    action = ACTIONS.get(value & C.SECCOMP_RET_ACTION_FULL, hex(value & C.SECCOMP_RET_ACTION_FULL))
    data = value & C.SECCOMP_RET_DATA
    return f"{action}({data})" if data or action == "ERRNO" else action


def disassemble(program: Sequence[Instruction]) -> str:
    """The program as people read it, a line an instruction; jumps name the line they go to."""
    lines: list[str] = []
    words: dict[int, str] = {}  # what A is at an instruction, by the way that leads there
    for number, (code, true, false, k) in enumerate(program):
        loaded, targets = words.get(number, ""), [number + 1]
        if code == LOAD:
            loaded = WORDS.get(k, f"data[{k}]")
            text = f"A = {loaded}"
        elif code == AND:
            text = f"A &= {k:#x}"
        elif code == GOTO:
            targets = [number + 1 + k]
            text = f"go to {targets[0]}"
        elif code == RETURN:
            targets = []
            text = f"return {verdict(k)}"
        elif code in SIGNS:
            value = MACHINES.get(k, hex(k)) if loaded == "arch" else str(k) if loaded == "nr" and k < 1024 else hex(k)
            targets = [number + 1 + true, number + 1 + false]
            text = f"if A {SIGNS[code]} {value} go to {targets[0]} else {targets[1]}"
        else:
            text = f"code {code:#x}, {k:#x}"
        words.update(dict.fromkeys(targets, loaded))
        lines.append(f"{number:>4}: {text}")
    return "\n".join(lines)
