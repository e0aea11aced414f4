"""Floor 1: capabilities: root's power in 41 pieces, and the five sets that hold them.

Owns: the names and numbers, and setting the sets of the calling process in the order
that the kernel demands: bounding first (it needs CAP_SETPCAP), the rest after.

Read: capabilities(7), capget(2), include/uapi/linux/capability.h.
"""

from __future__ import annotations

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lean import contents

NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}


class Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int32)]

    def __str__(self) -> str:
        return f"{{version={self.version:#x}, pid={self.pid}}}"


class Data(ctypes.Structure):
    """struct __user_cap_data_struct, twice: 64 bits a set."""

    _fields_ = [
        (f"{name}{half}", ctypes.c_uint32) for half in (0, 1) for name in ("effective", "permitted", "inheritable")
    ]

    def __str__(self) -> str:
        sets = {name: getattr(self, f"{name}0") | getattr(self, f"{name}1") << 32
                for name in ("effective", "permitted", "inheritable")}  # fmt: skip
        whole = (1 << len(NAMES)) - 1
        words = {name: "all" if mask == whole else "|".join(names(mask)) or "0" for name, mask in sets.items()}
        return f"{{{', '.join(f'{name}={word}' for name, word in words.items())}}}"


def bits(names: list[str]) -> int:
    """The mask of several capabilities (CAP_CHOWN is bit 0). Raises KeyError for an unknown name."""
    return sum(1 << NUMBERS[name] for name in set(names))


def names(mask: int) -> list[str]:
    """The names of a mask, in the kernel's order."""
    return [name for name, number in NUMBERS.items() if mask >> number & 1]


def last() -> int:
    """The highest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", "rb", buffering=0) as file:
        return int(file.read())


def held(pid: int | str = "self") -> dict[str, int]:
    """The five masks of a process by the kernel's names: CapInh CapPrm CapEff CapBnd CapAmb."""
    with open(f"/proc/{pid}/status") as file:
        rows = [line.partition(":\t") for line in file]
    return {key: int(value, 16) for key, _, value in rows if key.startswith("Cap")}


def within_reach() -> tuple[int, int]:
    """What this process can hand on over execve: the masks of its bounding and of its permitted set."""
    fields = contents("/proc/self/status").split()
    bounding, permitted = (int(fields[fields.index(name) + 1], 16) for name in (b"CapBnd:", b"CapPrm:"))
    return bounding, permitted & bounding


def own() -> tuple[int, int, int]:
    """The effective, permitted and inheritable masks of this process, from capget(2): no file can pretend others."""
    data = Data()
    call("capget", Header(C.LINUX_CAPABILITY_VERSION_3, 0), data)
    low, high = (
        (getattr(data, f"{name}{half}") for name in ("effective", "permitted", "inheritable")) for half in "01"
    )
    effective, permitted, inheritable = (one | other << 32 for one, other in zip(low, high, strict=True))
    return effective, permitted, inheritable


def limit(keep: list[str], highest: int | None = None) -> None:
    """Drop from the bounding set everything but `keep`: no execve can bring it back.

    highest -- what `last` said.  Give it where /proc is somebody else's, who may have put any file there.
    """
    mask = bits(keep)
    for number in range((last() if highest is None else highest) + 1):
        if not mask >> number & 1:
            call("prctl", C.PR_CAPBSET_DROP, number, 0, 0, 0)


def set_exactly(effective: list[str], permitted: list[str], inheritable: list[str], ambient: list[str]) -> None:
    """Make these the four sets of the calling process; the bounding set is `limit`'s.

    A capability can be ambient only while it is permitted and inheritable: any other one of `ambient` is left out
    without an error.  Raises OSError EPERM for what this process does not hold.
    """
    call("prctl", C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    masks = [bits(one) for one in (effective, permitted, inheritable)]
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in masks]
    call("capset", Header(C.LINUX_CAPABILITY_VERSION_3, 0), Data(*halves))
    for number in sorted(NUMBERS[name] for name in set(ambient) & set(permitted) & set(inheritable)):
        call("prctl", C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_RAISE, number, 0, 0)


def keep_over_change_of_user(on: bool) -> None:
    """Whether the permitted set outlives setuid(2) from root to somebody else (PR_SET_KEEPCAPS)."""
    call("prctl", C.PR_SET_KEEPCAPS, int(on), 0, 0, 0)
