"""Floor 1: small BPF programs: written down an instruction at a time, loaded, attached to a cgroup.

Owns: the handful of instructions that the kit needs, their eight bytes, and the three uses of
bpf(2): load (the verifier's own words when it refuses), attach, and ask what is attached.

A program sees a pointer to its context in r1 and answers in r0.

Read: bpf(2); Documentation/bpf/standardization/instruction-set.rst; include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import os
import struct

from labkit import errors
from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

LICENSE = b"Apache-2.0\0"  # no helper that wants a GPL program is called
LOG = 1 << 16  # bytes for the verifier's words


class Instruction(Record):
    """One instruction, and how a person reads it."""

    code: int
    to: int = 0  # register
    source: int = 0  # register
    offset: int = 0  # of memory, or instructions to jump over
    number: int = 0
    words: str = ""

    def pack(self) -> bytes:
        """struct bpf_insn; both architectures of the kit are little-endian."""
        return struct.pack("<BBhi", self.code, self.source << 4 | self.to, self.offset, self.number)


def load_word(to: int, source: int, offset: int) -> Instruction:
    """to = the 32-bit word at source + offset."""
    return Instruction(
        C.BPF_LDX | C.BPF_MEM | C.BPF_W, to, source, offset, words=f"r{to} = *(u32 *)(r{source} + {offset})"
    )


def set_to(to: int, number: int) -> Instruction:
    """to = number."""
    return Instruction(C.BPF_ALU64 | C.BPF_MOV | C.BPF_K, to, number=number, words=f"r{to} = {number}")


def copy(to: int, source: int) -> Instruction:
    """to = source."""
    return Instruction(C.BPF_ALU64 | C.BPF_MOV | C.BPF_X, to, source, words=f"r{to} = r{source}")


def mask(to: int, number: int) -> Instruction:
    """to &= number, on 32 bits."""
    return Instruction(C.BPF_ALU | C.BPF_AND | C.BPF_K, to, number=number, words=f"w{to} &= {number:#x}")


def shift_right(to: int, bits: int) -> Instruction:
    """to >>= bits, on 32 bits."""
    return Instruction(C.BPF_ALU | C.BPF_RSH | C.BPF_K, to, number=bits, words=f"w{to} >>= {bits}")


def skip_unless(to: int, number: int, over: int) -> Instruction:
    """Jump over so many instructions unless to == number."""
    words = f"if r{to} != {number} skip {over}"
    return Instruction(C.BPF_JMP | C.BPF_JNE | C.BPF_K, to, offset=over, number=number, words=words)


def skip_if(to: int, number: int, over: int) -> Instruction:
    """Jump over so many instructions if to == number."""
    words = f"if r{to} == {number} skip {over}"
    return Instruction(C.BPF_JMP | C.BPF_JEQ | C.BPF_K, to, offset=over, number=number, words=words)


def leave() -> Instruction:
    """Answer with r0."""
    return Instruction(C.BPF_JMP | C.BPF_EXIT, words="exit")


def listing(program: Sequence[Instruction]) -> str:
    """The program as people read it, a line an instruction."""
    return "\n".join(f"{number:>3}: {one.words}" for number, one in enumerate(program))


# --- bpf(2) ------------------------------------------------------------------------------


class Load(ctypes.Structure):
    """union bpf_attr for BPF_PROG_LOAD, up to prog_name."""

    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    ]


class Attach(ctypes.Structure):
    """union bpf_attr for BPF_PROG_ATTACH."""

    _fields_ = [(field, ctypes.c_uint32) for field in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")]


class Query(ctypes.Structure):
    """union bpf_attr for BPF_PROG_QUERY."""

    _fields_ = [
        *((field, ctypes.c_uint32) for field in ("target_fd", "attach_type", "query_flags", "attach_flags")),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    ]


def load(kind: int, program: Sequence[Instruction], name: str) -> int:
    """Hand a program to the kernel (`kind` is BPF_PROG_TYPE_...); a descriptor that holds it.

    Raises LabError with the verifier's words, or with the right that is missing.
    """
    code = ctypes.create_string_buffer(b"".join(one.pack() for one in program))
    licence = ctypes.create_string_buffer(LICENSE)
    attributes = Load(prog_type=kind, insn_cnt=len(program), insns=ctypes.addressof(code))
    attributes.license = ctypes.addressof(licence)
    attributes.prog_name = name.encode()[:15]
    try:
        return call("bpf", C.BPF_PROG_LOAD, attributes, ctypes.sizeof(attributes))
    except OSError as error:
        why, advice = _refused(error, attributes)
        errors.explain(error, f"cannot load the BPF program {name}", why=why, next=advice)


def _refused(error: OSError, attributes: Load) -> tuple[str, str]:
    """Why a program was not taken, and what to try: the verifier refuses with EACCES or EINVAL, and has words."""
    if error.errno == errno.EPERM:
        return "loading one takes CAP_BPF (or CAP_SYS_ADMIN) in the machine", "be root of the machine itself"
    if said := _verifier(attributes):
        return f"the verifier says: {said}", "labkit.kernel.bpf.listing shows the program with its line numbers"
    return (
        "this kernel may lack what the program needs",
        "CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF in its configuration",
    )


def _verifier(attributes: Load) -> str:
    """Load once more for the verifier's last line; a log costs time, and is wanted for errors only."""
    log = ctypes.create_string_buffer(LOG)
    attributes.log_level, attributes.log_size, attributes.log_buf = 1, LOG, ctypes.addressof(log)
    try:
        os.close(call("bpf", C.BPF_PROG_LOAD, attributes, ctypes.sizeof(attributes)))
    except OSError:
        pass
    lines = [line for line in log.value.decode(errors="replace").splitlines() if not line.startswith("processed")]
    return lines[-1] if lines else ""


def attach(program: int, group: str | os.PathLike[str], kind: int) -> None:
    """Let a loaded program answer for the cgroup and all below it, beside those that do already.

    Several are asked in turn, those of the cgroups above too, and each must agree.  It stays
    attached until the cgroup is removed.  kind -- BPF_CGROUP_...  Raises LabError.
    """
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        errors.explain(error, f"cannot attach a BPF program to {group}", why="that is no cgroup which can be opened")
    try:
        attributes = Attach(fd, program, kind, C.BPF_F_ALLOW_MULTI)
        call("bpf", C.BPF_PROG_ATTACH, attributes, ctypes.sizeof(attributes))
    except OSError as error:
        why = "a cgroup above may hold a program that allows no other, or this kernel has no CONFIG_CGROUP_BPF"
        errors.explain(error, f"cannot attach a BPF program to {group}", why=why)
    finally:
        os.close(fd)


def attached(group: str | os.PathLike[str], kind: int) -> list[int]:
    """The numbers (`bpftool prog show id N`) of the programs attached to the cgroup itself. Raises OSError."""
    numbers = (ctypes.c_uint32 * 64)()
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attributes = Query(fd, kind, 0, 0, ctypes.addressof(numbers), len(numbers))
        call("bpf", C.BPF_PROG_QUERY, attributes, ctypes.sizeof(attributes))
    finally:
        os.close(fd)
    return list(numbers[: attributes.prog_cnt])
